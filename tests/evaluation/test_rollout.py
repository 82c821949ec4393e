import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pixelis.data.chat import example_messages, format_answer, format_call, format_step
from pixelis.data.encode import Encoder
from pixelis.data_prep.generate import generate_example
from pixelis.errors import DataError
from pixelis.evaluation.rollout import Conversation, converse, roll_out
from tests.evaluation.handmade import Script, tokenize

ZOOM = ("ZOOM_IN", {"bbox": [0, 0, 28, 28], "factor": 2})
LOOK = ("GET_PROPERTIES", {"bbox": [0, 0, 28, 28]})


def told(encoder, heard, turn):
    """What was heard before a turn, as text."""
    return encoder.tokenizer.decode(heard[turn][0])


def run_script(encoder, example, *texts, max_operations=8):
    speaker = Script(encoder, texts)
    [rollout] = converse(
        speaker, encoder, [Conversation(example)], num_slots=1, max_operations=max_operations
    )
    return rollout, speaker.heard[0]


@pytest.fixture
def example(examples):
    return examples[0]


def test_reference_trajectory_replays_to_the_answer(encoder, examples):
    for example in examples:
        lines = [format_step(s.thought, s.operation, s.arguments) for s in example.trajectory]
        rollout, heard = run_script(
            encoder, example, *lines, format_answer(example.conclusion, example.answer)
        )
        assert (rollout.outcome, rollout.answer) == ("answered", example.answer)
        assert rollout.num_operations == len(example.trajectory)
        assert [t.result for t in rollout.turns] == [s.result for s in example.trajectory] + [None]
        for turn, step in zip(rollout.turns, example.trajectory, strict=False):
            assert (turn.image is None) == (step.image is None)
            assert step.image is None or np.array_equal(turn.image, step.image)
        # Token for token what the model is trained on.
        tokens = []
        for (ids, _), turn in zip(heard, rollout.turns, strict=True):
            tokens += [*ids, *tokenize(encoder, turn.text), encoder.end_of_turn_id]
        trained = encoder.encode(example_messages(example)).input_ids
        assert tokens == trained[: len(tokens)]
        assert encoder.tokenizer.decode(trained[len(tokens) :]) == "\n"


def test_keeps_what_names_the_example(encoder, example):
    rollout, _ = run_script(encoder, example, "<answer>red</answer>")
    assert rollout.example_id == example.id
    assert rollout.difficulty == example.difficulty
    assert rollout.task == example.task
    assert rollout.sample_type == example.sample_type


def test_observation_with_image_is_fed_back(encoder, example):
    call = format_call("ZOOM_IN", {"bbox": [0, 0, 28, 28], "factor": 2})
    rollout, heard = run_script(encoder, example, call, "<answer>x</answer>")
    assert rollout.turns[0].image.size == (56, 56)
    assert told(encoder, heard, 1) == (
        '\n<|im_start|>user\n<tool_response>\n{"size": [56, 56]}\n<|vision_start|>'
        + "<|image_pad|>" * 4
        + "<|vision_end|>\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert [image.size for image in heard[1][1]] == [(56, 56)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("I do not know.", "neither a call nor an answer"),
        ("", "neither a call nor an answer"),
        ("<tool_call>\n{broken\n</tool_call>", "the call is not valid JSON"),
        (format_call(*LOOK) * 2, "one call a turn, got 2"),
    ],
)
def test_malformed_turn_is_told_and_the_model_goes_on(encoder, example, text, error):
    rollout, heard = run_script(encoder, example, text, "<answer>x</answer>")
    assert rollout.turns[0].kind == "error"
    assert rollout.turns[0].result == {"error": error}
    assert f'<tool_response>\n{{"error": "{error}"}}\n</tool_response>' in told(encoder, heard, 1)
    assert (rollout.outcome, rollout.num_malformed, rollout.num_operations) == ("answered", 1, 0)


@pytest.mark.parametrize(
    "call", [("FLY", {}), ("ZOOM_IN", {"box": 1}), ("READ_TEXT", {"bbox": [5, 5, 1, 1]})]
)
def test_failed_operation_is_counted_and_told(encoder, example, call):
    rollout, heard = run_script(encoder, example, format_call(*call), "<answer>x</answer>")
    assert "error" in rollout.turns[0].result
    assert "error" in told(encoder, heard, 1)
    assert (rollout.num_operations, rollout.num_failed, rollout.num_malformed) == (1, 1, 0)


def test_repeated_calls_are_counted(encoder, example):
    other = format_call("GET_PROPERTIES", {"bbox": [28, 0, 56, 28]})
    same = [format_call(*LOOK), "Again. " + format_call(*LOOK), other, format_call(*LOOK)]
    rollout, _ = run_script(encoder, example, *same, "<answer>x</answer>")
    assert (rollout.num_operations, rollout.num_repeated) == (4, 2)


def test_answer_is_allowed_after_the_last_operation(encoder, example):
    texts = [format_call(*LOOK), "well", "<answer>x</answer>"]
    rollout, _ = run_script(encoder, example, *texts, max_operations=2)
    assert rollout.outcome == "answered"


@pytest.mark.parametrize(
    ("last", "outcome"), [(format_call(*LOOK), "max_operations"), ("well", "no_answer")]
)
def test_limit_ends_a_rollout_without_an_answer(encoder, example, last, outcome):
    rollout, heard = run_script(encoder, example, format_call(*LOOK), "hm", last, max_operations=2)
    assert (rollout.outcome, rollout.answer) == (outcome, None)
    assert len(rollout.turns) == len(heard) == 3
    assert rollout.turns[-1].result is None
    assert rollout.num_operations == 1


def test_image_that_the_processor_refuses_is_an_error_observation(encoder, example):
    wide = replace(example, images=(Image.new("RGB", (600, 40), "white"),))
    # Seen as 588 x 28.
    call = format_call("ZOOM_IN", {"bbox": [0, 0, 588, 1], "factor": 1})
    rollout, _ = run_script(encoder, wide, call, "<answer>x</answer>")
    assert "the image cannot be shown" in rollout.turns[0].result["error"]
    assert (rollout.turns[0].image, rollout.num_failed) == (None, 1)


def test_finished_conversations_give_their_slots_away_and_order_is_kept(encoder, examples):
    by_length = sorted(
        range(4), key=lambda i: len(encoder.tokenizer(examples[i].question)["input_ids"])
    )
    # The longest prompts begin; number i answers i after as many calls as its place.
    order = by_length[::-1]
    scripts = [[format_call(*LOOK)] * k + [f"<answer>{i}</answer>"] for k, i in enumerate(order)]
    speaker, done = Script(encoder, *scripts), []
    rollouts = converse(
        speaker,
        encoder,
        [Conversation(e) for e in examples[:4]],
        num_slots=2,
        max_operations=8,
        progress=lambda index, rollout: done.append((index, rollout.answer)),
    )
    assert [r.answer for r in rollouts] == ["0", "1", "2", "3"]
    assert [r.example_id for r in rollouts] == [e.id for e in examples[:4]]
    assert sorted(done) == [(i, str(i)) for i in range(4)]
    assert set(speaker.heard) == {0, 1}


def test_question_longer_than_the_encoder_allows_is_named(encoder, example):
    short = Encoder(encoder.processor, max_length=20)
    with pytest.raises(DataError, match=rf"example {example.id}: \d+ tokens, more than max_length"):
        converse(Script(short), short, [Conversation(example)], num_slots=1, max_operations=1)


def rolled(model, encoder, examples, batch_size, **given):
    limits = {"max_operations": 2, "max_new_tokens": 12} | given
    return roll_out(model, encoder, examples, batch_size=batch_size, **limits)


def test_same_rollouts_whatever_the_batch_size(lively, encoder, examples):
    alone = rolled(lively, encoder, examples, 1)
    assert rolled(lively, encoder, examples, 5) == alone
    assert rolled(lively, encoder, examples, 99) == alone
    assert len({turn.text for rollout in alone for turn in rollout.turns}) > 20


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_same_rollouts_whatever_the_batch_size_of_plain_and_drawn(
    lively, encoder, examples, temperature
):
    given = {"temperature": temperature, "num_samples": 2 if temperature else 1, "seed": 3}
    alone = rolled(lively, encoder, examples, 1, **given)
    for batch_size in (3, 16):
        assert rolled(lively, encoder, examples, batch_size, **given) == alone


def test_draws_follow_seed_and_number_of_the_sample(lively, encoder, examples):
    def texts(rollouts):
        return [[turn.text for turn in rollout.turns] for rollout in rollouts]

    drawn = {"temperature": 1.0, "num_samples": 3}
    first = rolled(lively, encoder, examples[:4], 4, seed=0, **drawn)
    assert [r.sample for r in first] == [0, 1, 2] * 4
    assert [r.example_id for r in first] == [e.id for e in examples[:4] for _ in range(3)]
    assert len({str(text) for text in texts(first)}) == 12
    # A single sample, and an example alone, say what they say among others.
    few = rolled(lively, encoder, examples[1:2], 4, seed=0, temperature=1.0, num_samples=2)
    assert few == first[3:5]
    assert texts(rolled(lively, encoder, examples[:4], 4, seed=1, **drawn)) != texts(first)


def test_a_small_temperature_is_nearly_greedy(lively, encoder, examples):
    greedy = rolled(lively, encoder, examples[:4], 4)
    assert rolled(lively, encoder, examples[:4], 4, temperature=1e-6) == greedy


def test_a_model_that_never_stops_is_a_counted_outcome(lively, encoder, examples):
    model = copy.deepcopy(lively)
    model.lm_head.weight.data[[encoder.end_of_turn_id, encoder.tokenizer.pad_token_id]] = 0
    model.lm_head.weight.data[[5]] *= 50
    rollouts = rolled(model, encoder, examples[:3], 2, max_new_tokens=5)
    assert {r.outcome for r in rollouts} == {"no_answer"}
    assert all(r.failures == {"cut_off": 3} for r in rollouts)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("I do not know.", "no_call"),
        ("<tool_call>\n{broken\n</tool_call>", "malformed_call"),
        ("<tool_call>\n", "malformed_call"),
        (format_call(*LOOK) * 2, "malformed_call"),
        (format_call("FLY", {}), "unknown_operation"),
        (format_call("ZOOM_IN", {"box": 1}), "wrong_arguments"),
        (format_call("READ_TEXT", {"bbox": "all"}), "wrong_arguments"),
        (format_call("READ_TEXT", {"bbox": [5, 5, 1, 1]}), "wrong_arguments"),
        (format_call("READ_TEXT", {"bbox": [0, 0, 2, 2]}), "failed_operation"),
        (format_call(*ZOOM), "repeated_call"),
    ],
)
def test_failures_are_counted_by_kind(encoder, example, text, failure):
    rollout, _ = run_script(encoder, example, format_call(*ZOOM), text, "<answer>x</answer>")
    assert [turn.failure for turn in rollout.turns] == ["", failure, ""]
    assert rollout.failures == {failure: 1}


def test_a_planted_start_holds_the_wrong_step_and_what_it_showed(encoder):
    example = generate_example(
        seed=1, index=0, task="text_extraction", sample_type="self_correction"
    )
    number = [step.supervised for step in example.trajectory].index(False)
    speaker = Script(encoder, ["<answer>x</answer>"])
    [rollout] = converse(
        speaker,
        encoder,
        [Conversation(example, planted=True)],
        num_slots=1,
        max_operations=2,
    )
    heard = speaker.heard[0][0][0]
    trained = encoder.encode(example_messages(example)).input_ids
    assert heard == trained[: len(heard)]
    assert told(encoder, speaker.heard[0], 0).count("<tool_response>") == number + 1
    assert (rollout.planted, len(rollout.turns)) == (True, 1)


def test_cut_off_turns_are_marked(lively, encoder, examples):
    turns = [t for r in rolled(lively, encoder, examples, 5, max_new_tokens=3) for t in r.turns]
    assert {t.ended for t in turns} == {True, False}
    assert all(t.num_new_tokens == 3 for t in turns if not t.ended)
    assert all(t.num_new_tokens < 3 for t in turns if t.ended)


def test_only_question_and_images_are_read(lively, encoder, examples):
    bare = [
        replace(e, trajectory=(), conclusion="", answer="", ground_truth="", provenance={})
        for e in examples[:4]
    ]
    assert rolled(lively, encoder, bare, 4) == rolled(lively, encoder, examples[:4], 4)


def test_training_mode_is_left_as_it_was(adapted, encoder, examples):
    expected = rolled(adapted, encoder, examples[:2], 2)
    adapted.train()
    # Dropout is off while rolling out.
    assert rolled(adapted, encoder, examples[:2], 2) == expected
    assert adapted.training
    adapted.eval()
    rolled(adapted, encoder, examples[:2], 2)
    assert not adapted.training


def test_adapter_and_base_both_speak(adapted, lively, encoder, examples):
    with adapted.disable_adapter():
        base = rolled(adapted, encoder, examples[:4], 2)
    assert base == rolled(lively, encoder, examples[:4], 2)
    assert base != rolled(adapted, encoder, examples[:4], 2)


def test_no_gradients_and_no_stale_positions_are_left(lively, encoder, examples):
    lively.model.rope_deltas = None
    rolled(lively, encoder, examples[:2], 2)
    assert lively.model.rope_deltas is None
    assert all(parameter.grad is None for parameter in lively.parameters())


def test_no_examples_give_no_rollouts(lively, encoder):
    assert rolled(lively, encoder, [], 4) == []


def test_bf16_model_rolls_out(lively, encoder, examples):
    half = copy.deepcopy(lively).to(torch.bfloat16)
    assert len(rolled(half, encoder, examples[:2], 2)) == 2


def test_the_embedded_base_calls_operations_and_answers(nano, encoder):
    easy = [
        generate_example(seed=11, index=i, task="text_extraction", sample_type="positive")
        for i in range(8)
    ]
    rollouts = rolled(nano, encoder, easy, 8, max_operations=4, max_new_tokens=96)
    assert any(r.outcome == "answered" and r.num_operations for r in rollouts)
    assert rollouts[:3] == rolled(nano, encoder, easy[:3], 1, max_operations=4, max_new_tokens=96)
