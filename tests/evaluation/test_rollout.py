import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pixelis.data.chat import example_messages, format_answer, format_call, format_step
from pixelis.data.coordinates import as_seen, frames_of
from pixelis.data.encode import Encoder, encode_example
from pixelis.data_prep.generate import generate_example
from pixelis.errors import DataError
from pixelis.evaluation.cases import WRONG, Case
from pixelis.evaluation.rollout import (
    Conversation,
    RolloutSettings,
    roll_out,
    run_conversations,
)
from pixelis.evaluation.spans import build_spans
from pixelis.models.load import load_processor
from pixelis.operations import WRONG_ARGUMENTS
from tests.evaluation.handmade import Script, run_script, tokenize

ZOOM = ("ZOOM_IN", {"bbox": [0, 0, 28, 28], "factor": 2})
LOOK = ("GET_PROPERTIES", {"bbox": [0, 0, 28, 28]})


def text_of(encoder, appended, turn):
    """Return what was appended before a turn, as text."""
    return encoder.tokenizer.decode(appended[turn][0])


@pytest.fixture
def example(examples):
    return examples[0]


def tokens_of(encoder, rollout, appended):
    """Return all tokens of a conversation."""
    tokens = []
    for (ids, _), turn in zip(appended, rollout.turns, strict=True):
        tokens += [*ids, *tokenize(encoder, turn.text), encoder.end_of_turn_id]
    return tokens


def test_reference_trajectory_replays_to_the_answer(encoder, examples):
    for example in examples:
        texts = [format_step(s.thought, s.operation, s.arguments) for s in example.trajectory]
        texts.append(format_answer(example.conclusion, example.answer))
        rollout, appended = run_script(encoder, example, *texts)
        assert rollout.example_id == example.id
        assert (rollout.outcome, rollout.answer) == ("answered", example.answer)
        assert rollout.num_operations == len(example.trajectory)
        assert [t.result for t in rollout.turns] == [s.result for s in example.trajectory] + [None]
        for turn, step in zip(rollout.turns, example.trajectory, strict=False):
            assert (turn.image is None) == (step.image is None)
            assert step.image is None or np.array_equal(turn.image, step.image)
        # Token for token what the model is trained on.
        tokens = tokens_of(encoder, rollout, appended)
        trained = encoder.encode(example_messages(example)).input_ids
        assert tokens == trained[: len(tokens)]
        assert encoder.tokenizer.decode(trained[len(tokens) :]) == "\n"


@pytest.mark.parametrize(
    ("text", "failure", "error"),
    [
        ("I do not know.", "no_call", "neither a call nor an answer"),
        ("", "no_call", "neither a call nor an answer"),
        ("<tool_call>\n{broken\n</tool_call>", "malformed_call", "the call is not valid JSON"),
        ("<tool_call>\n", "malformed_call", ""),
        (format_call(*LOOK) * 2, "malformed_call", "one call a turn, got 2"),
        (format_call("FLY", {}), "unknown_operation", "FLY"),
        (format_call("ZOOM_IN", {"box": 1}), "wrong_arguments", "box"),
        (format_call("READ_TEXT", {"bbox": "all"}), "wrong_arguments", "bbox"),
        (format_call("READ_TEXT", {"bbox": [5, 5, 1, 1]}), "wrong_arguments", "x1"),
        (format_call("READ_TEXT", {"bbox": [0, 0, 2, 2]}), "failed_operation", "no text in"),
        (format_call(*ZOOM), "repeated_call", None),
        ("Again. " + format_call(*ZOOM), "repeated_call", None),
    ],
)
def test_failures_are_counted_and_their_error_is_appended(encoder, example, text, failure, error):
    texts = [format_call(*ZOOM), text, "<answer>x</answer>"]
    rollout, appended = run_script(encoder, example, *texts)
    assert [turn.failure for turn in rollout.turns] == ["", failure, ""]
    assert rollout.failures == {failure: 1} and rollout.outcome == "answered"
    malformed = failure in ("no_call", "malformed_call")
    assert (rollout.turns[1].kind == "error") == malformed
    assert rollout.num_operations == 1 + (not malformed)
    assert rollout.num_failed == (error is not None and not malformed)
    assert rollout.num_repeated == (failure == "repeated_call")
    if error is not None:
        result = rollout.turns[1].result
        assert error in result["error"]
        response = f"<tool_response>\n{json.dumps(result)}\n</tool_response>"
        assert response in text_of(encoder, appended, 2)


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (format_call(*LOOK), "max_operations"),
        ("well", "no_answer"),
        ("<answer>x</answer>", "answered"),
    ],
)
def test_the_limit_of_operations_allows_one_more_turn(encoder, example, last, outcome):
    texts = [format_call(*LOOK), "hm", last]
    rollout, appended = run_script(encoder, example, *texts, max_operations=2)
    assert (rollout.outcome, rollout.answer is None) == (outcome, outcome != "answered")
    assert len(rollout.turns) == len(appended) == 3
    assert rollout.turns[-1].result is None
    assert rollout.num_operations == 1


def test_an_image_that_the_processor_refuses_is_an_error(encoder, example):
    wide = replace(example, images=(Image.new("RGB", (600, 40), "white"),))
    # Resized to 588 x 28.
    call = format_call("ZOOM_IN", {"bbox": [0, 0, 588, 1], "factor": 1})
    rollout, _ = run_script(encoder, wide, call, "<answer>x</answer>")
    assert "the image cannot be shown" in rollout.turns[0].result["error"]
    assert (rollout.turns[0].image, rollout.num_failed) == (None, 1)


def test_finished_conversations_free_their_slots_and_order_is_kept(encoder, examples):
    by_length = sorted(
        range(4), key=lambda i: len(encoder.tokenizer(examples[i].question)["input_ids"])
    )
    # The longest prompts start; number i answers i after as many calls as its position.
    order = by_length[::-1]
    scripts = [[format_call(*LOOK)] * k + [f"<answer>{i}</answer>"] for k, i in enumerate(order)]
    script, done = Script(encoder, *scripts), []
    rollouts = run_conversations(
        script,
        encoder,
        [Conversation(e) for e in examples[:4]],
        RolloutSettings(batch_size=2),
        progress=lambda index, rollout: done.append((index, rollout.answer)),
    )
    assert [r.answer for r in rollouts] == ["0", "1", "2", "3"]
    assert [r.example_id for r in rollouts] == [e.id for e in examples[:4]]
    assert sorted(done) == [(i, str(i)) for i in range(4)]
    assert set(script.appended) == {0, 1}


def test_question_longer_than_the_encoder_allows_is_named(encoder, example):
    short = Encoder(encoder.processor, max_length=20)
    with pytest.raises(DataError, match=rf"example {example.id}: \d+ tokens, more than max_length"):
        run_script(short, example)


def rolled(model, encoder, examples, batch_size, *, num_samples=1, **settings):
    settings = {"max_operations": 2, "max_new_tokens": 12, "batch_size": batch_size} | settings
    conversations = [Conversation(e, n) for e in examples for n in range(num_samples)]
    return roll_out(model, encoder, conversations, RolloutSettings(**settings))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_same_rollouts_whatever_the_batch_size(lively, encoder, examples, temperature):
    settings = {"temperature": temperature, "num_samples": 2 if temperature else 1, "seed": 3}
    alone = rolled(lively, encoder, examples, 1, **settings)
    for batch_size in (3, 99):
        assert rolled(lively, encoder, examples, batch_size, **settings) == alone
    assert len({turn.text for rollout in alone for turn in rollout.turns}) > 20


def test_draws_follow_seed_and_number_of_the_sample(lively, encoder, examples):
    def texts(rollouts):
        return [[turn.text for turn in rollout.turns] for rollout in rollouts]

    drawn = {"temperature": 1.0, "num_samples": 3}
    first = rolled(lively, encoder, examples[:4], 4, seed=0, **drawn)
    assert [r.sample for r in first] == [0, 1, 2] * 4
    assert [r.example_id for r in first] == [e.id for e in examples[:4] for _ in range(3)]
    assert len({str(text) for text in texts(first)}) == 12
    # The same tokens as among others.
    few = rolled(lively, encoder, examples[1:2], 4, seed=0, temperature=1.0, num_samples=2)
    assert few == first[3:5]
    assert texts(rolled(lively, encoder, examples[:4], 4, seed=1, **drawn)) != texts(first)


def test_a_model_that_never_stops_is_a_counted_outcome(lively, encoder, examples):
    model = copy.deepcopy(lively)
    model.lm_head.weight.data[[encoder.end_of_turn_id, encoder.tokenizer.pad_token_id]] = 0
    model.lm_head.weight.data[[5]] *= 50
    rollouts = rolled(model, encoder, examples[:3], 2, max_new_tokens=5)
    assert {r.outcome for r in rollouts} == {"no_answer"}
    assert all(r.failures == {"cut_off": 3} for r in rollouts)


def test_a_planted_error_and_its_result_stand_in_the_prompt(encoder):
    example = generate_example(
        seed=1, index=0, task="text_extraction", sample_type="self_correction"
    )
    number = [step.supervised for step in example.trajectory].index(False)
    rollout, appended = run_script(encoder, example, "<answer>x</answer>", planted=True)
    prompt = appended[0][0]
    trained = encoder.encode(example_messages(example)).input_ids
    assert prompt == trained[: len(prompt)]
    assert text_of(encoder, appended, 0).count("<tool_response>") == number + 1
    assert (rollout.planted, len(rollout.turns)) == (True, 1)


def test_each_turn_is_told_when_it_ends(encoder, examples):
    told = []
    texts = [format_call(*LOOK), "<answer>x</answer>"]
    conversations = [Conversation(example) for example in examples[:2]]
    rollouts = run_conversations(
        Script(encoder, texts, texts),
        encoder,
        conversations,
        RolloutSettings(batch_size=1),
        progress=lambda index, rollout: told.append((index, rollout)),
        on_turn=lambda index, turn: told.append((index, turn)),
    )
    first = told[0][0]  # the one with the longest prompt
    expected = [(i, each) for i in (first, 1 - first) for each in (*rollouts[i].turns, rollouts[i])]
    assert told == expected and len(told) == 6


def test_only_question_and_images_are_read(lively, encoder, examples):
    bare = [
        replace(e, trajectory=(), conclusion="", answer="", ground_truth="", provenance={})
        for e in examples[:4]
    ]
    assert rolled(lively, encoder, bare, 4) == rolled(lively, encoder, examples[:4], 4)


def test_training_mode_gradients_and_positions_are_left_as_they_were(adapted, encoder, examples):
    positions = adapted.get_base_model().model
    positions.rope_deltas = None
    expected = rolled(adapted, encoder, examples[:2], 2)
    assert not adapted.training and rolled(adapted, encoder, [], 2) == []
    adapted.train()
    try:
        # Dropout is off while rolling out.
        assert rolled(adapted, encoder, examples[:2], 2) == expected
        assert adapted.training and positions.rope_deltas is None
        assert all(parameter.grad is None for parameter in adapted.parameters())
    finally:
        adapted.eval()
    half = copy.deepcopy(adapted).to(torch.bfloat16)
    assert len(rolled(half, encoder, examples[:2], 2)) == 2


@pytest.fixture(scope="module")
def double():
    """The encoder of a model that sees 112 x 112 pixels as 224 x 224."""
    return Encoder(load_processor("pixelis-nano", min_pixels=224 * 224, max_pixels=448 * 448))


@pytest.fixture(scope="module")
def half():
    return Encoder(load_processor("pixelis-nano", min_pixels=784, max_pixels=56 * 56))


def run_reference(encoder, example):
    seen = as_seen(example, frames_of(example.images, encoder.seen_size))
    texts = [format_step(s.thought, s.operation, s.arguments) for s in seen.trajectory]
    return run_script(encoder, example, *texts, format_answer(seen.conclusion, seen.answer))


def test_the_reference_replays_on_enlarged_images_in_stored_pixels(double, examples):
    for example in examples:
        rollout, appended = run_reference(double, example)
        assert rollout.answer == example.answer
        assert [(dict(t.arguments), t.result) for t in rollout.turns[:-1]] == [
            (dict(step.arguments), step.result) for step in example.trajectory
        ]
        tokens = tokens_of(double, rollout, appended)
        assert tokens == list(encode_example(example, double).input_ids[: len(tokens)])


def test_segmentation_works_on_reduced_images(half, examples):
    same = total = 0
    for example in examples:
        rollout, _ = run_reference(half, example)
        for turn, step in zip(rollout.turns, example.trajectory, strict=False):
            assert ("error" in turn.result) <= (step.operation in ("READ_TEXT", "TRACK_OBJECT"))
            if step.operation == "SEGMENT_OBJECT_AT":
                total += 1
                same += turn.result == step.result
    assert same == total > 0


def test_errors_are_in_pixels_of_the_resized_image(double, examples):
    calls = [
        format_call("READ_TEXT", {"bbox": [0, 0, 225, 10]}),
        format_call("READ_TEXT", {"bbox": [200, 200, 224, 224]}),
    ]
    rollout, appended = run_script(double, examples[0], *calls, "<answer>x</answer>")
    outside, inside, _ = rollout.turns
    bounds = "0 <= x1 < x2 <= 224 and 0 <= y1 < y2 <= 224, got [0, 0, 225, 10]"
    assert bounds in outside.result["error"]
    assert outside.failure == WRONG_ARGUMENTS
    assert inside.arguments == {"bbox": [100, 100, 112, 112]}
    assert inside.result["error"].startswith("no text in [100, 100, 112, 112]")
    assert inside.resized_result["error"].startswith("no text in [200, 200, 224, 224]")
    assert "no text in [200, 200, 224, 224]" in text_of(double, appended, 2)


def test_a_box_as_answer_is_in_stored_pixels(double, encoder, examples):
    text = "<answer>[10, 20, 40, 60]</answer>"
    for of, expected in ((double, "[5, 10, 20, 30]"), (encoder, "[10, 20, 40, 60]")):
        rollout, _ = run_script(of, examples[0], text)
        assert rollout.answer == rollout.turns[0].answer == expected
        assert rollout.turns[0].text == text


def test_a_trace_shows_the_result_in_pixels_of_the_resized_image(double, encoder, examples):
    calls = {n: format_call("GET_PROPERTIES", {"bbox": [0, 0, n, n]}) for n in (112, 224)}
    rollout, _ = run_script(double, examples[0], calls[224], "<answer>x</answer>")
    stored, resized = rollout.turns[0].result, rollout.turns[0].resized_result
    assert resized["area"] == 4 * stored["area"]
    spans = build_spans(Case(examples[0], rollout, None, WRONG, ""))
    (operation,) = [span for span in spans if span["type"] == "TOOL"]
    assert operation["outputs"]["result"] == stored
    *_, last = [span for span in spans if span["type"] == "CHAT_MODEL"]
    assert json.dumps(resized) in last["inputs"]["messages"][-1]["content"]
    rollout, _ = run_script(encoder, examples[0], calls[112], "<answer>x</answer>")
    assert rollout.turns[0].resized_result is None
    assert rollout.turns[0].arguments == {"bbox": [0, 0, 112, 112]}
