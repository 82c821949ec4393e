"""The loader: precedence, types, rules, and one clear message for everything that is wrong."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.config import (
    DataPrepConfig,
    EvaluateConfig,
    ModelFileConfig,
    TrainingFileConfig,
    flatten,
    load_config,
    to_yaml,
    walk_fields,
)
from pixelis.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "params.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def load(*overrides, path=None, config_class=TrainingFileConfig):
    return load_config(config_class, path, overrides)


# Defaults and precedence


def test_defaults_are_the_guides_values_for_the_7b():
    training = load().training
    assert (training.batch_size, training.gradient_accumulation_steps) == (4, 4)
    assert (training.max_length, training.learning_rate) == (4096, 1e-4)
    assert (training.warmup_steps, training.max_steps) == (100, 10000)
    assert (training.eval_steps, training.save_steps) == (500, 500)
    model = load(config_class=ModelFileConfig).model
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (32, 64, 0.1)


def test_override_wins_over_file_and_file_over_default(write):
    path = write("training: {batch_size: 8, eval_steps: 70}\n")
    training = load(("training.batch_size", "2"), path=path).training
    assert (training.batch_size, training.eval_steps, training.save_steps) == (2, 70, 500)


def test_an_override_mends_a_wrong_value_in_the_file(write):
    path = write("training: {batch_size: 0}\n")
    assert load(("training.batch_size", "2"), path=path).training.batch_size == 2


def test_the_last_of_two_overrides_of_a_key_wins():
    assert load(("training.seed", "1"), ("training.seed", "2")).training.seed == 2


def test_overrides_from_a_mapping_keep_their_types_and_read_text_as_a_command_line():
    overrides = {"training.max_steps": 300, "training.learning_rate": "1e-5", "data.path": "x"}
    config = load_config(TrainingFileConfig, None, overrides)
    assert (config.training.max_steps, config.training.learning_rate) == (300, 1e-5)
    assert config.data.path == "x"


def test_a_mapping_given_for_a_section_is_merged_key_by_key(write):
    path = write("training: {batch_size: 8}\ncurriculum: {competence: {c0: 0.2, steps: 9}}\n")
    overrides = {"training": {"seed": 7}, "curriculum": {"competence": {"c0": 0.3}}}
    config = load_config(TrainingFileConfig, path, overrides)
    assert (config.training.batch_size, config.training.seed) == (8, 7)
    assert config.curriculum == {"competence": {"c0": 0.3, "steps": 9}}


def test_overrides_do_not_share_their_lists_with_the_caller():
    stages = [{"name": "only"}]
    config = load_config(TrainingFileConfig, None, {"curriculum.stages": stages})
    stages[0]["name"] = "changed"
    assert config.curriculum["stages"] == [{"name": "only"}]


# Types


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.e-5", "1.0e-5", "0.00001", "+1e-05"])
def test_every_way_to_write_a_number_is_a_number(write, text):
    path = write(f"training: {{learning_rate: {text}}}\ncurriculum: {{rate: {text}}}\n")
    config = load(path=path)
    assert config.training.learning_rate == 1e-5
    assert config.curriculum["rate"] == 1e-5
    assert load(("training.learning_rate", text)).training.learning_rate == 1e-5


def test_an_integer_is_accepted_for_a_float_and_kept_as_one():
    weight_decay = load(("training.weight_decay", "1")).training.weight_decay
    assert weight_decay == 1.0 and isinstance(weight_decay, float)


@pytest.mark.parametrize(
    ("key", "text", "rule"),
    [
        ("training.max_steps", "abc", "an integer, got 'abc'"),
        ("training.max_steps", "300.0", "an integer, got 300.0"),
        ("training.max_steps", "true", "an integer, got True"),
        ("training.max_steps", "", "an integer, got None"),
        ("training.max_steps", "[3]", "an integer, got [3]"),
        ("training.learning_rate", "true", "a finite number, got True"),
        ("training.learning_rate", "fast", "a finite number, got 'fast'"),
        ("training.learning_rate", ".nan", "a finite number, got nan"),
        ("training.learning_rate", ".inf", "a finite number, got inf"),
        ("training.learning_rate", "1e400", "a finite number, got inf"),
        ("training.weight_decay", "9" * 400, "a finite number, got 9999"),
        ("evaluation.enabled", "1", "true or false, got 1"),
        ("evaluation.enabled", "maybe", "true or false, got 'maybe'"),
    ],
)
def test_a_wrong_type_names_key_rule_and_value(key, text, rule):
    with pytest.raises(ConfigError, match=re.escape(f"{key} must be {rule}")) as caught:
        load((key, text))
    assert str(caught.value).endswith("(the command line)")


def test_text_in_a_file_has_to_be_text_and_names_the_file(write):
    path = write("exp_name: 5\n")
    with pytest.raises(ConfigError, match=re.escape(f"exp_name must be text, got 5 ({path})")):
        load(path=path)


@pytest.mark.parametrize("text", ["5", "1e5", "true", "a: b", "[x", "none", "ümlaut"])
def test_text_on_a_command_line_is_taken_as_it_is(text):
    assert load(("exp_name", text)).exp_name == text


def test_text_must_not_be_empty():
    with pytest.raises(ConfigError, match=r"data\.path must not be empty \(the command line\)"):
        load(("data.path", ""))


@pytest.mark.parametrize("text", ["none", "None", "null", "", "~"])
def test_an_optional_key_can_be_emptied(write, text):
    path = write("resume: outputs/sft/checkpoint-100\n")
    assert load(path=path).resume == "outputs/sft/checkpoint-100"
    assert load(("resume", text), path=path).resume is None
    assert load(path=write(f"resume: '{text}'\n")).resume is None


def test_a_list_is_a_tuple_of_checked_values():
    config = load(("tasks", "[object_counting]"), config_class=DataPrepConfig)
    assert config.tasks == ("object_counting",)
    config = load(("difficulty.percentiles", "[20, 50.5]"), config_class=DataPrepConfig)
    assert config.difficulty.percentiles == (20.0, 50.5)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("tasks", "object_counting", "tasks must be a list, as in [a, b], got 'object_counting'"),
        ("tasks", "[a, 3]", "tasks[1] must be text, got 3"),
        ("tasks", "[]", "tasks must name each task once, got []"),
        ("tasks", "[a, a]", "tasks must name each task once, got ['a', 'a']"),
        ("tasks", "[a", "tasks: '[a' is not valid YAML: "),
        ("difficulty.thresholds", "0.5", "difficulty.thresholds must be a list, as in [a, b]"),
    ],
)
def test_wrong_lists(key, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load((key, text), config_class=DataPrepConfig)


# Rules


@pytest.mark.parametrize(
    ("config_class", "key", "text", "message"),
    [
        (TrainingFileConfig, "training.batch_size", "0", "training.batch_size must be >= 1, got 0"),
        (TrainingFileConfig, "training.learning_rate", "0", "must be > 0, got 0"),
        (TrainingFileConfig, "training.seed", "-1", "must be in [0, 4294967295], got -1"),
        (
            TrainingFileConfig,
            "training.lr_scheduler_type",
            "sine",
            "must be one of linear, cosine, constant, got 'sine'",
        ),
        (DataPrepConfig, "trap_ratio", "1.5", "trap_ratio must be in [0, 1], got 1.5"),
        (DataPrepConfig, "test_fraction", "0", "test_fraction must be in (0, 1), got 0"),
        (DataPrepConfig, "source", "photos", "source must be one of scenes, coco, got 'photos'"),
        (
            DataPrepConfig,
            "input_format",
            "csv",
            "input_format must be one of cota, messages, conversations, got 'csv'",
        ),
        (DataPrepConfig, "max_rejected", "5", "max_rejected must be in [0, 1], got 5"),
        (DataPrepConfig, "max_length", "0", "max_length must be >= 1, got 0"),
        (
            DataPrepConfig,
            "difficulty.scorer",
            "entropy",
            "difficulty.scorer must be one of composite, model, multi, got 'entropy'",
        ),
        (
            DataPrepConfig,
            "difficulty.method",
            "quantiles",
            "difficulty.method must be one of percentiles, thresholds, got 'quantiles'",
        ),
        (
            DataPrepConfig,
            "difficulty.correlation_samples",
            "301",
            "difficulty.correlation_samples must be in [0, 300], got 301",
        ),
        (DataPrepConfig, "difficulty.model_name", "", "difficulty.model_name must not be empty"),
        (ModelFileConfig, "model.lora_dropout", "1", "must be in [0, 1), got 1"),
        (ModelFileConfig, "model.torch_dtype", "int8", "got 'int8'"),
        (EvaluateConfig, "split", "tests", "one of train, validation, test, got 'tests'"),
    ],
)
def test_a_value_out_of_range_names_key_rule_and_value(config_class, key, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load((key, text), config_class=config_class)


@pytest.mark.parametrize(
    ("config_class", "overrides", "message"),
    [
        (
            DataPrepConfig,
            {"difficulty.errors": 0.2},
            "difficulty: trajectory, operations, reasoning, errors, task must sum to 1, got 1.05",
        ),
        (
            DataPrepConfig,
            {"difficulty.percentiles": [66, 33]},
            "difficulty.percentiles must be two rising numbers, got [66.0, 33.0]",
        ),
        (
            DataPrepConfig,
            {"difficulty.percentiles": [50]},
            "difficulty.percentiles must be two rising numbers, got [50.0]",
        ),
        (
            DataPrepConfig,
            {"difficulty.thresholds": [0.6, 0.6]},
            "difficulty.thresholds must be two rising numbers, got [0.6, 0.6]",
        ),
        (
            DataPrepConfig,
            {"difficulty.thresholds": [0.1, 0.2, 0.3]},
            "difficulty.thresholds must be two rising numbers, got [0.1, 0.2, 0.3]",
        ),
        (
            DataPrepConfig,
            {"include_traps": True, "trap_ratio": 0.9},
            "negative_ratio, trap_ratio (where included) and self_correction_ratio must sum"
            " to less than 1, got 1",
        ),
        (
            DataPrepConfig,
            {"test_fraction": 0.9},
            "validation_fraction + test_fraction must be less than 1, got 1.02",
        ),
        (
            ModelFileConfig,
            {"model.min_pixels": 2000000},
            "model.min_pixels must be <= model.max_pixels, got 2000000 > 1003520",
        ),
    ],
)
def test_rules_that_join_several_keys(config_class, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(config_class, None, overrides)


@pytest.mark.parametrize("text", ["auto", "8"])
def test_a_number_or_a_word(write, text):
    expected = {"auto": "auto", "8": 8}[text]
    from_file = load_config(ModelFileConfig, write(f"model: {{lora_r: {text}}}\n"))
    given = load_config(ModelFileConfig, None, {"model.lora_r": text})
    assert from_file.model.lora_r == given.model.lora_r == expected


@pytest.mark.parametrize("text", ["other", "true", "1.5", "null"])
def test_neither_the_number_nor_the_word(text):
    with pytest.raises(ConfigError, match="^model.lora_r must be an integer or auto, got "):
        load_config(ModelFileConfig, None, {"model.lora_r": text})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"model.lora_r": "auto", "model.init_lora_weights": "pissa"},
            "model.init_lora_weights must be default or eva where model.lora_r is auto, got pissa ",
        ),
        (
            {"model.load_in_4bit": "true", "model.init_lora_weights": "olora"},
            "model.init_lora_weights must not be olora where model.load_in_4bit is true ",
        ),
    ],
)
def test_adapters_that_cannot_be(overrides, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        load_config(ModelFileConfig, None, overrides)


def test_ratios_of_what_is_left_out_do_not_count():
    config = load_config(DataPrepConfig, None, {"trap_ratio": 0.9, "negative_ratio": 0.9})
    assert config.trap_ratio == 0.9


def test_nothing_is_imported_and_every_task_is_made_unless_asked():
    config = load(config_class=DataPrepConfig)
    assert (config.source, config.input, config.tasks) == ("scenes", None, None)
    assert (config.max_rejected, config.max_length) == (0.05, None)
    rules = config.difficulty
    assert (rules.scorer, rules.method, rules.correlation_samples) == (
        "composite",
        "percentiles",
        300,
    )


def test_what_was_asked_for_can_be_taken_back_on_the_command_line(write):
    path = write(
        "input: mine\ninput_format: cota\nimage_folder: pictures\nmax_length: 9\ntasks: [a]\n"
    )
    names = ("input", "input_format", "image_folder", "max_length", "tasks")
    given = load(path=path, config_class=DataPrepConfig)
    assert [getattr(given, name) for name in names] == ["mine", "cota", "pictures", 9, ("a",)]
    config = load(*((name, "null") for name in names), path=path, config_class=DataPrepConfig)
    assert [getattr(config, name) for name in names] == [None] * 5


# Unknown keys


def test_an_unknown_key_in_a_file_names_the_file_and_what_was_meant(write):
    path = write("training: {learing_rate: 1}\n")
    expected = (
        f"Unknown key 'training.learing_rate' in {path}. Did you mean 'learning_rate'?"
        " Valid keys here: output_dir, seed, "
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load(path=path)


def test_an_unknown_key_on_the_command_line_says_so():
    expected = "Unknown key 'training.zzz' in the command line. Valid keys here: output_dir, "
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load(("training.zzz", "1"))


def test_a_key_without_its_section_is_found():
    with pytest.raises(ConfigError, match=r"Unknown key 'max_steps'.*mean 'training\.max_steps'\?"):
        load(("max_steps", "1"))


@pytest.mark.parametrize("key", ["", ".", "training.", "training..seed", "a.b.c"])
def test_a_malformed_key_is_an_error(key):
    with pytest.raises(ConfigError, match="Unknown key|must be a section"):
        load((key, "1"))


def test_a_key_below_a_value_is_an_error(write):
    with pytest.raises(ConfigError, match=r"training\.seed must be an integer, got \{'x': '1'\}"):
        load(("training.seed.x", "1"))
    path = write("training: 5\n")
    with pytest.raises(ConfigError, match=r"training\.seed cannot be set: training is no section"):
        load(("training.seed", "1"), path=path)


@pytest.mark.parametrize("value", ["5", "[1]", "null", ""])
def test_a_section_has_to_be_a_section(write, value):
    path = write(f"training: {value}\n")
    with pytest.raises(ConfigError, match="training must be a section with the keys output_dir, "):
        load(path=path)
    path = write(f"curriculum: {value}\n")
    with pytest.raises(ConfigError, match="curriculum must be a section, got "):
        load(path=path)


# The open section


def test_overrides_reach_into_the_curriculum():
    config = load(
        ("curriculum.rollback_threshold", "-0.1"),
        ("curriculum.competence.c0", "0.1"),
        ("curriculum.max_rollbacks", "None"),
        ("curriculum.strategy", "staged"),
        ("curriculum.stages", "[{name: only, difficulty_mix: {simple: 1}}]"),
    )
    assert config.curriculum == {
        "rollback_threshold": -0.1,
        "competence": {"c0": 0.1},
        "max_rollbacks": None,
        "strategy": "staged",
        "stages": [{"name": "only", "difficulty_mix": {"simple": 1}}],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: .nan}", "curriculum.a must be a finite number, text, true, false, null, a list"),
        ("{a: [.inf]}", "curriculum.a[0] must be a finite number"),
        ("{a: 2024-01-01}", "curriculum.a must be a finite number"),
        ("{1: a}", "curriculum must have text as keys, got 1"),
        ("{a: &a [*a]}", "curriculum must not contain itself (the command line)"),
    ],
)
def test_the_curriculum_holds_nothing_but_plain_values(text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(("curriculum", text))


# Files


def test_a_missing_file(tmp_path):
    path = tmp_path / "no.yaml"
    with pytest.raises(ConfigError, match=re.escape(f"No such configuration file: {path} (looked")):
        load(path=path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path} is not a file")):
        load(path=tmp_path)


def test_a_file_that_cannot_be_read(write, monkeypatch):
    path = write("resume: null\n")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match=re.escape(f"{path} cannot be read: Permission denied")):
        load(path=path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"exp_name: \xff\xfe\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path} is not valid YAML: not UTF-8 text")):
        load(path=path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("training: {", "expected the node content, but found '<stream end>' (line 1)"),
        ("a: 1\na: 2\n", "duplicate key 'a' (line 2)"),
        ("curriculum:\n  x: {c0: 1, c0: 2}\n", "duplicate key 'c0' (line 2)"),
        ("a: 1\n---\nb: 2\n", "but found another document (line 2)"),
        ("a: !!python/name:os.system\n", "could not determine a constructor for the tag"),
        ("a: 2024-13-45\n", "month must be in 1..12"),
        ("a: " + "[" * 3000, "values may be nested 50 deep (line 1)"),
        ("a: \x00\n", "unacceptable character"),
    ],
)
def test_broken_yaml_is_one_line(write, text, reason):
    path = write(text)
    with pytest.raises(ConfigError, match=re.escape(f"{path} is not valid YAML: ")) as caught:
        load(path=path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# all commented out\n", "- a\n", "5\n"])
def test_a_file_has_to_hold_keys(write, text):
    path = write(text)
    with pytest.raises(ConfigError, match=re.escape(f"{path} must hold keys and values, got ")):
        load(path=path)


def test_anchors_and_merge_keys_work(write):
    path = write("curriculum:\n  a: &a {x: 1, y: 2}\n  b: {<<: *a, y: 3}\n")
    assert load(path=path).curriculum == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("exp_name: a\n", encoding="utf-8-sig")
    assert load(path=path).exp_name == "a"


# The way back


CONFIG_CLASSES = (DataPrepConfig, TrainingFileConfig, ModelFileConfig, EvaluateConfig)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
open_values = st.dictionaries(texts, st.recursive(scalars, st.lists, max_leaves=5), max_size=3)


@pytest.mark.parametrize("config_class", CONFIG_CLASSES)
def test_the_defaults_come_back_unchanged(config_class, write):
    config = load(config_class=config_class)
    assert load(path=write(to_yaml(config)), config_class=config_class) == config


@settings(deadline=None)  # a busy machine is no defect
@given(
    texts,
    st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False),
    open_values.filter(lambda values: math.inf not in map(abs, _numbers(values))),
)
def test_any_configuration_comes_back_unchanged(tmp_path_factory, name, rate, curriculum):
    overrides = {"exp_name": name, "training.learning_rate": rate, "curriculum": curriculum}
    config = load_config(TrainingFileConfig, None, overrides)
    path = tmp_path_factory.mktemp("config") / "resolved.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    again = load_config(TrainingFileConfig, path, ())
    assert again == config


def _numbers(value):
    if isinstance(value, dict | list):
        children = value.values() if isinstance(value, dict) else value
        return [number for child in children for number in _numbers(child)]
    return [value] if isinstance(value, float) else []


def test_flatten_has_dotted_keys_and_scalars():
    config = load(("curriculum.stages", "[{name: only}]"), ("curriculum.competence.c0", "0.1"))
    flat = flatten(config)
    assert flat["training.learning_rate"] == 1e-4
    assert flat["resume"] is None
    assert flat["curriculum.stages"] == '[{"name": "only"}]'
    assert flat["curriculum.competence.c0"] == 0.1
    flat = flatten(load(config_class=DataPrepConfig))
    assert flat["difficulty.percentiles"] == "[33.0, 66.0]"


@pytest.mark.parametrize("config_class", CONFIG_CLASSES)
def test_every_key_has_a_meaning_and_obeys_its_own_rule(config_class):
    fields = dict(walk_fields(config_class))
    assert all(one.description and not one.description.endswith(".") for one in fields.values())
    load_config(config_class, None, {key: one.default for key, one in fields.items()})
