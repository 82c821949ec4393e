"""The loader: precedence, types, rules, and one clear message for everything that is wrong."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.config import (
    CONFIG_FILES,
    PROFILES,
    AblateFileConfig,
    DataPrepConfig,
    EvaluateConfig,
    ModelFileConfig,
    TrainingFileConfig,
    TuneFileConfig,
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


def refused(config_class, path, overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(config_class, path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Precedence


def test_override_wins_over_file_and_file_over_default(write):
    path = write("training: {batch_size: 8, eval_steps: 70}\n")
    training = load(("training.batch_size", "2"), path=path).training
    assert (training.batch_size, training.eval_steps, training.save_steps) == (2, 70, 500)
    assert load(("training.seed", "1"), ("training.seed", "2")).training.seed == 2
    # Also over a value in the file that is wrong.
    path = write("training: {batch_size: 0}\n")
    assert load(("training.batch_size", "2"), path=path).training.batch_size == 2


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


def test_a_copy_with_other_values_is_checked_as_a_file_is():
    config = TrainingFileConfig()
    changed = config.replace(exp_name="mine", training=config.training.replace(seed=3))
    assert (changed.exp_name, changed.training.seed, config.training.seed) == ("mine", 3, 0)
    with pytest.raises(ConfigError, match=r"^seed must be in \[0, 4294967295\], got -1$"):
        config.training.replace(seed=-1)
    with pytest.raises(ConfigError, match="Unknown key 'sed'. Did you mean 'seed'"):
        config.training.replace(sed=1)


# Values


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.e-5", "1.0e-5", "0.00001", "+1e-05"])
def test_every_way_to_write_a_number_is_a_number(write, text):
    path = write(f"training: {{learning_rate: {text}}}\ncurriculum: {{rate: {text}}}\n")
    config = load(path=path)
    assert config.training.learning_rate == config.curriculum["rate"] == 1e-5
    assert load(("training.learning_rate", text)).training.learning_rate == 1e-5


def test_an_integer_is_accepted_for_a_float_and_kept_as_one():
    weight_decay = load(("training.weight_decay", "1")).training.weight_decay
    assert weight_decay == 1.0 and isinstance(weight_decay, float)


@pytest.mark.parametrize("text", ["5", "1e5", "true", "a: b", "[x", "none", "ümlaut"])
def test_text_on_a_command_line_is_taken_as_it_is(text):
    assert load(("exp_name", text)).exp_name == text


@pytest.mark.parametrize("text", ["none", "None", "null", "", "~"])
def test_an_optional_key_can_be_emptied(write, text):
    path = write("resume: outputs/sft/checkpoint-100\n")
    assert load(path=path).resume == "outputs/sft/checkpoint-100"
    assert load(("resume", text), path=path).resume is None
    assert load(path=write(f"resume: '{text}'\n")).resume is None
    path = write("max_length: 9\ntasks: [a]\ninput_format: cota\n")
    pairs = [(name, text) for name in ("max_length", "tasks", "input_format")]
    config = load(*pairs, path=path, config_class=DataPrepConfig)
    assert (config.max_length, config.tasks, config.input_format) == (None, None, None)


def test_a_list_is_a_tuple_of_checked_values():
    config = load(("tasks", "[object_counting]"), config_class=DataPrepConfig)
    assert config.tasks == ("object_counting",)
    config = load(("difficulty.percentiles", "[20, 50.5]"), config_class=DataPrepConfig)
    assert config.difficulty.percentiles == (20.0, 50.5)


def test_the_tools_of_an_import_are_a_profile_or_a_section(write):
    text = "{look: {operation: ZOOM_IN, arguments: {box: bbox, of: 1, why: null}}}"
    for config in (
        load(("import.tools", text), config_class=DataPrepConfig),
        load(path=write(f"import:\n  tools: {text}\n"), config_class=DataPrepConfig),
    ):
        (tool,) = config.tools.values()
        assert tool.arguments == {"box": "bbox", "of": 1, "why": None} and tool.unit == "pixels"
        assert load(path=write(to_yaml(config)), config_class=DataPrepConfig) == config
    for text in ("null", "none"):
        assert load(("import.tools", text), config_class=DataPrepConfig).tools == {}
    for name, tools in PROFILES.items():
        config = load(("import.tools", name), config_class=DataPrepConfig)
        assert config.tools.keys() == tools.keys()
        assert load(path=write(to_yaml(config)), config_class=DataPrepConfig) == config


def test_a_number_or_a_word(write):
    for text, value in (("auto", "auto"), ("8", 8)):
        path = write(f"model: {{lora_r: {text}}}\n")
        assert load_config(ModelFileConfig, path).model.lora_r == value
        assert load_config(ModelFileConfig, None, {"model.lora_r": text}).model.lora_r == value


def test_ratios_of_what_is_left_out_do_not_count():
    config = load_config(DataPrepConfig, None, {"trap_ratio": 0.9, "negative_ratio": 0.9})
    assert config.trap_ratio == 0.9


def test_overrides_reach_into_the_curriculum():
    config = load(
        ("curriculum.rollback_threshold", "-0.1"),
        ("curriculum.competence.c0", "0.1"),
        ("curriculum.max_rollbacks", "null"),
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


# What is refused: the class, what a command line gives, and how the message begins

TRAINING, DATA, MODEL = TrainingFileConfig, DataPrepConfig, ModelFileConfig
EVALUATE, ABLATE, TUNE = EvaluateConfig, AblateFileConfig, TuneFileConfig
FAULTS = [
    # types
    *(
        (TRAINING, {"training.max_steps": text}, "training.max_steps must be an integer, got ")
        for text in ("abc", "300.0", "true", "", "[3]")
    ),
    *(
        (TRAINING, {"training.weight_decay": text}, "training.weight_decay must be a finite number")
        for text in ("true", "fast", ".nan", ".inf", "1e400")
    ),
    (TRAINING, {"training.weight_decay": "9" * 400}, "training.weight_decay: '9999"),
    (TRAINING, {"training.seed.x": "1"}, "training.seed must be an integer, got {'x': 1} (the c"),
    (TRAINING, {"evaluation.enabled": "1"}, "evaluation.enabled must be true or false, got 1"),
    (TRAINING, {"data.path": ""}, "data.path must not be empty, got '' (the command line)"),
    (TRAINING, {"exp_name": "a\nb"}, "exp_name: text must not hold control characters and lon"),
    (MODEL, {"model.lora_r": "1.5"}, "model.lora_r must be an integer or auto, got 1.5 (the"),
    (DATA, {"tasks": "counting"}, "tasks must be a list, as in [a, b], got 'counting' (the"),
    (DATA, {"tasks": "[a, 3]"}, "tasks[1] must be text, got 3 (the command line)"),
    (DATA, {"tasks": "[a"}, "tasks: '[a' is not valid YAML: "),
    # ranges and choices
    (TRAINING, {"training.learning_rate": "0"}, "training.learning_rate must be > 0, got 0 (the"),
    (DATA, {"seed": "-1"}, "seed must be in [0, 4294967295], got -1 (the command line)"),
    (DATA, {"num_samples": "5000001"}, "num_samples must be in [1, 5000000], got 5000001"),
    (
        DATA,
        {"difficulty.thresholds": "[0, 2]"},
        "difficulty.thresholds[1] must be in [0, 1], got 2",
    ),
    (MODEL, {"model.lora_dropout": "1"}, "model.lora_dropout must be in [0, 1), got 1"),
    (MODEL, {"model.lora_r": "0"}, "model.lora_r must be in [1, 1024] or auto, got 0"),
    (EVALUATE, {"split": "tests"}, "split must be one of train, validation, test, got 'tests'"),
    (EVALUATE, {"champion.p_value": "0"}, "champion.p_value must be in (0, 1], got 0 (the command"),
    (EVALUATE, {"champion.p_value": "5"}, "champion.p_value must be in (0, 1], got 5 (the command"),
    (EVALUATE, {"champion.min_examples": "0"}, "champion.min_examples must be >= 1, got 0 (the"),
    (DATA, {"input_format": "csv"}, "input_format must be one of cota, messages, conversations,"),
    (DATA, {"import.tools": "deepeye"}, "import.tools must be a section of tools or one of pixel"),
    (DATA, {"import.tools": "[a]"}, "import.tools must be a section of keys and values, got ["),
    (DATA, {"import.tools": "{a: {}}"}, "import.tools.a.operation must be given, got {}"),
    (
        DATA,
        {"import.tools": "{a: {operation: b, unit: mm}}"},
        "import.tools.a.unit must be one of pixels, fractions, thousandths, got 'mm'",
    ),
    (
        DATA,
        {"import.tools": "{a: {operation: b, arguments: {c: 1.5}}}"},
        "import.tools.a.arguments.c must be text or an integer, got 1.5",
    ),
    (DATA, {"import.tool": "qwen"}, "Unknown key 'import.tool' in the command line. Did you mean"),
    # rules that join keys
    (DATA, {"difficulty.errors": 0.2}, "difficulty: trajectory, operations, reasoning, errors, "),
    (DATA, {"difficulty.percentiles": [66, 33]}, "difficulty.percentiles must be two rising num"),
    (DATA, {"difficulty.thresholds": [0.1]}, "difficulty.thresholds must be two rising numbers,"),
    (DATA, {"tasks": "[a, a]"}, "tasks must name each task once, got ['a', 'a']"),
    (DATA, {"tasks": "[]"}, "tasks must name each task once, got []"),
    (DATA, {"include_traps": True, "trap_ratio": 0.9}, "negative_ratio, trap_ratio (where includ"),
    (DATA, {"test_fraction": 0.9}, "validation_fraction + test_fraction must be less than 1, got"),
    (TRAINING, {"register": "a/b"}, "register must be a name of letters, digits, spaces and the"),
    (MODEL, {"model.min_pixels": 2000000}, "model.min_pixels must be <= model.max_pixels, got 2"),
    (
        MODEL,
        {"model.lora_r": "auto", "model.init_lora_weights": "pissa"},
        "model.init_lora_weights must be default or eva where model.lora_r is auto, got pissa ",
    ),
    (
        MODEL,
        {"model.load_in_4bit": "true", "model.init_lora_weights": "olora"},
        "model.init_lora_weights must not be olora where model.load_in_4bit is true ",
    ),
    (EVALUATE, {"format": "cota"}, "format is about input, which is not set; got 'cota'"),
    (ABLATE, {"arms": "[a, a]"}, "arms must name at least two, each once, got ['a', 'a'"),
    (ABLATE, {"learning_rates": "[]"}, "learning_rates must hold at least one, got []"),
    (ABLATE, {"learning_rates": "[1, 0]"}, "learning_rates[1] must be > 0, got 0 (the c"),
    (ABLATE, {"learning_rates": [1, 1]}, "learning_rates must differ in their first six"),
    (ABLATE, {"training.seed": 2**32 - 1}, "training.seed must leave room for seeds and"),
    (ABLATE, {"evaluation.enabled": False}, "evaluation.enabled must be true, got false"),
    (TUNE, {"training.seed": 2**32 - 1}, "training.seed must leave room for seeds up to"),
    (TUNE, {"target": 0.5}, "pruner must be none where target is set, got 'median' "),
    (TUNE, {"study": "a/b"}, "study must be a name, not a path, got 'a/b'"),
    (TUNE, {"study": "a final"}, "study must not end in ' baselines' or ' final', got"),
    # keys
    (TRAINING, {"training.zzz": "1"}, "Unknown key 'training.zzz' in the command line. Valid keys"),
    (TRAINING, {"": "1"}, "Unknown key '' in the command line. "),
    (TRAINING, {"training..seed": "1"}, "Unknown key 'training.' in the command line. "),
    (TRAINING, {"a.b.c": "1"}, "Unknown key 'a' in the command line. "),
    # the open section
    (TRAINING, {"curriculum": "{a: [.inf]}"}, "curriculum.a[0] must be a finite number, got inf"),
    (TRAINING, {"curriculum": "{a: 2024-01-01}"}, "curriculum.a must be a number, text, true,"),
    (TRAINING, {"curriculum": "{1: a}"}, "curriculum[1] must be text, got 1 (the command line)"),
    (TRAINING, {"curriculum": "{a: &a [*a]}"}, "curriculum.a[0] must not contain itself, got"),
]


@pytest.mark.parametrize(("config_class", "overrides", "message"), FAULTS)
def test_a_fault_names_key_rule_and_value_in_one_line(config_class, overrides, message):
    assert refused(config_class, None, overrides).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exp_name: 5\n", "exp_name must be text, got 5 ({path})"),
        (
            "training: {learing_rate: 1}\n",
            "Unknown key 'training.learing_rate' in {path}. Did you mean 'learning_rate'?"
            " Valid keys here: output_dir, seed, ",
        ),
        ("max_steps: 1\n", "Unknown key 'max_steps' in {path}. Did you mean 'training.max_steps'?"),
        *(
            (f"{name}: {value}\n", f"{name} must be a section of keys and values, got ")
            for name in ("training", "curriculum")
            for value in ("5", "[1]", "")
        ),
        *((text, "{path} must hold keys and values, got ") for text in ("", "# a\n", "- a\n", "5")),
        ("training: {\n", "{path} is not valid YAML: expected the node content, but found '<strea"),
        ("c:\n  x: {c0: 1, c0: 2}\n", "{path} is not valid YAML: duplicate key 'c0' (line 2)"),
        ("a: 2024-13-45\n", "{path} is not valid YAML: a value cannot be read (month must be in "),
        ("a: \x00\n", "{path} is not valid YAML: a value cannot be read (unacceptable character"),
    ],
)
def test_a_fault_in_a_file_names_the_file(write, text, message):
    path = write(text)
    assert refused(TrainingFileConfig, path, ()).startswith(message.format(path=path))


def test_a_key_below_what_is_no_section(write):
    path = write("training: 5\n")
    expected = "training.seed cannot be set: training is no section but 5"
    assert refused(TrainingFileConfig, path, {"training.seed": "1"}) == expected


def test_a_file_that_cannot_be_read(tmp_path, write, monkeypatch):
    for path in (tmp_path / "no.yaml", tmp_path):
        expected = f"No such configuration file: {path} (looked from "
        assert refused(TrainingFileConfig, path, ()).startswith(expected)
    path = write("resume: null\n")
    path.write_bytes(b"exp_name: \xff\xfe\n")
    expected = f"{path} cannot be read: 'utf-8' codec can't decode byte 0xff"
    assert refused(TrainingFileConfig, path, ()).startswith(expected)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: [Errno 13] Permission denied" in refused(TrainingFileConfig, path, ())


def test_anchors_merge_keys_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "params.yaml"
    text = "exp_name: a\ncurriculum:\n  a: &a {x: 1, y: 2}\n  b: {<<: *a, y: 3}\n"
    path.write_text(text, encoding="utf-8-sig")
    config = load(path=path)
    assert config.exp_name == "a"
    assert config.curriculum == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


# The way back


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
open_values = st.dictionaries(texts, st.recursive(scalars, st.lists, max_leaves=5), max_size=3)


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
    assert load_config(TrainingFileConfig, path, ()) == config


def _numbers(value):
    if isinstance(value, dict | list):
        children = value.values() if isinstance(value, dict) else value
        return [number for child in children for number in _numbers(child)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize("config_class", CONFIG_FILES.values())
def test_the_defaults_keep_their_own_rules_have_a_meaning_and_come_back(config_class, write):
    config = load(config_class=config_class)
    assert load(path=write(to_yaml(config)), config_class=config_class) == config
    fields = dict(walk_fields(config_class))
    assert all(one.description and not one.description.endswith(".") for one in fields.values())
    load_config(config_class, None, {key: one.default for key, one in fields.items()})


def test_flatten_has_dotted_keys_and_scalars():
    config = load(("curriculum.stages", "[{name: only}]"), ("curriculum.competence.c0", "0.1"))
    flat = flatten(config)
    assert flat["training.learning_rate"] == 1e-4
    assert flat["resume"] is None
    assert flat["curriculum.stages"] == '[{"name": "only"}]'
    assert flat["curriculum.competence.c0"] == 0.1
    flat = flatten(load(config_class=DataPrepConfig))
    assert flat["difficulty.percentiles"] == "[33.0, 66.0]"
