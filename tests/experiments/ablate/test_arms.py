import copy

import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.experiments.ablate.arms import ARMS, build_curriculum, check_arms, matched_steps

SETTINGS = {
    "advancement_interval": 20,
    "stages": [
        {"name": "simple", "difficulty_mix": {"simple": 1.0, "medium": 0.0, "hard": 0.0}},
        {"name": "balanced", "difficulty_mix": {"simple": 0.4, "medium": 0.4, "hard": 0.2}},
        {"name": "full", "difficulty_mix": {"simple": 0.2, "medium": 0.3, "hard": 0.5}},
    ],
}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_a_valid_curriculum_and_leaves_the_shared_settings_alone(arm):
    shared = copy.deepcopy(SETTINGS)
    built = build_curriculum(arm, shared, 90)
    assert shared == SETTINGS
    assert CurriculumConfig.from_dict(built).to_dict() == built
    assert built["advancement_interval"] == 20
    assert built["enabled"] is not arm.startswith("uniform")


@pytest.mark.parametrize("arm", ["staged", "competence", "self_paced", "adaptive", "schedule"])
def test_a_strategy_s_arm_has_the_shared_stages(arm):
    built = build_curriculum(arm, SETTINGS, 90)
    assert (built["strategy"], built["stages"]) == (arm, SETTINGS["stages"])


def test_uniform_draws_every_difficulty_alike_from_the_first_step():
    (stage,) = build_curriculum("uniform", SETTINGS, 90)["stages"]
    assert stage["difficulty_mix"] == dict.fromkeys(("simple", "medium", "hard"), 1 / 3)


def test_the_stages_of_schedule_begin_at_equal_parts_or_where_they_are_said_to():
    assert build_curriculum("schedule", SETTINGS, 90)["schedule"]["steps"] == [30, 60]
    given = SETTINGS | {"schedule": {"steps": [5, 80]}}
    for arm in ("schedule", "reverse"):
        assert build_curriculum(arm, given, 90)["schedule"]["steps"] == [5, 80]


def test_reverse_begins_with_hard_alone_and_ends_in_the_same_mix():
    stages = build_curriculum("reverse", SETTINGS, 90)["stages"]
    assert [list(stage["difficulty_mix"].values()) for stage in stages] == [
        [0.0, 0.0, 1.0],
        [0.2, 0.4, 0.4],
        [0.2, 0.3, 0.5],
    ]
    assert stages[-1] == SETTINGS["stages"][-1]


def test_an_unknown_arm_is_named_with_the_choices():
    with pytest.raises(ConfigError, match=r"arms must be among uniform, .*, got 'random'"):
        check_arms(["uniform", "random"])


def test_an_arm_of_matched_length_needs_what_it_is_matched_to():
    check_arms(["uniform", "staged", "uniform_same_tokens"])
    with pytest.raises(ConfigError, match="uniform_same_tokens must hold uniform and staged, got"):
        check_arms(["uniform", "uniform_same_tokens", "reverse"])


@pytest.mark.parametrize(("tokens", "steps"), [(75, 75), (100, 100), (130, 130), (0, 1), (33, 33)])
def test_matched_steps_see_as_many_tokens(tokens, steps):
    assert matched_steps(100, 1000, 10 * tokens) == steps


def test_fewer_steps_than_stages_are_named():
    with pytest.raises(ConfigError, match="training.max_steps must be >= 3, the number of stages"):
        build_curriculum("reverse", SETTINGS, 2)


def test_steps_after_the_end_are_named():
    given = SETTINGS | {"schedule": {"steps": [5, 90]}}
    with pytest.raises(ConfigError, match="schedule.steps must be below training.max_steps 90"):
        build_curriculum("schedule", given, 90)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"strategy": "stagd"}, "strategy.*stagd"), ({"enabled": "x"}, "enabled.*'x'")],
)
def test_what_an_arm_replaces_is_checked_too(changed, message):
    with pytest.raises(ConfigError, match=message):
        build_curriculum("staged", SETTINGS | changed, 90)


def test_settings_that_break_a_rule_are_named():
    with pytest.raises(ConfigError, match=r"rollback_threshold must be in \[-1, 0\], got 0.05"):
        build_curriculum("staged", SETTINGS | {"rollback_threshold": 0.05}, 90)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("changed", [{"enabled": False}, {"strategy": "competence"}])
def test_an_arm_is_itself_whatever_strategy_the_shared_settings_name(arm, changed):
    assert build_curriculum(arm, SETTINGS | changed, 90) == build_curriculum(arm, SETTINGS, 90)
