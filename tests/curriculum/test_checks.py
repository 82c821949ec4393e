import pytest

from pixelis.curriculum.checks import (
    check_choice,
    check_counts,
    check_keys,
    check_mix,
    check_strata,
    is_integer,
    is_number,
    prefixed,
    require,
)
from pixelis.errors import ConfigError


def test_require_names_key_rule_value_and_note():
    with pytest.raises(ConfigError, match=r"^rate must be in \[0, 1\], got 2 \(too much\)$"):
        require(False, "rate", "in [0, 1]", 2, "too much")


def test_a_prefix_says_where_a_setting_stands():
    with pytest.raises(ConfigError, match=r"^stages\[1\]: rate must be low, got 2$"):
        with prefixed("stages[1]: "):
            require(False, "rate", "low", 2)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 1.1, -0.1])
def test_is_number_rejects(value):
    assert not is_number(value, 0, 1)


def test_is_number_rejects_an_int_beyond_a_floats_range():
    assert not is_number(10**400) and is_number(10**300)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0])
def test_is_integer_rejects(value):
    assert not is_integer(value, 1)


def test_unknown_key():
    text = r"Unknown key 'curriculum.rat'. Did you mean 'rate'\? Valid keys here: rate, floor\."
    with pytest.raises(ConfigError, match=text):
        check_keys({"rat": 1}, ["rate", "floor"], "curriculum")
    with pytest.raises(ConfigError, match=r"'a\.zzz'\. Valid keys here: rate\.$"):
        check_keys({"zzz": 1}, ["rate"], "a")


def test_settings_must_be_a_mapping():
    with pytest.raises(ConfigError, match="curriculum must be a mapping of settings, got None"):
        check_keys(None, [], "curriculum")


def test_choice_names_the_choices_and_the_closest():
    text = r"strategy must be one of staged, schedule, got 'stagd' \(did you mean 'staged'\?\)"
    with pytest.raises(ConfigError, match=text):
        check_choice("strategy", "stagd", ["staged", "schedule"])


@pytest.mark.parametrize(
    ("mix", "text"),
    [
        ({}, "mix must be a mapping of difficulty to fraction"),
        ([1.0], "mix must be a mapping of difficulty to fraction"),
        ({"": 1.0}, "a difficulty in mix must be a non-empty string, got ''"),
        ({3: 1.0}, "a difficulty in mix must be a non-empty string, got 3"),
        ({"a": 1.5, "b": -0.5}, "mix: the fraction of 'a' must be a number >= 0"),
        ({"a": True}, "mix: the fraction of 'a' must be a number >= 0, and at most 1, got True"),
        ({"a": float("nan")}, "mix: the fraction of 'a' must be .* got nan"),
        ({"a": 0.5, "b": 0.4}, r"mix must be fractions that sum to 1 within 1e-6, got 0\.9"),
        ({"a": 0.0}, "mix must be fractions that sum to 1 within 1e-6, got 0.0"),
    ],
)
def test_mix_is_rejected(mix, text):
    with pytest.raises(ConfigError, match=text):
        check_mix("mix", mix)


@pytest.mark.parametrize(
    "mix", [{"a": 1}, {"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 0.5, "b": 0.499999}]
)
def test_mix_is_accepted(mix):
    assert check_mix("mix", mix) == mix


@pytest.mark.parametrize(
    ("strata", "text"),
    [
        (None, "strata must be a mapping of difficulty to performance, got None"),
        ({"simple": 0.5}, "strata must be given for every .*'hard' is missing"),
        ({"simple": 0.5, "hard": 1.2}, r"the performance on 'hard' must be in \[0, 1\], got 1.2"),
        ({"simple": -0.1, "hard": 1}, r"the performance on 'simple' must be in \[0, 1\], got -0.1"),
        ({"simple": 1, "hard": float("nan")}, r"on 'hard' must be in \[0, 1\], got nan"),
        ({"simple": 1, "hard": None}, r"on 'hard' must be in \[0, 1\], got None"),
    ],
)
def test_strata_are_rejected(strata, text):
    with pytest.raises(ConfigError, match=text):
        check_strata("strata", strata, ["simple", "hard"])


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (3, "counts must be a mapping of difficulty to count, got 3"),
        ({}, "counts must be given for every .*'hard' is missing"),
        ({"hard": 0}, "counts: the count of 'hard' must be an integer >= 1, got 0"),
    ],
)
def test_counts_are_rejected(counts, text):
    with pytest.raises(ConfigError, match=text):
        check_counts("counts", counts, ["hard"])
