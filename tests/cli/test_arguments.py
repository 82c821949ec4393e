"""The command line of every entry point: files, dotted keys, help, and how errors end."""

import re
import sys
from pathlib import Path

import pytest

from pixelis.cli.arguments import ExtraFile, parse_arguments, run_cli
from pixelis.config import (
    DataPrepConfig,
    EvaluateConfig,
    ModelFileConfig,
    PlanFileConfig,
    TrainingFileConfig,
    walk_fields,
)
from pixelis.config.help_text import build_help
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError, DataError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "training.yaml").write_text(
        "training:\n  batch_size: 8  # how many at once\n"
        "curriculum:  # rules\n  advancement_interval: 100  # steps between attempts\n"
        "  competence:\n    c0: 0.2  # where it starts\n"
    )
    (tmp_path / "model.yaml").write_text("model: {lora_r: 16}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(*argv):
    return parse_arguments(
        list(argv),
        entry_point="sft",
        description="Train.",
        config_class=TrainingFileConfig,
        default_config="training.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "model.yaml")},
    )


def parse_data_prep(*argv):
    return parse_arguments(
        ["--config", str(ROOT / "configs/data_prep.yaml"), *argv],
        entry_point="data-prep",
        description="Make data.",
        config_class=DataPrepConfig,
        default_config="data_prep.yaml",
    )


def test_without_arguments_the_default_files_are_loaded(folder):
    arguments = parse()
    assert arguments.config.training.batch_size == 8
    assert arguments.extra["model"].model.lora_r == 16


def test_other_files_can_be_named_and_keys_of_both_be_mixed(folder):
    (folder / "other.yaml").write_text("training: {batch_size: 2}\n")
    (folder / "large.yaml").write_text("model: {lora_r: 64}\n")
    argv = ["--model.lora_r", "8", "--training.max_steps=300", "--resume", "auto"]
    arguments = parse("--config", "other.yaml", "--model=large.yaml", *argv)
    config = arguments.config
    assert (config.training.batch_size, config.training.max_steps) == (2, 300)
    assert (arguments.extra["model"].model.lora_r, config.resume) == (8, "auto")


def test_a_default_file_that_is_not_there_is_the_packages(folder):
    arguments = parse_arguments(
        ["--gpu", "L4"],
        entry_point="plan",
        description="",
        config_class=PlanFileConfig,
        default_config="configs/plan.yaml",
    )
    assert arguments.config.gpu == "L4"


@pytest.mark.parametrize(
    "argv",
    [
        ["--curriculum.rollback_threshold", "-0.1"],
        ["--curriculum.rollback_threshold=-0.1"],
        ["--curriculum.rollback_threshold", "-1e-1"],
    ],
)
def test_a_value_may_begin_with_a_minus(folder, argv):
    assert parse(*argv).config.curriculum["rollback_threshold"] == -0.1


def test_what_a_value_and_a_key_may_hold(folder):
    assert parse("--exp_name=a=b").config.exp_name == "a=b"
    assert parse("--exp_name", "two words").config.exp_name == "two words"
    assert parse("--resume", "").config.resume is parse("--resume=").config.resume is None
    # The guide writes dashes.
    assert parse("--exp-name", "sft-v1").config.exp_name == "sft-v1"


def test_a_switch_needs_no_value():
    arguments = parse_data_prep("--include_negatives", "--include_traps", "--num_samples", "10000")
    assert arguments.config.include_negatives and arguments.config.include_traps
    assert arguments.config.num_samples == 10000
    assert not parse_data_prep("--split-by-category", "False").config.split_by_category


@pytest.mark.parametrize("argv", [["--training.max_steps"], ["--training.max_steps", "--resume"]])
def test_a_missing_value(folder, argv):
    expected = "training.max_steps needs a value: --training.max_steps VALUE or --training"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        parse(*argv)


@pytest.mark.parametrize("word", ["train", "-x", "--", "training.max_steps=3"])
def test_words_that_are_no_options(folder, word):
    expected = f"Unexpected argument {word!r}: options look like --config FILE or --section.key"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        parse(word)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("exp_nam", "Unknown key 'exp_nam' in the command line. Did you mean 'exp_name'?"),
        ("lora_r", "Unknown key 'lora_r' in the command line. Did you mean 'model.lora_r'?"),
        (
            "modle.lora_r",
            "Did you mean 'model.lora_r'? Valid keys here: exp_name, resume, ",
        ),
        ("model.lora", "Unknown key 'model.lora' in the command line. Did you mean 'lora_r'?"),
        ("training.batch", "Did you mean 'batch_size'?"),
    ],
)
def test_unknown_keys(folder, key, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(f"--{key}", "3")


# Help


def test_help_lists_every_key_by_section_with_type_meaning_rule_and_the_files_value(folder, capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--training.max_steps", "3", "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    keys = dict(
        pair for kind in (TrainingFileConfig, ModelFileConfig) for pair in walk_fields(kind)
    )
    del keys["curriculum"]  # whose own keys are listed
    for key, field in [*keys.items(), *walk_fields(CurriculumConfig, "curriculum.")]:
        meaning = re.escape(field.description)
        assert re.search(rf"^  --{re.escape(key)} .*  {meaning}", text, re.M), key
    for line in (
        "usage: pixelis sft [--config FILE] [--model FILE] [--section.key VALUE ...]",
        " training:",
        "  --training.max_steps INT  optimiser steps; >= 1 [default: 10000]",
        "  --training.batch_size INT  examples in one forward pass; >= 1 [default: 8]",
    ):
        assert f"\n{line}\n" in f"\n{text}"
    assert "--resume TEXT|null  checkpoint folder, or auto: " in text
    assert text.splitlines()[-1].startswith("Example: pixelis sft --training.max_steps 300 ")


def test_help_works_without_the_files(tmp_path):
    files = {"config": (EvaluateConfig, str(tmp_path / "no.yaml"))}
    text = build_help("evaluate", "Roll out.", files, {})
    assert "--batch_size INT  rollouts side by side; >= 1 [default: 16]" in text


def test_help_shows_lists_as_lists():
    text = build_help("x", "Make data.", {"config": (DataPrepConfig, "configs/data_prep.yaml")}, {})
    assert "--difficulty.percentiles [FLOAT, ...]  where simple ends and hard begins" in text
    assert "; in (0, 100) [default: [33.0, 66.0]]" in text
    assert "--tasks [TEXT, ...]|null" in text and "--include_traps true|false" in text


# How a run ends


def test_run_cli_hands_the_arguments_over_and_the_code_back(monkeypatch):
    assert run_cli(lambda argv: len(argv), ["--a", "b", "c"]) == 3
    monkeypatch.setattr(sys, "argv", ["sft", "--resume", "auto"])
    assert run_cli(lambda argv: 0 if argv == ["--resume", "auto"] else 1) == 0


@pytest.mark.parametrize("error", [ConfigError, DataError])
def test_a_users_error_is_one_line_and_exit_code_2(error, capsys):
    def main(argv):
        raise error("data/cota: no cota_hard.parquet")

    assert run_cli(main, []) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: data/cota: no cota_hard.parquet\n" and captured.out == ""


def test_a_path_that_cannot_be_used_is_one_line_and_exit_code_2(tmp_path, capsys):
    def main(argv):
        return len((tmp_path / ("x" * 300)).read_text())

    assert run_cli(main, []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}") and line.endswith(": File name too long")

    def bug(argv):
        raise OSError("no path in it")

    with pytest.raises(OSError, match="no path in it"):
        run_cli(bug, [])


def test_our_own_bugs_keep_their_traceback():
    def main(argv):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_cli(main, [])


def test_an_interrupt_ends_with_130(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert run_cli(main, []) == 130
    assert capsys.readouterr().err == "interrupted\n"
