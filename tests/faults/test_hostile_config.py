"""Configuration files that break every rule: read as they are meant, or refused in one line.

Through `load_config`, as each entry point reads its own, and through what it checks of the open
sections before it does anything.
"""

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pixelis.config import (
    CONFIG_FILES,
    DataPrepConfig,
    ModelFileConfig,
    TrainingFileConfig,
    flatten,
    load_config,
    parse_yaml,
    to_yaml,
)
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from tests.faults.hostile import bounded, broken, mutated, one_line, run_cases, values

CONFIGS = Path(__file__).parent.parent.parent / "configs"
FILES = {Path(name).name: kind for name, kind in CONFIG_FILES.items()}
TEXTS = {name: (CONFIGS / name).read_bytes() for name in FILES}
TREES = {name: parse_yaml(text.decode(), name) for name, text in TEXTS.items()}


def read(path, config_class):
    """As an entry point does; gives the configuration or what it is refused for."""
    try:
        config = load_config(config_class, path)
        if hasattr(config, "curriculum"):
            CurriculumConfig.from_dict(config.curriculum)
    except ConfigError as error:
        assert "\n" not in one_line(error)
        return str(error)
    # What is accepted can be recorded, and comes back as it was.
    text = to_yaml(config)
    text.encode("utf-8")
    path.write_text(text, encoding="utf-8")
    assert load_config(config_class, path) == config
    flatten(config)
    return config


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.yaml"


def test_the_files_are_right_before_they_are_changed(file):
    for name, config_class in FILES.items():
        file.write_bytes(TEXTS[name])
        assert isinstance(read(file, config_class), config_class)


def test_broken_text(file):
    def check(case):
        name, content = case
        file.write_bytes(content)
        read(file, FILES[name])

    strategy = st.sampled_from(list(FILES)).flatmap(
        lambda name: st.tuples(st.just(name), broken([TEXTS[name]]))
    )
    run_cases("config text", strategy, check)


def as_yaml(tree):
    """JSON is YAML, but for the names of what is no finite number; and quick to write and read."""
    return json.dumps(tree).replace("NaN", ".nan").replace("Infinity", ".inf")


def test_wrong_values(file):
    def check(case):
        name, tree = case
        file.write_text(as_yaml(tree), encoding="utf-8")
        read(file, FILES[name])

    strategy = st.sampled_from(list(FILES)).flatmap(
        lambda name: st.tuples(st.just(name), mutated([TREES[name]], values(long=False)))
    )
    run_cases("config values", strategy, check)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: v}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def indented(text):
    return "curriculum:\n" + "".join(f"  {line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (LAUGHS, "may hold 50000 values, aliases written out, got 1.23e+09"),
        (indented(LAUGHS), "may hold 50000 values, aliases written out, got 1.23e+09"),
        (indented(MERGES), "may hold 50000 values, aliases written out, got 3.7e+08"),
        ("a: " + "[" * 100_000, "a value cannot be read (maximum recursion depth exceeded"),
        ("a:" + "".join(f"\n{' ' * n}- " for n in range(400)), "values may be nested 50 deep"),
        ("training: {seed: 0x" + "f" * 9000 + "}", "a number may have 250 characters, got 9002"),
        ("training: {seed: 1" + ":1" * 3000 + "}", "a number may have 250 characters, got 6001"),
        (
            "training: {seed: " + "9" * 249 + "}",
            "training.seed must be in [0, 4294967295], got 9999",
        ),
        ("training: {learning_rate: 1e999}", "must be a finite number, got inf"),
        ("!!map [a, b]", "expected a mapping node, but found sequence (line 1)"),
        ("training: {auto_batch_size: !!bool foo}", "a value cannot be read ('foo')"),
        ("training: {seed: !!int ''}", "a value cannot be read (string index out of range)"),
        ("exp_name: !!timestamp foo", "a value cannot be read ('NoneType' object has no"),
        ("exp_name: !!binary aaaa", "exp_name must be text, got b'"),
        ("exp_name: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("training: !!set {a, b}", "training must be a section of keys and values, got {"),
        ("{{a: b}: c}", "found unhashable key (line 1)"),
        *(
            (text, "text must not hold control characters and lone surrogates, got U+")
            for text in ('exp_name: "\\ud800"', 'data: {path: "a\\0b"}', 'curriculum: {"\\n": 1}')
        ),
        ("exp_name: " + "x" * 100_000, "exp_name must have at most 4096 characters, got 'xxx"),
        ("exp_name: " + "x" * 900_000, "may have 200000 characters"),
        ("? " + "x" * 100_000 + "\n: 1", "Unknown key 'xxxxx"),
    ],
    ids=range(23),
)
def test_what_is_refused_and_why(file, text, rule):
    file.write_text(text, encoding="utf-8")
    with bounded():
        refused = read(file, TrainingFileConfig)
    assert isinstance(refused, str) and rule in refused
    assert len(refused) < 1000


@pytest.mark.parametrize(
    ("config_class", "text", "rule"),
    [
        (DataPrepConfig, "num_samples: 1000000000000", "num_samples must be in [1, 5000000]"),
        (DataPrepConfig, "num_workers: 1000000", "num_workers must be in [1, 256]"),
        (ModelFileConfig, "model: {lora_r: 1000000}", "model.lora_r must be in [1, 1024] or auto"),
    ],
)
def test_numbers_that_would_use_up_the_machine(file, config_class, text, rule):
    file.write_text(text)
    assert rule in read(file, config_class)


def test_a_long_text_that_is_no_file_is_bounded_too():
    with pytest.raises(ConfigError, match="some may have 200000 characters"):
        parse_yaml("#" * 200_001, "some")


def test_aliases_within_reason_are_what_they_stand_for(file):
    file.write_text("data: &d {path: a}\ntraining: {seed: 3}\ncurriculum: {stages: [*d, *d]}\n")
    tree = load_config(TrainingFileConfig, file)
    assert tree.curriculum == {"stages": [{"path": "a"}, {"path": "a"}]}
