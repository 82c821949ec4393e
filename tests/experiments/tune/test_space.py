"""The section `space`: what it means, and every way in which it can be wrong."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixelis.errors import ConfigError
from pixelis.experiments.tune.space import build_space, contains, end_values, with_values

INTERVAL, THRESHOLD = "curriculum.advancement_interval", "curriculum.rollback_threshold"
STRATEGY = "curriculum.strategy"
DEFAULTS = {
    INTERVAL: 500,
    THRESHOLD: -0.05,
    STRATEGY: "staged",
    "training.seed": 0,
    "curriculum.max_rollbacks": None,
}
FIXED = {"training.seed": "seeds are seeds_per_trial"}


def build(section):
    return build_space(section, DEFAULTS, FIXED)


def test_ranges_and_choices_by_dotted_or_nested_names():
    nested = {
        "curriculum": {
            "advancement_interval": {"low": 10, "high": 90, "step": 10},
            "rollback_threshold": {"low": -0.3, "high": -0.01},
            "strategy": {"choices": ["staged", "adaptive"]},
        }
    }
    flat = {f"curriculum.{name}": value for name, value in nested["curriculum"].items()}
    assert build(flat) == build(nested)
    assert build(nested) == {
        INTERVAL: IntDistribution(10, 90, step=10),
        THRESHOLD: FloatDistribution(-0.3, -0.01),
        STRATEGY: CategoricalDistribution(["staged", "adaptive"]),
    }
    interval = build({INTERVAL: {"low": 1, "high": 100, "log": True}})[INTERVAL]
    assert interval == IntDistribution(1, 100, log=True) and end_values(interval) == (1, 100)
    assert [contains(interval, each) for each in (5, 101, "x")] == [True, False, False]
    choice = build(nested)[STRATEGY]
    assert end_values(choice) == ("staged", "adaptive") and not contains(choice, "other")
    nullable = {"curriculum.max_rollbacks": {"low": 1, "high": 3}}
    assert build(nullable) == {"curriculum.max_rollbacks": IntDistribution(1, 3)}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "space must name at least one key to search, got none"),
        ({"curriculum": {}}, "space must name at least one key to search, got none"),
        ({THRESHOLD: -0.1}, f"space.{THRESHOLD} must be .*, got -0.1"),
        ({"curriculum.interval": {"low": 1, "high": 2}}, "Unknown key 'curriculum.interval'"),
        ({"training.seed": {"low": 1, "high": 2}}, "training.seed cannot be searched: seeds are"),
        ({INTERVAL: {"low": 1, "hihg": 2}}, "Unknown key 'hihg' in space.* Did you mean 'high'"),
        ({INTERVAL: {"low": 1}}, "must have low and high, or choices, got low"),
        ({INTERVAL: {"choices": [1, 2], "low": 3}}, "must have low and high, or choices, got cho"),
        ({STRATEGY: {"low": 0, "high": 1}}, "must have choices, its value is 'staged'"),
        ({INTERVAL: {"low": 1, "high": 3, "log": "yes"}}, "log must be true or false, got 'yes'"),
    ],
)
def test_a_wrong_section_is_named(section, message):
    with pytest.raises(ConfigError, match=message):
        build(section)


@pytest.mark.parametrize("choices", [[], "ab", 3, ["a", "a"], ["a", [1]]])
def test_choices_are_plain_values_each_once(choices):
    with pytest.raises(ConfigError, match=f"{STRATEGY}.choices must be a list of plain values"):
        build({STRATEGY: {"choices": choices}})


@pytest.mark.parametrize("name", [INTERVAL, THRESHOLD])
@pytest.mark.parametrize("bad", [None, True, "a", 10**26, 10**400, -1e308, float("nan")])
@pytest.mark.parametrize("field", ["low", "high"])
def test_the_ends_of_a_range_are_numbers_that_can_be_computed_with(name, bad, field):
    with pytest.raises(ConfigError, match=f"{name}.{field} must be an? .* in .*2147483647], got "):
        build({name: {"low": 1, "high": 3, field: bad}})


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (INTERVAL, {"low": 9, "high": 3}),
        (INTERVAL, {"low": 0, "high": 3, "log": True}),
        (INTERVAL, {"low": 1, "high": 3, "log": True, "step": 2}),
        (INTERVAL, {"low": 1, "high": 3, "step": 0}),
        (INTERVAL, {"low": 1, "high": 3, "step": 5}),
        (INTERVAL, {"low": 1, "high": 10, "step": 4}),
        (THRESHOLD, {"low": 0.001, "high": 0.1, "step": 0.03}),
        (THRESHOLD, {"low": 0, "high": 0.1, "log": True}),
    ],
)
def test_a_range_that_optuna_refuses_or_changes_is_refused(name, fields):
    with pytest.raises(ConfigError, match=f"space.{name} must be a range of Optuna: "):
        build({name: fields})


def test_a_step_that_is_no_integer_or_too_small_is_refused():
    with pytest.raises(ConfigError, match="low must be an integer .*, got 1.5"):
        build({INTERVAL: {"low": 1.5, "high": 3}})
    with pytest.raises(ConfigError, match="step must make at most 1000000 steps, got 1e-30"):
        build({THRESHOLD: {"low": 0.001, "high": 0.1, "step": 1e-30}})


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0.1, 0.3, 0.1), (-0.3, 0, 0.1), (0, 1, 1e-6), (0.001, 0.091, 0.03)]
)
def test_steps_fit_as_they_are_written(recwarn, low, high, step):
    space = build({THRESHOLD: {"low": low, "high": high, "step": step}})
    assert end_values(space[THRESHOLD]) == (low, high) and not recwarn.list


def test_values_go_into_a_copy_of_the_tree():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    assert with_values(tree, {"a.b": 5, "a.c.d": 6, "f.g": 7}) == {
        "a": {"b": 5, "c": {"d": 6}},
        "e": [1],
        "f": {"g": 7},
    }
    assert tree == {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
