"""The disk is full: in data-prep, in a cache, in a checkpoint, in an upload."""

import shutil
import subprocess

import pytest

from pixelis.training.checkpoint import ADAPTER_FILE, find_fault
from tests.faults.settings import sft_arguments
from tests.faults.watching import Watch
from tests.forking import ROOT

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(tmp_path):
    """Makes disks of so many KiB."""
    made = []

    def make(name, kib):
        folder = tmp_path / name
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.strip()}")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, but_kib):
    """Take all of a disk but so much."""
    free = shutil.disk_usage(folder).free - but_kib * 1024
    (folder / "ballast").write_bytes(bytes(max(0, free)))


def digests(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_data_prep_says_what_it_needs_and_leaves_what_was_there(
    new_place, starter, small_disk, made_data, tell
):
    place, disk = new_place("work"), small_disk("disk", 2000)
    shutil.copytree(made_data, disk / "data")
    before = digests(disk / "data")
    words = ["--config", str(ROOT / "configs/smoke/data_prep.yaml"), "--num_workers", "1"]
    words += ["--output_dir", str(disk / "data"), "--difficulty.correlation_samples", "0"]
    assert starter.finish(place, "data_prep", [*words, "--num_samples", "600"]) == 2
    said = place.log().splitlines()[-1]
    assert said.startswith(f"error: output_dir {disk / 'data'} cannot be written: no space left")
    assert "MiB needed" in said and "Traceback" not in place.log()
    assert digests(disk / "data") == before
    assert {path.name for path in disk.iterdir()} <= {"data", ".data.lock"}
    (run,) = place.runs("data-prep")
    assert run.info.status == "FAILED" and "no space left" in run.data.tags["pixelis.error"]
    tell("disk full in data-prep", 1, "nothing: the old data stays")


def test_a_training_goes_on_without_a_cache(new_place, starter, small_disk, made_data, tell):
    place, disk = new_place("work"), small_disk("disk", 4000)
    shutil.copytree(made_data, disk / "data")
    fill(disk, 24)
    words = sft_arguments("out", data__path=str(disk / "data"), evaluation__enabled="false")
    assert starter.finish(place, "sft", words, XDG_CACHE_HOME=str(disk / "home")) == 0
    said = place.log()
    assert "vision features are not cached: " in said and "tokens: kept in " in said
    assert said.count("no space left on its disk: about") >= 2 and "Traceback" not in said
    assert not [path for path in disk.rglob("*") if path.name.startswith(("tokens", "vision"))]
    (run,) = place.runs("sft")
    assert run.info.status == "FINISHED"
    tell("disk full in a cache", 1, "nothing: the training goes on without it")


def test_a_checkpoint_that_finds_no_room_leaves_those_before_it(
    new_place, starter, small_disk, made_data, tell
):
    place, disk = new_place("work", data=made_data), small_disk("disk", 20_000)
    alone = sft_arguments("alone", evaluation__enabled="false")
    assert starter.finish(place, "sft", alone) == 0, place.log()[-3000:]
    out = disk / "out"
    words = [*sft_arguments(str(out), evaluation__enabled="false"), "--resume", "auto"]

    def is_sealed(path):
        return "sealed" if path == "out/checkpoint-2/complete.json" else None

    watch = Watch(disk, is_sealed, ("sealed", 1), lambda: fill(disk, 40))
    code = starter.finish(place, "sft", words)
    watch.end()
    said = [line for line in place.log().splitlines() if line.startswith("error: ")][-1]
    assert code == 2, place.log()[-3000:]
    assert said.startswith(f"error: {out}")  # the stage's adapter, or the checkpoint after it
    assert "cannot be written: no space left on its disk: about" in said
    assert f"{out / 'checkpoint-2'} is whole" in said and "resume=auto" in said
    assert find_fault(out / "checkpoint-2") is None
    assert not (out / "checkpoint-4").exists() and "Traceback" not in place.log()
    failed = [run for run in place.runs("sft") if run.info.status == "FAILED"]
    assert len(failed) == 1
    (disk / "ballast").unlink()
    assert starter.finish(place, "sft", words) == 0, place.log()[-3000:]
    assert f"going on from {out / 'checkpoint-2'}" in place.log()
    for name in ("final", "best"):
        found, expected = out / name / ADAPTER_FILE, place.folder / "alone" / name / ADAPTER_FILE
        assert found.read_bytes() == expected.read_bytes()
    assert place.client.get_run(failed[0].info.run_id).info.status == "FINISHED"
    tell("disk full in a checkpoint", 1, "the steps since the checkpoint before, made again")


def test_what_mlflow_s_full_disk_does_not_take_waits(
    new_place, starter, small_disk, made_data, tell
):
    place, disk = new_place("work", data=made_data), small_disk("disk", 100)
    (place.folder / "mlruns").symlink_to(disk)
    words = sft_arguments("out", evaluation__enabled="false")
    assert starter.finish(place, "sft", words) == 0, place.log()[-3000:]
    said = place.log()
    assert "warning: MLflow did not take a record (" in said and "Traceback" not in said
    assert "no space left on its disk: about" in said
    (run,) = place.runs("sft")
    assert run.info.status == "FINISHED"  # what is small is there
    assert list((place.folder / "out").glob("refused-*"))
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    assert starter.finish(place, "sync", ["out"]) == 0, place.log()[-3000:]
    run = place.client.get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert place.artifact(run, "curriculum/events.json")
    assert not list((place.folder / "out").glob("refused-*"))
    tell("disk full in an upload", 1, "nothing: it waits, and `sync` delivers it")
