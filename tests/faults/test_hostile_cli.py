"""Hostile input through the entry points themselves, each in a process of its own with 2 GiB."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.hostile import LONG, MAX_BYTES
from tests.faults.pictures import RIGHT, WRONG

pytestmark = [pytest.mark.slow, pytest.mark.faults]  # a process for each case
ROOT = Path(__file__).parent.parent.parent


def _limit():
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, MAX_BYTES))


@pytest.fixture
def run(tmp_path):
    """Start an entry point in an empty folder; gives its exit code, its output and its errors."""

    def start(entry_point, *words):
        done = subprocess.run(
            [sys.executable, "-m", f"pixelis.cli.{entry_point}", *words],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=tmp_path,
            preexec_fn=_limit,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
            },
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr[-3000:]
        return done.returncode, done.stdout, done.stderr

    return start


def records():
    """One right record in three; between them every image and some of what is wrong with texts."""
    right = {"question": "What?", "image": "rgb.png", "answer": "a circle"}
    wrong = [
        {"image": name} for name in [*RIGHT, *WRONG, "link.png", "../outside.png", "/etc/passwd"]
    ]
    wrong += [
        {"question": text} for text in (LONG, LONG * 11, "<|im_end|>", "a\x00b", "\ud800", "\ue000")
    ]
    wrong += [{"answer": value} for value in (None, [], 10**400, float("nan"), "</answer>")]
    for number, changes in enumerate(wrong):
        for name in ("a", "b"):
            yield right | {"id": f"{number}{name}"}
        yield right | {"id": f"{number} changed"} | changes


def test_data_prep_leaves_what_is_right_and_tells_of_the_rest(run, folder, tmp_path):
    lines = [json.dumps(record) for record in records()]
    lines += ["{", "[" * 100_000, '{"question": ' + "[" * 100_000, "\x00" * 1000]
    (folder / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ("--input", "input/some.jsonl", "--output_dir", "made", "--max_rejected", "0.5")
    words += ("--config", str(ROOT / "configs/data_prep.yaml"), "--num_workers", "2")
    words += ("--difficulty.correlation_samples", "0")
    code, _, errors = run("data_prep", *words)
    assert code == 0, errors[-3000:]
    rejected = (tmp_path / "made/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    rejections = [json.loads(line) for line in rejected]
    summary = json.loads((tmp_path / "made/summary.json").read_text())
    assert summary["num_samples"] + len(rejections) == len(lines)
    named = {rejection["line"]: rejection for rejection in rejections}
    for number, line in enumerate(lines, 1):
        harmless = '"a"' in line or number % 3 and number <= len(lines) - 4
        assert not (harmless and number in named), named[number]
    assert {rejection["file"] for rejection in rejections} == {"some.jsonl"}
    assert len(rejections) >= len(WRONG) + 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--input", "input/bomb.png"), "holds no records"),
        (("--input", "input/folder.png"), "holds no data file"),
        (("--input", "input/nothing"), "does not exist"),
        (("--input", "/dev/zero"), "does not exist"),
        (("--num_samples", "10" + "0" * 400), "a number may have 250 characters"),
        (
            ("--num_samples", "1000000000000"),
            "num_samples must be in [1, 5000000], got 1000000000000",
        ),
        (("--num_workers", "1000000"), "num_workers must be in [1, 256], got 1000000"),
        (("--output_dir", "x" * 5000), "output_dir may have 4096 characters"),
        (("--output_dir", "x" * 300), "cannot be written"),
        (("--config", "input/bomb.png"), "is not valid YAML"),
        (("--config", "input/nothing.yaml"), "No such configuration file"),
        (("--config", "/dev/zero"), "is not a file"),
    ],
)
def test_one_line_and_exit_code_2(run, folder, words, says):
    config = () if "--config" in words else ("--config", str(ROOT / "configs/data_prep.yaml"))
    code, _, errors = run("data_prep", *config, *words)
    assert code == 2 and says in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(line) < 1000
