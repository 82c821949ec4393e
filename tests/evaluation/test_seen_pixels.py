"""Rollouts of a model that sees other pixels than are stored: it is told what it was trained on."""

import json

import pytest

from pixelis.data.chat import format_answer, format_call, format_step
from pixelis.data.coordinates import as_seen, frames_of
from pixelis.data.encode import Encoder, encode_example
from pixelis.evaluation.cases import WRONG, Case
from pixelis.evaluation.rollout import Conversation, converse
from pixelis.evaluation.spans import build_spans
from pixelis.models.load import load_processor
from pixelis.operations import WRONG_ARGUMENTS
from tests.evaluation.handmade import Script, tokenize


@pytest.fixture(scope="module")
def double():
    """Sees 112 x 112 pixels as 224 x 224."""
    return Encoder(load_processor("pixelis-nano", min_pixels=224 * 224, max_pixels=448 * 448))


@pytest.fixture(scope="module")
def half():
    return Encoder(load_processor("pixelis-nano", min_pixels=784, max_pixels=56 * 56))


def run(encoder, example, *texts, planted=False):
    speaker = Script(encoder, texts)
    talks = [Conversation(example, planted=planted)]
    [rollout] = converse(speaker, encoder, talks, num_slots=1, max_operations=8)
    return rollout, speaker.heard[0]


def test_the_trained_words_replay_to_the_same_tokens(double, examples):
    for example in examples:
        seen = as_seen(example, frames_of(example.images, double.seen_size))
        lines = [format_step(s.thought, s.operation, s.arguments) for s in seen.trajectory]
        rollout, heard = run(double, example, *lines, format_answer(seen.conclusion, seen.answer))
        assert rollout.answer == example.answer
        # The record of it counts stored pixels.
        assert [dict(t.arguments) for t in rollout.turns[:-1]] == [
            dict(step.arguments) for step in example.trajectory
        ]
        assert [t.result for t in rollout.turns[:-1]] == [s.result for s in example.trajectory]
        tokens = []
        for (ids, _), turn in zip(heard, rollout.turns, strict=True):
            tokens += [*ids, *tokenize(double, turn.text), double.end_of_turn_id]
        trained = encode_example(example, double).input_ids
        assert tokens == list(trained[: len(tokens)])


def test_on_a_reduced_image_the_calls_still_find_what_they_found(half, examples):
    found = expected = 0
    for example in examples:
        seen = as_seen(example, frames_of(example.images, half.seen_size))
        lines = [format_step(s.thought, s.operation, s.arguments) for s in seen.trajectory]
        rollout, _ = run(half, example, *lines, format_answer(seen.conclusion, seen.answer))
        for turn, step in zip(rollout.turns, example.trajectory, strict=False):
            assert ("error" in turn.result) <= (step.operation in ("READ_TEXT", "TRACK_OBJECT"))
            if step.operation == "SEGMENT_OBJECT_AT":
                expected += 1
                found += turn.result == step.result
    assert found == expected > 0


def test_a_place_outside_is_refused_in_the_models_pixels(double, examples):
    calls = [
        format_call("READ_TEXT", {"bbox": [0, 0, 225, 10]}),
        format_call("READ_TEXT", {"bbox": [200, 200, 224, 224]}),
    ]
    rollout, heard = run(double, examples[0], *calls, "<answer>x</answer>")
    outside, inside, _ = rollout.turns
    assert (
        "0 <= x1 < x2 <= 224 and 0 <= y1 < y2 <= 224, got [0, 0, 225, 10]"
        in (outside.result["error"])
    )
    assert outside.failure == WRONG_ARGUMENTS
    assert inside.arguments == {"bbox": [100, 100, 112, 112]}
    assert inside.result["error"].startswith("no text in [100, 100, 112, 112]")
    assert inside.told["error"].startswith("no text in [200, 200, 224, 224]")
    assert "no text in [200, 200, 224, 224]" in double.tokenizer.decode(heard[2][0])


def test_a_box_that_is_the_answer_comes_back_in_stored_pixels(double, encoder, examples):
    for of, expected in ((double, "[5, 10, 20, 30]"), (encoder, "[10, 20, 40, 60]")):
        rollout, _ = run(of, examples[0], "<answer>[10, 20, 40, 60]</answer>")
        assert rollout.answer == rollout.turns[0].answer == expected
        assert rollout.turns[0].text == "<answer>[10, 20, 40, 60]</answer>"


def test_a_trace_shows_what_the_model_was_told(double, examples):
    call = format_call("GET_PROPERTIES", {"bbox": [0, 0, 224, 224]})
    rollout, _ = run(double, examples[0], call, "<answer>x</answer>")
    stored, told = rollout.turns[0].result, rollout.turns[0].told
    assert told["area"] == 4 * stored["area"]
    spans = build_spans(Case(examples[0], rollout, None, WRONG, ""))
    (operation,) = [span for span in spans if span["type"] == "TOOL"]
    assert operation["outputs"]["result"] == stored
    *_, last = [span for span in spans if span["type"] == "CHAT_MODEL"]
    assert json.dumps(told) in last["inputs"]["messages"][-1]["content"]


def test_what_is_seen_as_stored_is_told_as_before(encoder, examples):
    call = format_call("GET_PROPERTIES", {"bbox": [0, 0, 112, 112]})
    rollout, _ = run(encoder, examples[0], call, "<answer>x</answer>")
    assert rollout.turns[0].told is None
    assert rollout.turns[0].arguments == {"bbox": [0, 0, 112, 112]}
