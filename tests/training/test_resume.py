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

from pixelis import files
from pixelis.errors import CheckpointError
from pixelis.training.checkpoint import (
    ADAPTER_FILE,
    COMPLETE_FILE,
    CURRICULUM_FILE,
    FINISHED_FILE,
    Start,
    checkpoints,
    choose_start,
    clear_leftovers,
    find_fault,
    seal,
    set_aside,
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


# Asked to stop


def test_a_termination_saves_and_says_where(fork_run, whole, advancing, tmp_path):
    place = tmp_path / "sft"
    run = fork_run(place, advancing, fault=("record", 7, "SIGTERM"), code=130)
    assert run.lines[-1] == f"stopped after step 7; everything is in {place / 'checkpoint-7'}"
    assert find_fault(place / "checkpoint-7") is None
    assert not (place / "final").exists()
    # Between two logged steps: the loss logged at step 8 is the mean of steps 7 and 8.
    assert ("train/loss", 7) not in run.metrics and ("train/loss", 8) in whole.metrics
    run = fork_run(place, advancing, resume="auto")
    assert f"going on from {place / 'checkpoint-7'} (step 7)" in run.lines
    assert_same(run, whole)


def test_a_termination_in_the_last_step_is_not_swallowed(fork_run, whole, advancing, tmp_path):
    place = tmp_path / "sft"
    run = fork_run(place, advancing, fault=("record", 8, "SIGTERM"), code=130)
    assert run.lines[-1] == f"stopped after step 8; everything is in {place / 'checkpoint-8'}"
    run = fork_run(place, advancing, resume="auto")
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


def test_auto_takes_the_newest(output, begin):
    before = state_of(output)
    start, lines = begin("auto")
    assert start == Start(resume_from=output / "checkpoint-8", run_id="abc")
    assert lines == [f"going on from {output / 'checkpoint-8'} (step 8)"]
    assert state_of(output) == before


def test_newest_is_by_number_not_by_name(output, begin):
    (output / "checkpoint-6").rename(output / "checkpoint-100")
    start, _ = begin("auto")
    assert start.resume_from == output / "checkpoint-100"


def test_a_checkpoint_can_be_named(output, begin):
    start, lines = begin(str(output / "checkpoint-6"))
    assert start == Start(resume_from=output / "checkpoint-6", run_id="abc")
    assert lines == [f"going on from {output / 'checkpoint-6'} (step 6)"]


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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"training.max_steps": 20}, "training.max_steps was 8, is 20;"),
        ({"model.lora_r": 8}, "model.lora_r was None, is 8;"),
        (
            {"training.max_steps": 20, "curriculum.strategy": "adaptive"},
            "curriculum.strategy was 'staged', is 'adaptive'; training.max_steps was 8, is 20;",
        ),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_checkpoint_from_another_configuration(output, begin, changed, message, named):
    before = state_of(output)
    place = output / "checkpoint-8"
    expected = f"checkpoint {place} is from another configuration: {message} go on with the same"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        begin(str(place) if named else "auto", **changed)
    assert state_of(output) == before


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
    set_aside(tmp_path / "empty")
    set_aside(tmp_path / "none")
    assert lines == [] and os.listdir(tmp_path) == ["empty"]


def test_what_is_no_training_s_yet_stays_where_it_is(tmp_path, lines):
    """A training that was killed before its first file, while MLflow was away."""
    names = [".events.json.17.tmp", ".journal-r1.files", "journal-r1.jsonl"]
    for name in names:
        (tmp_path / "sft" / name).mkdir(parents=True)
    for resume in (None, "auto"):
        assert choose_start(resume, tmp_path / "sft", IDENTITY) == Start()
    assert len(lines) == 1 and sorted(os.listdir(tmp_path / "sft")) == names


@pytest.fixture
def torn(tmp_path, monkeypatch):
    """A training killed between the two moves of its best adapter, where no exchange is known."""
    folder = tmp_path / "sft"
    (folder / "checkpoint-3").mkdir(parents=True)
    (folder / "events.json").write_text("[]")
    for name, text in (("best", "the best so far"), (".best.new", "better")):
        (folder / name).mkdir()
        (folder / name / ADAPTER_FILE).write_text(text)
    replace = os.replace

    def killed_at_the_second(source, target):
        if str(source).endswith(".new"):
            os._exit(9)
        replace(source, target)

    if (child := os.fork()) == 0:
        monkeypatch.setattr(files, "swap_folders", lambda first, second: False)
        monkeypatch.setattr(os, "replace", killed_at_the_second)
        files.replace_folder(folder / ".best.new", folder / "best")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (folder / "best").exists() and (folder / f".best.{child}.old").is_dir()
    return folder


def test_the_best_adapter_is_put_back_where_the_next_did_not_come(torn):
    clear_leftovers(torn)
    assert (torn / "best" / ADAPTER_FILE).read_text() == "the best so far"
    assert sorted(os.listdir(torn)) == ["best", "checkpoint-3", "events.json"]


def test_what_a_kill_moved_aside_stays_away_where_the_next_came(torn):
    shutil.copytree(torn / ".best.new", torn / "best")
    clear_leftovers(torn)
    assert (torn / "best" / ADAPTER_FILE).read_text() == "better"
    assert sorted(os.listdir(torn)) == ["best", "checkpoint-3", "events.json"]


def test_it_is_brought_along_into_another_folder(torn, tmp_path):
    write_json(
        {"identity": IDENTITY, "num_processes": 1, "step": 3, "run_id": None, "journal": 0},
        torn / "checkpoint-3" / CURRICULUM_FILE,
    )
    seal(torn / "checkpoint-3")
    other = tmp_path / "other"
    choose_start(str(torn / "checkpoint-3"), other, IDENTITY)
    assert (other / "best" / ADAPTER_FILE).read_text() == "the best so far"


def test_hidden_files_of_others_are_left_alone(tmp_path):
    names = [".emacs.new", ".notes.tmp", ".thesis.17.old"]
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match="holds other files"):
        choose_start(None, tmp_path, IDENTITY)
    assert sorted(os.listdir(tmp_path)) == names


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_folder_with_foreign_files_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("years of work")
    expected = f"training.output_dir {tmp_path} holds other files; name an empty or a new folder"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        choose_start(resume, tmp_path, IDENTITY)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "sft").write_text("")
    expected = f"training.output_dir {tmp_path / 'sft'} is a file; name a folder"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        set_aside(tmp_path / "sft")
