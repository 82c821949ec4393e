import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.config import walk_fields
from pixelis.curriculum import ConfigError, CurriculumConfig, check_examples

# The table of the settings: key, default, what is accepted at the edges, what is not.
NO_INTEGERS = (1.0, True, "1", [])
NO_NUMBERS = (True, "0.5", None, float("nan"), float("inf"))
TABLE = [
    ("enabled", True, [False], [0, "yes", None]),
    ("strategy", "staged", ["competence"], ["Staged", "stagd", None]),
    ("decision", "guide", ["guide"], ["Guide", None]),
    ("advancement_interval", 500, [1], [0, None, *NO_INTEGERS]),
    ("min_performance_for_advance", 0.6, [0, 1], [-0.01, 1.01, *NO_NUMBERS]),
    ("min_progress", 0.0, [0, 1], [-0.01, 1.01, *NO_NUMBERS]),
    (
        *("performance_metric", "token_accuracy"),
        *(["answer_accuracy", "likelihood", "answer_likelihood"], ["loss", None]),
    ),
    ("performance_window", 1, [2], [0, None, *NO_INTEGERS]),
    ("eval_samples_per_difficulty", 128, [1], [0, None, *NO_INTEGERS]),
    ("scored_pool_size", 1024, [None, 1], [0, *NO_INTEGERS]),
    ("rollback_enabled", True, [False], [0, "yes", None]),
    ("rollback_threshold", -0.05, [-1, 0], [-1.01, 0.05, *NO_NUMBERS]),
    ("rollback_cooldown", 1000, [0], [-1, None, *NO_INTEGERS]),
    ("rollback_factor", 2.0, [1], [0.99, *NO_NUMBERS]),
    ("max_rollbacks", None, [1], [0, *NO_INTEGERS]),
    ("trial_steps", 0, [1], [-1, None, *NO_INTEGERS]),
    ("rollback_scope", "data", ["data"], ["all", None]),
    ("competence.c0", 0.01, [0, 1], [-0.01, 1.01, *NO_NUMBERS]),
    ("competence.steps", None, [1], [0, *NO_INTEGERS]),
    ("self_paced.initial_fraction", 0.3, [0.01, 1], [0, 1.01, *NO_NUMBERS]),
    ("self_paced.growth", 1.3, [1.01], [1, 0.5, *NO_NUMBERS]),
    ("schedule.steps", None, [[1], [3, 7]], [5, [5, 5], [7, 3]]),
    ("adaptive.floor", 0.1, [0, 1], [-0.01, 1.01, *NO_NUMBERS]),
    ("adaptive.rate", 0.3, [0.01, 5], [0, -1, *NO_NUMBERS]),
    ("adaptive.active_fraction", None, [0.01, 1], [0, 1.01, True, "0.5", float("nan")]),
    ("adaptive.noise_cut", 0.9, [0.01, 1], [0, 1.01, *NO_NUMBERS]),
]


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def look_up(settings, key):
    for name in key.split("."):
        settings = settings[name]
    return settings


@pytest.mark.parametrize(
    ("key", "default", "accepted", "rejected"), TABLE, ids=[row[0] for row in TABLE]
)
def test_the_table_row_by_row(key, default, accepted, rejected):
    assert look_up(CurriculumConfig.from_dict({}).to_dict(), key) == default
    for value in [default, *accepted]:
        assert look_up(CurriculumConfig.from_dict(nested(key, value)).to_dict(), key) == value
    for value in rejected:
        # Name, rule and value, in one shape.
        text = rf"^curriculum\.{key} must be .+, got {re.escape(repr(value))}( \(.*\))?$"
        with pytest.raises(ConfigError, match=text):
            CurriculumConfig.from_dict(nested(key, value))


def test_the_table_has_every_key():
    keys = [key for key, _ in walk_fields(CurriculumConfig)]
    assert [row[0] for row in TABLE] == [key for key in keys if key != "stages"]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "enabled": st.booleans(),
            "advancement_interval": st.integers(1, 10**6),
            "rollback_threshold": st.floats(-1, 0),
            "rollback_factor": st.integers(1, 5) | st.floats(1, 10),
            "max_rollbacks": st.none() | st.integers(1, 9),
            "strategy": st.sampled_from(["staged", "competence", "self_paced", "adaptive"]),
            "competence": st.fixed_dictionaries({"steps": st.none() | st.integers(1, 99)}),
        },
    )
)
def test_to_dict_is_plain_json_and_complete(settings):
    config = CurriculumConfig.from_dict(settings)
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain == config.to_dict()
    assert set(plain) == set(CurriculumConfig.model_fields)
    assert CurriculumConfig.from_dict(plain) == config


def test_an_int_is_accepted_where_a_float_is_expected():
    config = CurriculumConfig.from_dict({"rollback_factor": 3, "adaptive": {"rate": 1}})
    assert json.dumps([config.rollback_factor, config.adaptive.rate]) == "[3.0, 1.0]"


def stages(*mixes):
    return [{"name": f"s{i}", "difficulty_mix": mix} for i, mix in enumerate(mixes)]


WHOLE = {"simple": 1.0}
# Beside the table: what joins keys, sections, stages and misspelt names.
REJECTED = [
    ("strategy", "stagd", "strategy must be one of adaptive, .*, staged, got 'stagd'"),
    ("rollback_scope", "data+weights", "rollback_scope must be data where trial_steps is 0"),
    ("decision", "progress", "decision must be guide where trial_steps is 0, got 'progress' \\(it"),
    ("competence", None, "curriculum.competence must be a section of keys and values, got None"),
    ("competence", {"stps": 1}, "Unknown key 'curriculum.competence.stps'. Did you mean 'steps'"),
    ("schedule", {"steps": [0]}, r"curriculum.schedule.steps\[0\] must be >= 1, got 0"),
    ("stages", [], r"curriculum.stages must have at least 1 items, got \[\]"),
    ("stages", None, "curriculum.stages must be a list, as in .*, got None"),
    ("stages", ["simple"], r"stages\[0\] must be a section of keys and values, got 'simple'"),
    ("stages", [{"name": "a"}], r"stages\[0\].difficulty_mix must be given, got"),
    ("stages", [{"difficulty_mix": WHOLE}], r"stages\[0\].name must be given, got"),
    ("stages", [{"name": "a", "mix": WHOLE}], r"Unknown key 'curriculum.stages\[0\].mix'"),
    ("stages", [{"name": "", "difficulty_mix": WHOLE}], r"stages\[0\].name must not be empty, got"),
    ("stages", [{"name": "a", "difficulty_mix": WHOLE}] * 2, "names must be different, got 'a'"),
    ("stages", stages({"a": 0.5, "b": 0.4}), "mix must be fractions that sum to 1 .*, got 0.9$"),
    ("stages", stages({}), r"stages\[0\].difficulty_mix must be fractions that sum to 1"),
    ("stages", stages({"": 1.0}), r"stages\[0\].difficulty_mix must not be empty, got ''"),
    ("stages", stages({"a": 1.5, "b": -0.5}), r"\[0\].difficulty_mix.a must be <= 1, got 1.5"),
    ("stages", stages({"a": True}), "difficulty_mix.a must be a finite number, got True"),
    ("foo", 1, "Unknown key 'curriculum.foo'. Valid keys here: enabled, strategy, stages,"),
    ("rollback_treshold", 1, "Did you mean 'rollback_threshold'"),
    ("floor", 1, "Did you mean 'adaptive.floor'"),
]


@pytest.mark.parametrize(("key", "value", "text"), REJECTED)
def test_rejected(key, value, text):
    with pytest.raises(ConfigError, match=text):
        CurriculumConfig.from_dict({key: value})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (None, "^curriculum must be a section of keys and values, got None"),
        *(
            (
                {"strategy": "schedule", "schedule": {"steps": steps}},
                "schedule.steps must be a list of 2 steps, one for each stage but the first, got ",
            )
            for steps in (None, [100], [100, 200, 300])
        ),
        (
            {"strategy": "adaptive", "adaptive": {"floor": 0.4}},
            "adaptive.floor must be at most 1/3, the even share",
        ),
    ],
)
def test_rejected_together(settings, text):
    with pytest.raises(ConfigError, match=text):
        CurriculumConfig.from_dict(settings)


@pytest.mark.parametrize(
    ("settings", "metric"),
    [({}, "answer_likelihood"), ({"performance_metric": "likelihood"}, "likelihood")],
)
def test_progress_compares_answers_where_nothing_else_is_said(settings, metric):
    config = CurriculumConfig.from_dict({"decision": "progress", "trial_steps": 1} | settings)
    assert config.performance_metric == metric
    assert CurriculumConfig.from_dict(config.to_dict()) == config


def test_a_floor_at_the_even_share_is_accepted():
    CurriculumConfig.from_dict({"strategy": "adaptive", "adaptive": {"floor": 1 / 3}})


def test_the_default_stages():
    mixes = [list(stage.difficulty_mix.values()) for stage in CurriculumConfig().stages]
    assert mixes == [[1.0, 0.0, 0.0], [0.4, 0.4, 0.2], [0.2, 0.3, 0.5]]
    assert CurriculumConfig().difficulties == ("simple", "medium", "hard")


def test_difficulties_may_have_any_names():
    config = CurriculumConfig.from_dict(
        {"stages": stages({"easy": 1.0, "odd": 0.0}, {"easy": 0.5, "rare": 0.5})}
    )
    assert config.difficulties == ("easy", "odd", "rare")
    assert config.required_difficulties == ("easy", "rare")


FULL = {"simple": 10, "medium": 10, "hard": 10}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("without", [{"simple": 10, "medium": 10}, {**FULL, "hard": 0}])
def test_a_missing_difficulty_is_named_with_stage_and_split(split, without):
    sizes = {"the train split": FULL, "the validation split": FULL, f"the {split} split": without}
    with pytest.raises(ConfigError, match=f"Stage 'balanced' .* 'hard', but the {split} split"):
        check_examples(CurriculumConfig(), sizes)


def test_examples_of_an_unused_difficulty_are_not_needed():
    config = CurriculumConfig.from_dict({"stages": stages({"simple": 1.0, "hard": 0.0})})
    check_examples(
        config, {"the train split": {"simple": 1}, "the validation split": {"simple": 1}}
    )


@pytest.mark.parametrize("name", ["simple", "hard"])
def test_where_the_curriculum_is_off_data_of_one_difficulty_are_trained_on_whole(name):
    sizes = {name: 7}
    config = CurriculumConfig(enabled=False).fit_to_data(sizes)
    assert config.required_difficulties == (name,)
    assert config.stages[-1].difficulty_mix == {"simple": 0, "medium": 0, "hard": 0} | {name: 1}
    check_examples(config, {"the train split": sizes, "the validation split": sizes})


@pytest.mark.parametrize(
    ("enabled", "difficulties"), [(True, ["simple"]), (False, ["simple", "hard"]), (False, [])]
)
def test_otherwise_the_mixes_are_what_they_are(enabled, difficulties):
    config = CurriculumConfig(enabled=enabled)
    assert config.fit_to_data(difficulties) is config


def test_only_the_last_stage_counts_where_the_curriculum_is_off():
    settings = {"enabled": False, "stages": stages({"hard": 1.0}, {"simple": 1.0})}
    config = CurriculumConfig.from_dict(settings)
    check_examples(
        config, {"the train split": {"simple": 1}, "the validation split": {"simple": 1}}
    )
    assert config.required_difficulties == ("simple",)
