"""Stopped at any place and taken up again: the same training, to the bit."""

import json
import os
import re
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers.trainer_pt_utils import safe_globals

from pixelis.errors import CheckpointError
from pixelis.training.checkpoint import (
    ADAPTER_FILE,
    COMPLETE_FILE,
    CURRICULUM_FILE,
    FINISHED_FILE,
    Start,
    checkpoints,
    choose_start,
    find_fault,
    read_json,
    seal,
    write_json,
)
from pixelis.training.weights import SNAPSHOT_FILE
from tests.training.conftest import logged_lines

pytestmark = pytest.mark.integration

KILLED = -signal.SIGKILL
IDENTITY = {"training.max_steps": 8, "curriculum.strategy": "staged"}


def state_of(folder):
    """Everything below a folder that an untouched one keeps."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


def assert_same(run, whole):
    assert run.adapter == whole.adapter
    assert run.events == whole.events
    assert run.metrics == whole.metrics


# The uninterrupted run that the others are held against


def test_the_uninterrupted_run_is_worth_comparing_with(whole):
    kinds = [(event["kind"], event["step"]) for event in whole.events]
    assert kinds == [("start", 0), ("advance", 2), ("advance", 4), ("end", 8)]
    assert {path.name for path in checkpoints(whole.output_dir)} == {
        "checkpoint-6",
        "checkpoint-8",
    }
    told = [(key, step) for key, step, _ in whole.records if key != "event"]
    assert len(told) == len(set(told))
    assert [e for key, _, e in whole.records if key == "event"] == whole.events


def test_dropout_makes_the_generators_matter(fork_run, whole, advancing, tmp_path):
    place = tmp_path / "sft"
    shutil.copytree(whole.output_dir, place, ignore=shutil.ignore_patterns("checkpoint-8", "final"))
    rng = place / "checkpoint-6" / "rng_state.pth"
    with safe_globals():
        state = torch.load(rng, weights_only=True)
    torch.save(state | {"cpu": torch.Generator().manual_seed(1).get_state()}, rng)
    seal(place / "checkpoint-6")
    run = fork_run(place, advancing, resume="auto")
    assert f"going on from {place / 'checkpoint-6'} (step 6)" in run.lines
    assert run.adapter != whole.adapter


# Killed


@pytest.mark.parametrize(
    ("fault", "before", "taken_up"),
    [
        # Checkpoint 3 lies inside the segment of steps 3 and 4; the event at 4 comes after it.
        (("record", 5, "SIGKILL"), {}, 3),
        # Torn while it was written: the one before is used, and is not deleted too early.
        (("seal", 6, "SIGKILL"), {"save_total_limit": 1}, 3),
        # 6 examples an evaluation: in the middle of the second, the attempt at step 4.
        (("evaluation", 9, "SIGKILL"), {"num_workers": 2}, 3),
        # Every step was done, and the last checkpoint written.
        (("final", None, "SIGKILL"), {}, 8),
    ],
    ids=["step", "save", "evaluation", "end"],
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    fork_run, whole, advancing, tmp_path, fault, before, taken_up
):
    place = tmp_path / "sft"
    fork_run(place, advancing, fault=fault, code=KILLED, **before)
    assert not (place / "final").exists()
    run = fork_run(place, advancing, resume="auto")
    assert f"going on from {place / f'checkpoint-{taken_up}'} (step {taken_up})" in run.lines
    assert_same(run, whole)


def test_a_kill_inside_a_trial_resumes_into_the_trial(fork_run, retreating, tmp_path):
    whole = fork_run(tmp_path / "whole" / "sft", retreating)
    kinds = [(event["kind"], event["step"]) for event in whole.events]
    assert kinds[1:] == [("trial", 2), ("rollback", 4), ("trial", 6), ("rollback", 8), ("end", 8)]

    place = tmp_path / "killed" / "sft"
    fork_run(place, retreating, fault=("record", 4, "SIGKILL"), code=KILLED)
    (checkpoint,) = checkpoints(place)
    state = json.loads((checkpoint / CURRICULUM_FILE).read_text())
    assert checkpoint.name == "checkpoint-3"
    assert state["callback"]["manager"]["trial"]["step"] == 2
    snapshot = load_file(checkpoint / SNAPSHOT_FILE)
    saved = load_file(checkpoint / ADAPTER_FILE)
    kept = [value for key, value in snapshot.items() if key.startswith("adapter/")]
    assert len(kept) == len(saved)
    assert any((one != two).any() for one, two in zip(kept, saved.values(), strict=True))

    run = fork_run(place, retreating, resume="auto")
    assert f"going on from {checkpoint} (step 3)" in run.lines
    assert_same(run, whole)
    # Outside a trial there is nothing to go back to.
    assert not (place / "checkpoint-8" / SNAPSHOT_FILE).exists()


def test_settings_without_effect_may_change_at_a_resume(fork_run, whole, advancing, tmp_path):
    place = tmp_path / "sft"
    before = {"logging_steps": 1, "save_steps": 2, "save_total_limit": 5, "num_workers": 2}
    fork_run(place, advancing, fault=("record", 5, "SIGKILL"), code=KILLED, **before)
    assert {path.name for path in checkpoints(place)} == {"checkpoint-2", "checkpoint-4"}
    # In fp32 on a CPU, other batches of an evaluation are padded otherwise and change no bit.
    after = {"logging_steps": 3, "save_steps": 4, "eval_batch_size": 3}
    run = fork_run(place, advancing, resume="auto", model={"gradient_checkpointing": True}, **after)
    assert run.adapter == whole.adapter and run.events == whole.events
    measured, expected = (
        {key: value for key, value in each.metrics.items() if not key[0].startswith("train/")}
        for each in (run, whole)
    )
    assert measured == expected
    # The new values hold from the checkpoint on; a saved step is logged too.
    assert [step for key, step in run.metrics if key == "train/loss"] == [1, 2, 3, 4, 6, 8]
    assert {path.name for path in checkpoints(place)} == {"checkpoint-4", "checkpoint-8"}


# Asked to stop


@pytest.mark.parametrize("step", [7, 8])
def test_a_termination_saves_and_says_where(fork_run, whole, advancing, tmp_path, step):
    """Between two logged steps, and in the last step, where it is not swallowed."""
    place = tmp_path / "sft"
    run = fork_run(place, advancing, fault=("record", step, "SIGTERM"), code=130)
    checkpoint = place / f"checkpoint-{step}"
    assert run.lines[-1] == f"stopped after step {step}; everything is in {checkpoint}"
    assert find_fault(checkpoint) is None and not (place / "final").exists()
    # The loss logged at step 8 is the mean of steps 7 and 8.
    assert ("train/loss", 7) not in run.metrics and ("train/loss", 8) in whole.metrics
    run = fork_run(place, advancing, resume="auto")
    assert f"going on from {checkpoint} (step {step})" in run.lines
    assert_same(run, whole)


# Where to begin


@pytest.fixture
def output(whole, tmp_path):
    """A finished training's folder of our own, its checkpoints at 6 and 8."""
    place = tmp_path / "sft"
    shutil.copytree(whole.output_dir, place)
    for folder in checkpoints(place):
        state = json.loads((folder / CURRICULUM_FILE).read_text())
        write_json({**state, "identity": IDENTITY, "run_id": "abc"}, folder / CURRICULUM_FILE)
        seal(folder)
    return place


@pytest.fixture
def begin(output):
    """Call `choose_start` on the output; returns the start and the console's lines."""

    def call(resume, **changed):
        with logged_lines() as lines:
            return choose_start(resume, output, IDENTITY | changed), lines

    return call


@pytest.mark.parametrize("resume", ["auto", "checkpoint-100", "checkpoint-6"])
def test_auto_takes_the_newest_by_number_and_any_can_be_named(output, begin, resume):
    (output / "checkpoint-8").rename(output / "checkpoint-100")
    before = state_of(output)
    start, lines = begin(resume if resume == "auto" else str(output / resume))
    chosen = output / ("checkpoint-100" if resume == "auto" else resume)
    assert start == Start(resume_from=chosen, run_id="abc")
    assert lines == [f"going on from {chosen} (step {6 if resume == 'checkpoint-6' else 8})"]
    assert state_of(output) == before


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda c: flip(c / ADAPTER_FILE), f"{ADAPTER_FILE} differ from what was saved"),
        (lambda c: (c / "optimizer.pt").unlink(), "optimizer.pt differ from what was saved"),
        (lambda c: (c / "more.txt").touch(), "more.txt differ from what was saved"),
        (lambda c: (c / COMPLETE_FILE).unlink(), f"{COMPLETE_FILE} cannot be read ("),
        (lambda c: (c / COMPLETE_FILE).write_text('{"a'), f"{COMPLETE_FILE} cannot be read ("),
        (lambda c: (c / COMPLETE_FILE).write_text("7"), f"{COMPLETE_FILE} cannot be read ("),
    ],
    ids=["flipped bit", "missing file", "added file", "no digests", "torn digests", "no mapping"],
)
def test_a_corrupt_checkpoint_is_named_and_the_one_before_is_used(output, begin, harm, fault):
    newest = output / "checkpoint-8"
    harm(newest)
    start, lines = begin("auto")
    assert start.resume_from == output / "checkpoint-6"
    assert lines[0].startswith(f"checkpoint {newest} is not whole ({fault}")
    assert lines[0].endswith("): trying the one before")
    with pytest.raises(CheckpointError, match=re.escape(f"{newest} is not whole: {fault}")):
        begin(str(newest))


def test_where_no_checkpoint_is_whole_training_starts_anew(output, begin):
    for folder in checkpoints(output):
        flip(folder / ADAPTER_FILE)
    start, lines = begin("auto")
    assert start == Start()
    assert len(lines) == 4 and f"no checkpoint in {output}: a fresh start" == lines[2]
    assert (output.with_name("sft.1") / "checkpoint-6").is_dir()


def test_auto_with_nothing_there_is_a_fresh_start_and_says_so(tmp_path, lines):
    assert choose_start("auto", tmp_path / "new", IDENTITY) == Start()
    assert lines == [f"no checkpoint in {tmp_path / 'new'}: a fresh start"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("named", [True, False])
def test_a_checkpoint_from_another_configuration(output, begin, named):
    before = state_of(output)
    place = output / "checkpoint-8"
    message = "curriculum.strategy was 'staged', is 'adaptive'; model.lora_r was None, is 8; "
    expected = f"checkpoint {place} is from another configuration: {message}go on with the same"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        begin(
            str(place) if named else "auto",
            **{"model.lora_r": 8, "curriculum.strategy": "adaptive"},
        )
    assert state_of(output) == before


def test_what_may_change_is_told_in_one_line(output):
    free = {"data.path": "data", "training.logging_steps": 10, "register": None, "gone": 1}
    newest = output / "checkpoint-8"
    state = read_json(newest / CURRICULUM_FILE) | {"settings": free}
    # An earlier version compared what may change now.
    state["identity"] = IDENTITY | {"training.num_workers": 0}
    write_json(state, newest / CURRICULUM_FILE)
    seal(newest)
    now = free | {"training.num_workers": 0, "new": 2}
    del now["gone"]
    changed = {"data.path": "moved", "training.logging_steps": 5, "training.num_workers": 2}
    told = (
        "changed since this checkpoint: data.path was 'data', is 'moved'; "
        "training.logging_steps was 10, is 5; training.num_workers was 0, is 2"
    )
    for settings, lines_after in ((now, []), (now | changed, [told])):
        with logged_lines() as lines:
            start = choose_start("auto", output, IDENTITY, settings=settings)
        assert start.resume_from == newest
        assert lines == [f"going on from {newest} (step 8)", *lines_after]
    with pytest.raises(CheckpointError, match="max_steps was 8, is 9; go on with the same values"):
        choose_start("auto", output, IDENTITY | {"training.max_steps": 9}, settings=now | changed)


def test_a_checkpoint_that_is_not_there(begin, tmp_path):
    expected = f"checkpoint {tmp_path / 'no'} does not exist"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        begin(str(tmp_path / "no"))


def test_in_another_folder_the_best_adapter_so_far_comes_along(output, tmp_path):
    (output / "best").mkdir(exist_ok=True)
    (output / "best" / ADAPTER_FILE).write_bytes(b"best")
    there = tmp_path / "elsewhere"
    start = choose_start(str(output / "checkpoint-6"), there, IDENTITY)
    assert start.resume_from == output / "checkpoint-6"
    assert (there / "best" / ADAPTER_FILE).read_bytes() == b"best"
    # What it holds already is moved aside, or refused, as for a fresh start.
    (there / "events.json").write_text("[]")
    choose_start(str(output / "checkpoint-6"), there, IDENTITY)
    assert (tmp_path / "elsewhere.1" / "events.json").is_file()
    assert [path.name for path in there.iterdir()] == ["best"]
    with pytest.raises(CheckpointError, match="holds other files"):
        choose_start(str(output / "checkpoint-6"), there, IDENTITY)


def test_a_finished_training_is_left_as_it_is(output, begin):
    write_json({"step": 8, "run_id": "abc", "identity": IDENTITY}, output / FINISHED_FILE)
    before = state_of(output)
    for resume in ("auto", str(output / "checkpoint-6")):
        start, lines = begin(resume)
        assert start == Start(finished=True, run_id="abc")
        assert lines == [f"{output} is finished (8 steps): nothing to do"]
    expected = f"{output} is from another configuration: training.max_steps was 8, is 20"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        begin("auto", **{"training.max_steps": 20})
    assert state_of(output) == before


@pytest.mark.parametrize("content", [[], {"step": 12}, "finished", {"identity": [1]}])
def test_a_finished_file_that_is_damaged(output, begin, content):
    write_json(content, output / FINISHED_FILE)
    expected = f"checkpoint {output / FINISHED_FILE} cannot be taken up: "
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}"):
        begin("auto")


def test_a_fresh_start_moves_the_earlier_run_aside(output, begin):
    before = state_of(output)
    output.with_name("sft.1").mkdir()
    start, lines = begin(None)
    place = output.with_name("sft.2")
    assert start == Start() and not output.exists()
    assert lines == [
        f"{output} held an earlier run: moved to {place} (to go on with a run: resume=auto)"
    ]
    assert state_of(place) == before


def test_an_empty_folder_is_taken_as_it_is(tmp_path, lines):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        choose_start(None, tmp_path / name, IDENTITY)
    assert lines == [] and os.listdir(tmp_path) == ["empty"]


def test_what_is_no_training_s_yet_stays_where_it_is(tmp_path, lines):
    """A training that was killed before its first file, while MLflow was away."""
    names = [".journal-r1.files", "journal-r1.jsonl"]
    for name in names:
        (tmp_path / "sft" / name).mkdir(parents=True)
    for resume in (None, "auto"):
        (tmp_path / "sft" / ".events.json.17.tmp").write_text("[")
        assert choose_start(resume, tmp_path / "sft", IDENTITY) == Start()
        assert sorted(os.listdir(tmp_path / "sft")) == names
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        ({".best.17.old": "so far", ".best.new": "torn"}, "so far"),
        ({"best": "better", ".best.17.old": "so far"}, "better"),
    ],
    ids=["the next did not come", "the next came"],
)
def test_the_best_adapter_survives_a_kill_between_two_moves(output, begin, tmp_path, left, kept):
    """Where the system cannot exchange two folders in one step."""
    shutil.rmtree(output / "best")
    (output / ".events.json.17.tmp").write_text("[")
    for name, text in {**left, ".final.new": "torn"}.items():
        (output / name).mkdir()
        (output / name / ADAPTER_FILE).write_text(text)
    choose_start(str(output / "checkpoint-6"), tmp_path / "other", IDENTITY)
    for folder in (output, tmp_path / "other"):
        assert (folder / "best" / ADAPTER_FILE).read_text() == kept
        assert not list(folder.glob(".*"))


@pytest.mark.parametrize("resume", [None, "auto"])
@pytest.mark.parametrize("names", [["thesis.tex"], [".emacs.new", ".notes.tmp", ".thesis.17.old"]])
def test_a_folder_with_foreign_files_is_refused(tmp_path, resume, names):
    for name in names:
        (tmp_path / name).mkdir()
    expected = f"training.output_dir {tmp_path} holds other files; name an empty or a new folder"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        choose_start(resume, tmp_path, IDENTITY)
    assert sorted(os.listdir(tmp_path)) == names


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "sft").write_text("")
    expected = f"training.output_dir {tmp_path / 'sft'} is a file; name a folder"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        choose_start(None, tmp_path / "sft", IDENTITY)
