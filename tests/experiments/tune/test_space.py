"""The section `space`: what it means, and every way in which it can be wrong."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixelis.errors import ConfigError
from pixelis.experiments.tune.space import build_space, with_values
from tests.experiments.tune.worker import DEFAULTS, FIXED

LARGE = 10**400
INTERVAL, THRESHOLD = "curriculum.advancement_interval", "curriculum.rollback_threshold"


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
    found = {each.name: each.distribution for each in build(nested)}
    assert found == {
        INTERVAL: IntDistribution(10, 90, step=10),
        THRESHOLD: FloatDistribution(-0.3, -0.01),
        "curriculum.strategy": CategoricalDistribution(["staged", "adaptive"]),
    }
    assert build(flat) == build(nested)
    (one,) = build({INTERVAL: {"low": 1, "high": 100, "log": True}})
    assert one.distribution == IntDistribution(1, 100, log=True)
    assert one.ends == (1, 100)
    assert (one.contains(5), one.contains(101), one.contains("x")) == (True, False, False)
    (choice,) = build({"curriculum.strategy": {"choices": ["staged", "adaptive"]}})
    assert choice.ends == ("staged", "adaptive") and not choice.contains("other")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "space must name at least one key to search, got none"),
        ({"curriculum": {}}, "space must name at least one key to search, got none"),
        ({THRESHOLD: -0.1}, f"space.{THRESHOLD} must be .*, got -0.1"),
        (
            {"curriculum.interval": {"low": 1, "high": 2}},
            "Unknown key 'curriculum.interval'",
        ),
        ({"training.seed": {"low": 1, "high": 2}}, "training.seed cannot be searched: seeds are"),
        ({"data.path": {"choices": ["a", "b"]}}, "data.path cannot be searched: all see the same"),
        ({INTERVAL: {"low": 1, "hihg": 2}}, "Unknown key 'hihg' in space.* Did you mean 'high'"),
        ({INTERVAL: {"low": 1}}, "must have low and high, or choices, got low"),
        ({INTERVAL: {"low": 9, "high": 9}}, f"{INTERVAL}.low must be below high, got 9 >= 9"),
        ({INTERVAL: {"low": 9, "high": 3}}, f"{INTERVAL}.low must be below high, got 9 >= 3"),
        ({INTERVAL: {"low": 1.5, "high": 3}}, "low must be an integer, got 1.5"),
        ({INTERVAL: {"low": True, "high": 3}}, "low must be an integer, got True"),
        ({INTERVAL: {"low": 0, "high": 3, "log": True}}, "above 0 where log is true, got 0"),
        ({INTERVAL: {"low": 1, "high": 3, "log": True, "step": 1}}, "must have log or step"),
        ({INTERVAL: {"low": 1, "high": 3, "step": 0}}, "step must be above 0, got 0"),
        (
            {INTERVAL: {"low": 1, "high": 3, "step": 5}},
            "step must be at most high - low = 2, got 5",
        ),
        ({INTERVAL: {"low": 1, "high": 10**26}}, "high must be in .*2147483647], got 1000000"),
        ({THRESHOLD: {"low": -1e308, "high": 1e308}}, "high - low that is a number, got -1e"),
        ({THRESHOLD: {"low": 0, "high": LARGE}}, "high must be finite, got 10000"),
        ({INTERVAL: {"low": 0, "high": LARGE}}, "high must be finite, got 10000"),
        ({THRESHOLD: {"low": 0, "high": float("nan")}}, "high must be finite, got nan"),
        (
            {THRESHOLD: {"low": 0.001, "high": 0.1, "step": 1e-30}},
            f"{THRESHOLD}.step must be at least .* = 9.9e-08, got 1e-30",
        ),
        (
            {THRESHOLD: {"low": 0.001, "high": 0.1, "step": 0.03}},
            f"{THRESHOLD}.high must be low plus whole steps of 0.03, got 0.1: .* is 0.091",
        ),
        (
            {INTERVAL: {"low": 1, "high": 10, "step": 4}},
            f"{INTERVAL}.high must be low plus whole steps of 4, got 10: .* is 9",
        ),
        ({INTERVAL: {"low": 1, "high": 3, "log": "yes"}}, "log must be true or false, got 'yes'"),
        ({THRESHOLD: {"low": "a", "high": 0}}, "low must be a number, got 'a'"),
        ({THRESHOLD: {"low": None, "high": 0.1}}, "low must be below high, got None"),
        (
            {"curriculum.strategy": {"low": 0, "high": 1}},
            "must have choices, its value is 'sta",
        ),
        ({"curriculum.strategy": {"choices": []}}, "must be a list that is not empty, got"),
        ({"curriculum.strategy": {"choices": "ab"}}, "must be a list that is not empty, got 'ab'"),
        ({"curriculum.strategy": {"choices": ["a", "a"]}}, "choices must differ"),
        ({"curriculum.strategy": {"choices": ["a", [1]]}}, "choices must hold plain values"),
        (
            {INTERVAL: {"choices": [1, 2], "low": 3}},
            "must have choices or a range, got choi",
        ),
    ],
)
def test_a_wrong_section_is_named(section, message):
    with pytest.raises(ConfigError, match=message):
        build(section)


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0.1, 0.3, 0.1), (-0.3, 0, 0.1), (0, 1, 1e-6), (0.001, 0.091, 0.03)]
)
def test_steps_fit_as_they_are_written(recwarn, low, high, step):
    (one,) = build({THRESHOLD: {"low": low, "high": high, "step": step}})
    assert one.ends == (low, high) and not recwarn.list


def test_values_go_into_a_copy_of_the_tree():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    assert with_values(tree, {"a.b": 5, "a.c.d": 6, "f.g": 7}) == {
        "a": {"b": 5, "c": {"d": 6}},
        "e": [1],
        "f": {"g": 7},
    }
    assert tree == {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
