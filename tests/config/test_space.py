"""What the command line makes of the section `space`."""

import pytest

from pixelis.config import TuneFileConfig, flat_space, load_config, merge_space
from pixelis.errors import ConfigError

FILE = {"curriculum": {"interval": {"low": 2, "high": 9, "log": True}, "factor": {"low": 1}}}
FLAT = {"curriculum.interval": {"low": 2, "high": 9, "log": True}, "curriculum.factor": {"low": 1}}
CHOICES = {"choices": [3, 4]}


@pytest.mark.parametrize(
    ("path", "value", "interval"),
    [
        ((), {"curriculum.interval": CHOICES}, CHOICES),
        ((), {"curriculum": {"interval": CHOICES}}, CHOICES),
        (("curriculum",), {"interval": CHOICES}, CHOICES),
        (("curriculum", "interval"), CHOICES, CHOICES),
        (("curriculum", "interval", "low"), 5, {"low": 5, "high": 9, "log": True}),
        ((), {"curriculum.interval": None}, None),
        (("curriculum", "interval"), None, None),
    ],
)
def test_a_key_that_is_given_replaces_the_files_and_null_removes_it(path, value, interval):
    merged = merge_space(FILE, path, value)
    assert merged.pop("curriculum.interval", None) == interval
    assert merged == {"curriculum.factor": {"low": 1}}


def test_all_of_it():
    assert flat_space(FILE) == merge_space(FILE, (), FILE) == FLAT
    assert merge_space(FILE, (), {}) == merge_space(FILE, ("curriculum",), None) == {}


def test_twice_or_not_there():
    with pytest.raises(ConfigError, match="space.curriculum.factor must be given once, got"):
        flat_space({**FILE, "curriculum.factor": CHOICES})
    with pytest.raises(ConfigError, match="space.x must be a key of space to be removed: curric"):
        merge_space(FILE, ("x",), None)


def test_a_command_line_over_a_file(tmp_path):
    file = tmp_path / "tune.yaml"
    file.write_text("space: {curriculum: {interval: {low: 2, high: 9}}}\n")
    pairs = [("space", "{curriculum.interval: {choices: [3, 4]}}"), ("space.x.y", "{low: 1}")]
    config = load_config(TuneFileConfig, file, pairs)
    assert config.space == {"curriculum.interval": CHOICES, "x.y": {"low": 1}}
    for null in ("null", "None", ""):
        assert load_config(TuneFileConfig, file, [("space.curriculum.interval", null)]).space == {}
