"""Configuration files that break every rule: read as they are meant, or refused in one line.

Through `parse_arguments`, as each entry point reads its own, and through what it checks of the open
sections before it does anything.
"""

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pixelis.cli.arguments import parse_arguments
from pixelis.config import (
    CONFIG_FILES,
    DataPrepConfig,
    EvaluateConfig,
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
        config = parse_arguments(
            ["--config", str(path)],
            entry_point="test",
            description="",
            config_class=config_class,
            default_config="",
        ).config
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
        ("a: " + "[" * 100_000, "values may be nested 50 deep (line 1)"),
        ("a:" + "".join(f"\n{' ' * n}- " for n in range(400)), "values may be nested 50 deep"),
        ("training: {seed: 0x" + "f" * 9000 + "}", "a number may have 1000 characters, got 9002"),
        ("training: {seed: 1" + ":1" * 3000 + "}", "a number may have 1000 characters, got 6001"),
        ("training: {seed: " + "9" * 5000 + "}", "a number may have 1000 characters, got 5000"),
        ("training: {seed: " + "9" * 999 + "}", "training.seed must be an integer, got 999"),
        ("training: {learning_rate: .nan}", "must be a finite number, got nan"),
        ("training: {learning_rate: 1e999}", "must be a finite number, got inf"),
        ("training: {learning_rate: 1" + ":1" * 300 + ".5}", "cannot be read as float (line 1)"),
        ("!!map [a, b]", "expected keys and values, got"),
        ("training: !!map [a]", "expected keys and values, got"),
        ("training: {auto_batch_size: !!bool foo}", "'foo' cannot be read as bool (line 1)"),
        ("training: {seed: !!int ''}", "'' cannot be read as int (line 1)"),
        ("training: {learning_rate: !!float ''}", "'' cannot be read as float (line 1)"),
        ("exp_name: !!timestamp foo", "'foo' cannot be read as timestamp (line 1)"),
        ("exp_name: !!binary aaaa", "exp_name must be text, got b'"),
        ("exp_name: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("training: !!set {a, b}", "training must be a section with the keys"),
        ("{{a: b}: c}", "found unhashable key (line 1)"),
        ("a: 1\n---\nb: 2", "found another document (line 2)"),
        ('exp_name: "\\ud800"', "exp_name must not hold control characters and lone surrogates"),
        ('data: {path: "a\\0b"}', "data.path must not hold control characters and lone surr"),
        ('exp_name: "a\\nb"', "got U+000A"),
        ('curriculum: {strategy: "\\e[2J"}', "curriculum.strategy must not hold control char"),
        ('curriculum: {"\\0": 1}', "a key of curriculum must not hold control characters"),
        ("exp_name: " + "x" * 100_000, "exp_name may have 4096 characters, got 100000"),
        ("exp_name: " + "x" * 900_000, "may have 800000 bytes, got 900010"),
        ("? " + "x" * 100_000 + "\n: 1", "Unknown key 'xxxxx"),
    ],
    ids=range(31),
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
        (ModelFileConfig, "model: {lora_r: 1000000}", "model.lora_r must be in [1, 1024]"),
        (EvaluateConfig, "bootstrap_samples: 1000000000", "must be in [1, 100000]"),
    ],
)
def test_numbers_that_would_use_up_the_machine(file, config_class, text, rule):
    file.write_text(text)
    assert rule in read(file, config_class)


def test_a_long_text_that_is_no_file_is_bounded_too():
    with pytest.raises(ConfigError, match="some may have 200000 characters, got 200001"):
        parse_yaml("#" * 200_001, "some")


def test_aliases_within_reason_are_what_they_stand_for(file):
    file.write_text("data: &d {path: a}\ntraining: {seed: 3}\ncurriculum: {stages: [*d, *d]}\n")
    tree = load_config(TrainingFileConfig, file)
    assert tree.curriculum == {"stages": [{"path": "a"}, {"path": "a"}]}
