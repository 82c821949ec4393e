import json

import pytest

from pixelis.data.chat import format_call
from pixelis.data_prep.generate import generate_example
from pixelis.errors import DataError
from pixelis.evaluation.conversation import Conversation
from pixelis.evaluation.evaluate import EvaluationSettings, evaluate_model
from pixelis.evaluation.rollout import RolloutSettings, run_conversations
from pixelis.evaluation.rollout_store import ROLLOUTS_FILE, RolloutStore
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
    with RolloutStore(tmp_path / "kept", {"seed": 0}) as store:
        for rollout in rollouts:
            store.add("adapter", rollout)
    return tmp_path / "kept"


def test_rollouts_come_back_with_their_images(folder, rollouts, examples):
    with RolloutStore(folder, {"seed": 0}) as store:
        assert len(store) == 4
        assert store.load("adapter", conversations_of(examples)) == dict(enumerate(rollouts))
        assert store.load("base", conversations_of(examples)) == {}
        assert store.load("adapter", [Conversation(examples[0], sample=1)]) == {}
        assert store.load("adapter", [Conversation(examples[0], planted=True)]) == {}
    assert json.loads((folder / "identity.json").read_text()) == {"seed": 0}


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_that_was_cut_off_is_dropped_and_written_again(folder, rollouts, examples, cut):
    path = folder / ROLLOUTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with RolloutStore(folder, {}) as store:
        assert len(store) == 3
        store.add("adapter", rollouts[3])
    assert path.read_bytes() == whole


def test_lines_after_a_broken_one_are_dropped(folder):
    path = folder / ROLLOUTS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\x00\n" + b"".join(lines[1:]))
    with RolloutStore(folder, {}) as store:
        assert len(store) == 1
    assert path.read_bytes() == lines[0]


OTHER_RESULT = object()  # of an operation that has changed since


@pytest.mark.parametrize(
    "change", [{"turns": []}, {"another": 1}, {"turns": [{"text": "x"}]}, OTHER_RESULT]
)
def test_a_rollout_of_another_version_is_left_out(folder, examples, change):
    path = folder / ROLLOUTS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if change is OTHER_RESULT:
        assert lines[1]["turns"][0]["result"] == {"size": [56, 56]}
        lines[1]["turns"][0]["result"] = {"size": [1, 1]}
    else:
        lines[1] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with RolloutStore(folder, {}) as store:
        assert set(store.load("adapter", conversations_of(examples))) == {0, 2, 3}


def test_a_store_that_does_not_resume_or_is_discarded_is_removed_with_its_lock(folder, rollouts):
    lock = folder.with_name(f"{folder.name}.lock")
    with RolloutStore(folder, {}) as store:
        store.add("adapter", rollouts[0])
        assert lock.exists()
    assert lock.exists() and len([*folder.iterdir()]) == 2
    with RolloutStore(folder, {}) as store:
        store.discard()
        assert lock.exists()  # until the end: another process must not start
    assert [*folder.parent.glob(f"{folder.name}*")] == []
    with RolloutStore(folder, {}) as store:
        store.add("adapter", rollouts[0])
    with RolloutStore(folder, {}, resume=False) as store:
        assert len(store) == 0
    assert not folder.exists()


def test_only_one_evaluation_uses_a_folder(folder):
    with (
        RolloutStore(folder, {}),
        pytest.raises(DataError, match="is in use: another process makes the same evaluation"),
        RolloutStore(folder, {}),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="output_dir .*kept cannot be written"),
        RolloutStore(tmp_path / "file" / "kept", {}),
    ):
        pass


class Stopped(Exception):
    pass


def test_a_stopped_evaluation_resumes_to_the_same_result(tmp_path, adapted, encoder, examples):
    settings = EvaluationSettings(
        **LIMITS,
        bootstrap_samples=20,
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

        with pytest.raises(Stopped), RolloutStore(tmp_path / "kept", {}) as store:
            evaluate_model(adapted, encoder, chosen, settings, store=store, progress=progress)
    seen = []
    with RolloutStore(tmp_path / "kept", {}) as store:
        assert len(store) == 10
        result = evaluate_model(
            adapted, encoder, chosen, settings, store=store, progress=seen.append
        )
    assert result == whole
    assert [state.done for state in seen] == [10, *range(10, 19)]
    assert {(state.total, state.resumed) for state in seen} == {(18, 10)}
    # All nine of the adapter were stored; that after the planted error is not counted.
    assert (seen[0].model, seen[0].counted) == ("adapter", 8)
    assert seen[1].model == "base" and seen[1].counted <= 1
    adapter = [rollout for samples in result.adapter.samples for rollout in samples]
    assert all(turn.seconds > 0 for rollout in adapter for turn in rollout.turns)


def test_a_full_disk_ends_the_storing_and_not_the_evaluation(folder, rollouts, caplog):
    with RolloutStore(folder, {"seed": 0}) as store:
        store._file.close()
        store._file = open("/dev/full", "w", encoding="utf-8")
        for rollout in rollouts:
            store.add("adapter", rollout)
    (warning,) = caplog.messages
    assert "finished rollouts are no longer kept in" in warning
    assert "no space left on its disk" in warning and "the evaluation goes on" in warning
