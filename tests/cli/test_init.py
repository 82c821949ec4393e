"""init: the configuration files, copied for editing."""

from pathlib import Path

import pytest

from pixelis.cli.arguments import run_cli
from pixelis.cli.init import main
from pixelis.config import CONFIG_FILES

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_copies_every_file_and_a_second_time_nothing(folder, capsys):
    assert run_cli(main, []) == 0
    for path in [*CONFIG_FILES, "configs/smoke/tune.yaml", "configs/accelerate/fsdp.yaml"]:
        assert Path(path).read_bytes() == (ROOT / path).read_bytes()
    printed = capsys.readouterr().out.splitlines()
    assert "configs/tune.yaml" in printed and len(printed) == len(list(folder.rglob("*.yaml")))
    assert run_cli(main, []) == 0
    assert capsys.readouterr().out == "configs is up to date\n"


def test_a_file_that_was_edited_is_kept_unless_it_is_to_be_overwritten(capsys):
    assert run_cli(main, ["mine"]) == 0
    edited, removed = Path("mine/configs/plan.yaml"), Path("mine/configs/tune.yaml")
    edited.write_text("gpu: L4\n")
    removed.unlink()
    assert run_cli(main, ["mine"]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {edited}: has other content; --overwrite replaces it\n"
    assert edited.read_text() == "gpu: L4\n" and not removed.exists()
    assert run_cli(main, ["mine", "--overwrite"]) == 0
    assert edited.read_bytes() == (ROOT / "configs/plan.yaml").read_bytes() and removed.exists()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["a", "b"], "unrecognized arguments: b"),
        (["--force"], "unrecognized arguments: --force"),
    ],
)
def test_what_is_refused(argv, text, capsys):
    assert run_cli(main, argv) == 2
    assert capsys.readouterr().err == f"error: {text}\n"
