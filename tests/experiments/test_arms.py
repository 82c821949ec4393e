import copy

import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.experiments.arms import ARMS, build_curriculum, check_arms, matched_steps

SETTINGS = {
    "advancement_interval": 20,
    "stages": [
        {"name": "simple", "difficulty_mix": {"simple": 1.0, "medium": 0.0, "hard": 0.0}},
        {"name": "balanced", "difficulty_mix": {"simple": 0.4, "medium": 0.4, "hard": 0.2}},
        {"name": "full", "difficulty_mix": {"simple": 0.2, "medium": 0.3, "hard": 0.5}},
    ],
}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_valid_and_itself_whatever_strategy_the_shared_settings_name(arm):
    shared = copy.deepcopy(SETTINGS)
    built = build_curriculum(arm, shared, 90)
    assert shared == SETTINGS
    assert CurriculumConfig.from_dict(built).to_dict() == built
    assert built["advancement_interval"] == 20
    assert built["enabled"] is not arm.startswith("uniform")
    for changed in ({"enabled": False}, {"strategy": "competence"}):
        assert build_curriculum(arm, SETTINGS | changed, 90) == built
    if arm in ("staged", "competence", "self_paced", "adaptive", "schedule"):
        assert (built["strategy"], built["stages"]) == (arm, SETTINGS["stages"])


def test_the_mixes_and_steps_of_arms_with_their_own():
    (stage,) = build_curriculum("uniform", SETTINGS, 90)["stages"]
    assert stage["difficulty_mix"] == dict.fromkeys(("simple", "medium", "hard"), 1 / 3)
    reverse = build_curriculum("reverse", SETTINGS, 90)
    assert [list(stage["difficulty_mix"].values()) for stage in reverse["stages"]] == [
        [0.0, 0.0, 1.0],
        [0.2, 0.4, 0.4],
        [0.2, 0.3, 0.5],
    ]
    given = SETTINGS | {"schedule": {"steps": [5, 80]}}
    for arm in ("schedule", "reverse"):
        assert build_curriculum(arm, SETTINGS, 90)["schedule"]["steps"] == [30, 60]
        assert build_curriculum(arm, given, 90)["schedule"]["steps"] == [5, 80]


@pytest.mark.parametrize(("tokens", "steps"), [(75, 75), (100, 100), (130, 130), (0, 1), (33, 33)])
def test_matched_steps_see_as_many_tokens(tokens, steps):
    assert matched_steps(100, 1000, 10 * tokens) == steps


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["uniform", "random"],
            r"arms must be among uniform, .*, or say what they change, as in {random: {curriculum: "
            ".*, got 'random'",
        ),
        ({"base": {"trial_steps": 5}}, "other than base and tuning, got 'base'"),
        ({"mine ": {"trial_steps": 5}}, r"spaces between, other than .*, got 'mine '"),
        ({"../a": {"trial_steps": 5}}, r"arms must have names of letters.*, got '../a'"),
        (
            ["uniform", "uniform_same_tokens", "reverse"],
            "uniform_same_tokens must hold uniform and staged, got",
        ),
    ],
)
def test_names_of_arms_that_are_refused(names, message):
    check_arms(dict.fromkeys(("uniform", "staged", "uniform_same_tokens"), {}))
    with pytest.raises(ConfigError, match=message):
        check_arms(names if isinstance(names, dict) else dict.fromkeys(names, {}))


def test_an_arm_of_any_name_is_the_shared_settings_with_its_changes():
    shared = copy.deepcopy(SETTINGS) | {"adaptive": {"floor": 0.2, "rate": 0.5}}
    changes = {"rollback_enabled": False, "adaptive": {"rate": 0.9}}
    built = build_curriculum("never back", shared, 90, changes)
    plain = CurriculumConfig.from_dict(shared).to_dict()
    assert built == plain | {
        "rollback_enabled": False,
        "adaptive": plain["adaptive"] | {"rate": 0.9},
    }
    # Its strategy is the shared one, or its own; that of a known name stays what the name says.
    assert (
        build_curriculum("x", shared | {"strategy": "adaptive"}, 90, {"trial_steps": 5})["strategy"]
        == "adaptive"
    )
    known = build_curriculum("schedule", shared, 90, {"schedule": {"steps": [7, 8]}})
    assert (known["strategy"], known["schedule"]["steps"]) == ("schedule", [7, 8])
    assert build_curriculum("uniform", shared, 90, {"trial_steps": 5})["enabled"] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trial_step": 5}, r"^arms\.mine must hold valid settings: Unknown key .*trial_step"),
        (
            {"rollback_factor": 0},
            r"^arms\.mine must hold valid settings: .*rollback_factor must be",
        ),
        (
            {"stages": [{"name": "simple", "difficulty_mix": {"simple": 0.5, "medium": 0.5}}]},
            r"^arms\.mine must have every difficulty of the shared last stage.*: hard is not$",
        ),
        (
            {"performance_metric": "likelihood"},
            r"^arms\.mine must have the performance_metric .*, token_accuracy, got likelihood$",
        ),
        (
            {"eval_samples_per_difficulty": 7},
            r"^arms\.mine must have the eval_samples_per_difficulty .*, got 7$",
        ),
    ],
)
def test_changes_of_an_arm_that_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_curriculum("mine", SETTINGS, 90, changes)


@pytest.mark.parametrize(
    ("arm", "key", "value"),
    [
        ("staged", "strategy", "competence"),
        ("schedule", "enabled", False),
        ("uniform", "stages", SETTINGS["stages"]),
    ],
)
def test_what_a_known_arm_sets_itself_cannot_be_changed(arm, key, value):
    with pytest.raises(ConfigError, match=rf"^arms\.{arm} must not change curriculum\.{key}, "):
        build_curriculum(arm, SETTINGS, 90, {key: value})
    own = build_curriculum(arm, SETTINGS, 90)
    assert build_curriculum(arm, SETTINGS, 90, {key: own[key]}) == own
    assert build_curriculum("reverse", SETTINGS, 90, {"stages": SETTINGS["stages"][1:]})


@pytest.mark.parametrize(
    ("arm", "changed", "max_steps", "message"),
    [
        ("reverse", {}, 2, "training.max_steps must be >= 3, the number of stages"),
        (
            "schedule",
            {"schedule": {"steps": [5, 90]}},
            90,
            "schedule.steps must be below training.max_steps 90",
        ),
        ("staged", {"strategy": "stagd"}, 90, "strategy.*stagd"),
        ("staged", {"enabled": "x"}, 90, "enabled.*'x'"),
        (
            "staged",
            {"rollback_threshold": 0.05},
            90,
            r"must be in \[-1, 0\], got 0.05",
        ),
    ],
)
def test_settings_that_are_refused(arm, changed, max_steps, message):
    with pytest.raises(ConfigError, match=message):
        build_curriculum(arm, SETTINGS | changed, max_steps)
