import json

import pytest

from pixelis.data.chat import format_call
from pixelis.data_prep.generate import generate_example
from pixelis.errors import DataError
from pixelis.evaluation.evaluate import EvaluationSettings, evaluate_model
from pixelis.evaluation.rollout import Conversation, RolloutSettings, run_conversations
from pixelis.evaluation.rollout_store import ROLLOUTS_FILE, open_store
from tests.evaluation.handmade import Script

LIMITS = {"max_operations": 2, "max_new_tokens": 20, "batch_size": 4}


@pytest.fixture(scope="module")
def rollouts(encoder, examples):
    """Each zooms, reads where there may be no text, makes an error, and answers."""
    box = {"bbox": [0, 0, 28, 28]}
    lines = [
        format_call("ZOOM_IN", box | {"factor": 2}),
        format_call("READ_TEXT", box),
        "well \u2028 é",
        "<answer>x</answer>",
    ]
    return run_conversations(
        Script(encoder, *[lines] * 4),
        encoder,
        conversations_of(examples),
        RolloutSettings(max_operations=3),
    )


def conversations_of(examples):
    return [Conversation(example) for example in examples[:4]]


@pytest.fixture
def folder(tmp_path, rollouts):
    with open_store(tmp_path / "kept", {"seed": 0}) as store:
        for rollout in rollouts:
            store.add("adapter", rollout)
    return tmp_path / "kept"


def test_rollouts_come_back_with_their_images(folder, rollouts, examples):
    with open_store(folder, {"seed": 0}) as store:
        assert len(store) == 4
        assert store.load("adapter", conversations_of(examples)) == dict(enumerate(rollouts))
        assert store.load("base", conversations_of(examples)) == {}
        assert store.load("adapter", [Conversation(examples[0], sample=1)]) == {}
        assert store.load("adapter", [Conversation(examples[0], planted=True)]) == {}
    assert json.loads((folder / "identity.json").read_text()) == {"seed": 0}


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_that_was_cut_off_is_dropped_and_written_again(folder, rollouts, cut):
    path = folder / ROLLOUTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with open_store(folder, {}) as store:
        assert len(store) == 3
        store.add("adapter", rollouts[3])
    assert path.read_bytes() == whole


def test_lines_after_a_broken_one_are_dropped(folder):
    path = folder / ROLLOUTS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\x00\n" + b"".join(lines[1:]))
    with open_store(folder, {}) as store:
        assert len(store) == 1
    assert path.read_bytes() == lines[0]


def test_a_store_that_is_empty_or_complete_is_removed(folder, rollouts):
    with open_store(folder, {}) as store:
        store.add("adapter", rollouts[0])
    assert folder.exists()
    with open_store(folder, {}) as store:
        store.is_complete = True
        assert folder.exists()  # until the end: another process must not start
    assert not folder.exists()
    with open_store(folder, {}) as store:
        store.add("adapter", rollouts[0])
    with open_store(folder, {}, resume=False) as store:
        assert len(store) == 0
    assert not folder.exists()


def test_only_one_evaluation_uses_a_folder_and_one_that_cannot_be_made_is_named(folder, tmp_path):
    message = "is in use: another process makes the same evaluation"
    with open_store(folder, {}), pytest.raises(DataError, match=message), open_store(folder, {}):
        pass
    (tmp_path / "file").write_text("")
    message = "output_dir .*kept cannot be written"
    with pytest.raises(DataError, match=message), open_store(tmp_path / "file" / "kept", {}):
        pass


class Stopped(Exception):
    pass


def test_a_stopped_evaluation_resumes_to_the_same_result(tmp_path, adapted, encoder, examples):
    settings = EvaluationSettings(
        **LIMITS,
        temperature=0.7,
        num_samples=2,
        planted_errors=True,
        teacher_forced=True,
    )
    chosen = [*examples[:3], generate_example(
        seed=1, index=0, task="text_extraction", sample_type="self_correction"
    )]  # fmt: skip
    whole = evaluate_model(adapted, encoder, chosen, settings)
    for stop in (3, 10):

        def progress(state, stop=stop):
            if state.done == stop:
                raise Stopped

        with pytest.raises(Stopped), open_store(tmp_path / "kept", {}) as store:
            evaluate_model(adapted, encoder, chosen, settings, store=store, progress=progress)
    seen = []
    with open_store(tmp_path / "kept", {}) as store:
        assert len(store) == 10
        result = evaluate_model(
            adapted, encoder, chosen, settings, store=store, progress=seen.append
        )
    assert result == whole
    # All nine of the adapter were stored, and one of the base.
    expected = [("adapter", 9), *(("base", done) for done in range(10, 19))]
    assert [(state.model, state.done) for state in seen] == expected
    turns = [turn for samples in result.adapter.samples for r in samples for turn in r.turns]
    assert all(turn.seconds > 0 for turn in turns)


def test_a_full_disk_ends_the_storing_and_not_the_evaluation(folder, rollouts, caplog):
    with open_store(folder, {"seed": 0}) as store:
        store._file.close()
        store._file = open("/dev/full", "w", encoding="utf-8")
        for rollout in rollouts:
            store.add("adapter", rollout)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "finished rollouts are no longer kept in" in warning
    assert "no space left on its disk" in warning and "the evaluation goes on" in warning
