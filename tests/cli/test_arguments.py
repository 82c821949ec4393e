"""The command line of every entry point: files, dotted keys, help, and how errors end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pixelis import __version__
from pixelis.cli.__main__ import main as console_script
from pixelis.cli.arguments import ENTRY_POINTS, parse_arguments, run_cli
from pixelis.config import CONFIG_FILES, EvaluateConfig, walk_fields
from pixelis.config.help_text import build_help
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError, DataError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(*argv):
    return parse_arguments("sft", argv)[0]


def test_without_arguments_the_default_files_are_loaded_those_of_the_folder_first(folder):
    (folder / "configs").mkdir()
    (folder / "configs/training_params.yaml").write_text("training: {batch_size: 3}\n")
    training, model = parse_arguments("sft", [])
    assert training.training.batch_size == 3
    assert model == parse_arguments("sft", ["--model", str(ROOT / "configs/model_arch.yaml")])[1]


def test_other_files_can_be_named_and_keys_of_both_be_mixed(folder):
    (folder / "other.yaml").write_text("training: {batch_size: 2}\n")
    (folder / "large.yaml").write_text("model: {lora_r: 64}\n")
    argv = ["--model.lora_r", "8", "--training.max_steps=300", "--resume", "auto"]
    config, model = parse_arguments("sft", ["--config", "other.yaml", "--model=large.yaml", *argv])
    assert (config.training.batch_size, config.training.max_steps) == (2, 300)
    assert (model.model.lora_r, config.resume) == (8, "auto")


@pytest.mark.parametrize("argv", [["-0.1"], ["-1e-1"]])
def test_a_value_may_begin_with_a_minus(argv):
    option = "--curriculum.rollback_threshold"
    assert parse(option, *argv).curriculum["rollback_threshold"] == -0.1
    assert parse(f"{option}={argv[0]}").curriculum["rollback_threshold"] == -0.1


def test_what_a_value_and_a_key_may_hold():
    assert parse("--exp_name=a=b").exp_name == "a=b"
    assert parse("--exp_name", "two words").exp_name == "two words"
    assert parse("--resume", "").resume is parse("--resume=").resume is None
    assert parse("--exp-name", "sft-v1").exp_name == "sft-v1"  # the guide writes dashes


def test_a_switch_needs_no_value():
    argv = ["--include_negatives", "--include_traps", "--num_samples", "10000"]
    (config,) = parse_arguments("data-prep", [*argv, "--split-by-category", "False"])
    assert config.include_negatives and config.include_traps and not config.split_by_category
    assert config.num_samples == 10000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--training.max_steps"], "training.max_steps needs a value: --training.max_steps VALUE"),
        (["--training.max_steps", "--resume"], "training.max_steps needs a value: "),
        *(
            ([word], f"Unexpected argument {word!r}: options look like --config FILE or --section")
            for word in ("train", "-x", "--", "training.max_steps=3")
        ),
        (["--exp_nam", "3"], "Unknown key 'exp_nam' in the command line. Did you mean 'exp_name'?"),
        (["--lora_r", "3"], "Unknown key 'lora_r' in the command line. Did you mean 'model.lora_r"),
        (["--modle.lora_r", "3"], "Did you mean 'model.lora_r'? Valid keys here: exp_name, resume"),
        (["--model.lora", "3"], "Unknown key 'model.lora' in the command line. Did you mean 'lora"),
        (["--training.batch", "3"], "Did you mean 'batch_size'?"),
    ],
)
def test_a_fault_in_the_command_line(argv, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(*argv)


# Help


def test_help_lists_every_key_by_section_with_type_meaning_rule_and_the_files_value(folder, capsys):
    (folder / "configs").mkdir()
    (folder / "configs/training_params.yaml").write_text("training: {batch_size: 8}\n")
    with pytest.raises(SystemExit) as caught:
        parse("--training.max_steps", "3", "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    kinds = [CONFIG_FILES[path] for path in ENTRY_POINTS["sft"].files.values()]
    keys = dict(pair for kind in kinds for pair in walk_fields(kind))
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
    assert "--curriculum.stages [{name, difficulty_mix}, ...]" in text
    assert text.splitlines()[-1].startswith("Example: pixelis sft --training.max_steps 300 ")


def test_help_works_without_the_files_and_shows_lists_as_lists(capsys):
    text = build_help("evaluate", "Roll out.", {"config": (EvaluateConfig, "no.yaml")}, {})
    assert "--batch_size INT  rollouts side by side; >= 1 [default: 16]" in text
    with pytest.raises(SystemExit):
        parse_arguments("data-prep", ["-h"])
    text = capsys.readouterr().out
    assert "--difficulty.percentiles [FLOAT, ...]  where simple ends and hard begins" in text
    assert "; in (0, 100) [default: [33.0, 66.0]]" in text
    assert "--tasks [TEXT, ...]|null" in text and "--include_traps true|false" in text


# How a run ends


def test_run_cli_hands_the_arguments_over_and_the_code_back(monkeypatch):
    assert run_cli(lambda argv: len(argv), ["--a", "b", "c"]) == 3
    monkeypatch.setattr(sys, "argv", ["sft", "--resume", "auto"])
    assert run_cli(lambda argv: 0 if argv == ["--resume", "auto"] else 1) == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("data: no"), 2, "error: data: no"),
        (DataError("data: no"), 2, "error: data: no"),
        (OSError(36, "File name too long", "x/y"), 2, "error: x/y: File name too long"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_users_error_is_one_line(error, code, line, capsys):
    def main(argv):
        raise error

    assert run_cli(main, []) == code
    captured = capsys.readouterr()
    assert captured.err == f"{line}\n" and captured.out == ""


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("no path in it")])
def test_our_own_bugs_keep_their_traceback(error):
    def main(argv):
        raise error

    with pytest.raises(type(error), match=str(error)):
        run_cli(main, [])


# The console script `pixelis`


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["pixelis", *words])
    return console_script()


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help_lists_the_entry_points(monkeypatch, capsys, words):
    assert call(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: pixelis ENTRY_POINT [--help] [options]\n")
    assert re.findall(r"^  (\w\S*) ", out, re.M) == list(ENTRY_POINTS)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("frobnicate", ""),
        ("evalaute", " (did you mean 'evaluate'?)"),
        ("data_prep", " (did you mean 'data-prep'?)"),
    ],
)
def test_an_entry_point_that_there_is_not(monkeypatch, capsys, word, near):
    assert call(monkeypatch, word) == 2
    expected = f"error: Unknown entry point {word!r}{near}. Choices: {', '.join(ENTRY_POINTS)}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("words", [("--version",), ("sft", "--version"), ("sync", "--version")])
def test_the_version_is_printed(monkeypatch, capsys, words):
    assert call(monkeypatch, *words) == 0
    assert capsys.readouterr().out == f"pixelis {__version__}\n"


def test_the_consoles_options_reach_an_entry_point_before_and_after_its_name(monkeypatch):
    for words in (["--quiet", "init", "mine"], ["init", "yours", "--quiet", "true"]):
        assert call(monkeypatch, *words) == 0
    assert Path("mine/configs").is_dir() and Path("yours/configs").is_dir()


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_gets_its_words(monkeypatch, capsys, name):
    assert call(monkeypatch, name, "--nonsense", "3") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "nonsense" in line


@pytest.mark.integration  # a process for each
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_help_ends_with_0_and_imports_nothing_heavy(name):
    code = (
        "import sys\nfrom pixelis.cli.__main__ import main\n"
        f"sys.argv = ['pixelis', '{name}', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'mlflow', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: pixelis {name} [")
