import json
import os
import subprocess
import sys

import pytest

from pixelis.data.chat import format_call
from pixelis.errors import DataError
from pixelis.evaluation.conversation import Conversation
from pixelis.evaluation.evaluate import evaluate_model
from pixelis.evaluation.kept_rollouts import ROLLOUTS_FILE, KeptRollouts
from pixelis.evaluation.rollout import converse
from tests.evaluation.handmade import Script

LIMITS = {"max_operations": 3, "max_new_tokens": 60, "batch_size": 4}


@pytest.fixture(scope="module")
def rollouts(encoder, examples):
    """Each zooms, reads where there may be nothing, says nothing of use, and answers."""
    box = {"bbox": [0, 0, 28, 28]}
    lines = [
        format_call("ZOOM_IN", box | {"factor": 2}),
        format_call("READ_TEXT", box),
        "well \u2028 é",
        "<answer>x</answer>",
    ]
    return converse(
        Script(encoder, *[lines] * 4),
        encoder,
        conversations_of(examples),
        num_slots=4,
        max_operations=3,
    )


def conversations_of(examples):
    return [Conversation(example) for example in examples[:4]]


@pytest.fixture
def folder(tmp_path, rollouts):
    with KeptRollouts(tmp_path / "kept", {"seed": 0}) as kept:
        for rollout in rollouts:
            kept.add("adapter", rollout)
    return tmp_path / "kept"


def test_rollouts_come_back_with_their_images(folder, rollouts, examples):
    with KeptRollouts(folder, {"seed": 0}) as kept:
        assert len(kept) == 4
        assert kept.take("adapter", conversations_of(examples)) == dict(enumerate(rollouts))
        assert kept.take("base", conversations_of(examples)) == {}
        assert kept.take("adapter", [Conversation(examples[0], sample=1)]) == {}
        assert kept.take("adapter", [Conversation(examples[0], planted=True)]) == {}
    assert json.loads((folder / "identity.json").read_text()) == {"seed": 0}


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_that_was_cut_off_is_dropped_and_written_again(folder, rollouts, examples, cut):
    path = folder / ROLLOUTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with KeptRollouts(folder, {}) as kept:
        assert len(kept) == 3
        kept.add("adapter", rollouts[3])
    assert path.read_bytes() == whole


def test_what_follows_a_broken_line_is_dropped(folder):
    path = folder / ROLLOUTS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\x00\n" + b"".join(lines[1:]))
    with KeptRollouts(folder, {}) as kept:
        assert len(kept) == 1
    assert path.read_bytes() == lines[0]


@pytest.mark.parametrize("harm", [{"turns": []}, {"another": 1}, {"turns": [{"text": "x"}]}])
def test_a_rollout_of_another_version_is_left_out(folder, examples, harm):
    path = folder / ROLLOUTS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1] |= harm
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with KeptRollouts(folder, {}) as kept:
        assert set(kept.take("adapter", conversations_of(examples))) == {0, 2, 3}


def test_what_operations_no_longer_give_is_left_out(folder, rollouts, examples):
    path = folder / ROLLOUTS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [
        (place, turn)
        for place, line in enumerate(lines)
        for turn in line["turns"]
        if turn["result"] and "error" not in turn["result"]
    ]
    place, turn = told[0]
    turn["result"] = {"text": "of yesterday"}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with KeptRollouts(folder, {}) as kept:
        assert set(kept.take("adapter", conversations_of(examples))) == {0, 1, 2, 3} - {place}


def test_never_resuming_removes_what_is_kept(folder):
    with KeptRollouts(folder, {}, resume=False) as kept:
        assert len(kept) == 0
    assert not folder.exists()


def test_discarded_when_complete(folder, rollouts):
    with KeptRollouts(folder, {}) as kept:
        kept.discard()
    assert not folder.exists()


def test_only_one_process_writes(folder):
    script = (
        "import sys; from pathlib import Path\n"
        "from pixelis.evaluation.kept_rollouts import KeptRollouts\n"
        "with KeptRollouts(Path(sys.argv[1]), {}): pass\n"
    )
    with KeptRollouts(folder, {}):
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert "is in use: another process makes the same evaluation" in done.stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="output_dir .*kept cannot be written"),
        KeptRollouts(tmp_path / "file" / "kept", {}),
    ):
        pass


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_to_the_same_result(tmp_path, adapted, encoder, examples):
    given = {
        **LIMITS,
        "compare_base": True,
        "bootstrap_samples": 20,
        "seed": 0,
        "temperature": 0.7,
        "num_samples": 2,
        "teacher_forced": True,
    }
    whole = evaluate_model(adapted, encoder, examples, **given)
    for stop in (3, 30):

        def progress(standing, stop=stop):
            if standing.done == stop:
                raise Stopped

        with (
            pytest.raises(Stopped),
            KeptRollouts(tmp_path / "kept", {}) as kept,
        ):
            evaluate_model(adapted, encoder, examples, **given, kept=kept, progress=progress)
    seen = []
    with KeptRollouts(tmp_path / "kept", {}) as kept:
        assert len(kept) == 30
        result = evaluate_model(
            adapted,
            encoder,
            examples,
            **given,
            kept=kept,
            progress=seen.append,
        )
    assert result == whole
    assert [s.done for s in seen] == [30, *range(30, 57)]
    assert {(s.total, s.taken) for s in seen} == {(56, 30)}
    # The adapter's were kept, planted starts among them, which its accuracy leaves out.
    adapter = [rollout for samples in result.adapter.samples for rollout in samples]
    assert seen[0].model == "adapter" and seen[0].counted == len(adapter) < 30
    assert seen[1].model == "base" and seen[1].counted <= 2
    assert all(turn.seconds > 0 for rollout in adapter for turn in rollout.turns)


def test_the_lock_goes_with_the_folder_and_stays_with_what_is_kept(folder, rollouts):
    lock = folder.with_name(f"{folder.name}.lock")
    with KeptRollouts(folder, {"seed": 0}) as kept:
        kept.add("adapter", rollouts[0])
        assert lock.exists()
    assert lock.exists() and len([*folder.iterdir()]) == 2
    with KeptRollouts(folder, {"seed": 0}) as kept:
        kept.discard()
        assert lock.exists()  # until the end: another process must not begin
    assert [*folder.parent.glob(f"{folder.name}*")] == []
    with KeptRollouts(folder, {"seed": 0}) as kept:
        assert len(kept) == 0


def test_a_full_disk_ends_the_keeping_and_not_the_evaluation(folder, rollouts, capsys):
    with KeptRollouts(folder, {"seed": 0}) as kept:
        kept._file.close()
        kept._file = open("/dev/full", "w", encoding="utf-8")
        for rollout in rollouts:
            kept.add("adapter", rollout)
    said = capsys.readouterr().err
    assert said.count("finished rollouts are no longer kept in") == 1
    assert "no space left on its disk" in said and "the evaluation goes on" in said
