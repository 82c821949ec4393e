from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from pixelis.data.dataset import CurriculumDataset
from pixelis.data.store import to_row
from pixelis.data_prep.generate import generate_example
from pixelis.evaluation.evaluate import evaluate_model
from pixelis.evaluation.metrics import correct_answers
from pixelis.evaluation.summary import compute_measures
from pixelis.evaluation.teacher_forced import forced_fractions, tally_examples
from pixelis.evaluation.validation import Validation
from tests.evaluation.handmade import make_example, make_rollout, make_turn

LIMITS = {"max_operations": 2, "max_new_tokens": 20, "batch_size": 8}


@pytest.fixture(scope="module")
def corrections():
    return [
        replace(
            generate_example(seed=9, index=i, task="text_extraction", sample_type=kind),
            difficulty="simple",
        )
        for i, kind in enumerate(["self_correction", "positive", "self_correction"])
    ]


def test_measures_of_answers_and_steps():
    examples = [make_example(i, truth="ABCD", task="text_extraction") for i in range(3)]
    run = make_turn("call", result={"text": "x"})
    rollouts = [
        make_rollout(examples[0], "ABCX", [run, run, make_turn("answer")]),
        make_rollout(examples[1], "ABCD", [make_turn("answer")]),
        make_rollout(examples[2], None, [run], outcome="max_operations"),
    ]
    found = compute_measures(rollouts, [], examples)
    assert found["answer_score"] == [(0.75, 1), (1.0, 1), (0.0, 1)]
    assert found["steps_to_answer"] == [(2, 1), (0, 1), None]


def test_everything_that_is_measured(nano, encoder, examples, corrections):
    chosen = [*examples, *corrections]
    result = evaluate_model(
        nano,
        encoder,
        chosen,
        **LIMITS,
        compare_base=False,
        bootstrap_samples=20,
        seed=0,
        num_samples=3,
        temperature=0.8,
        planted_errors=True,
        teacher_forced=True,
    ).adapter
    assert [r.example_id for r in result.rollouts] == [e.id for e in chosen]
    assert [[r.sample for r in samples] for samples in result.samples] == [[0, 1, 2]] * 17
    assert [r.example_id for r in result.planted] == [corrections[0].id, corrections[2].id]
    everything = result.measures["all"]
    assert set(everything) == {
        *("valid_call_rate", "well_formed_call_rate", "failed_operation_rate"),
        *("repeated_call_rate", "answer_score"),
        "steps_to_answer",
        "operation_precision",
        "operation_recall",
        "detection_rate",
        "diagnosis_rate",
        "self_correction_rate",
        "mending_rate",
        "pass_at_1",
        "pass_at_2",
        "pass_at_3",
        "majority_accuracy",
        "teacher_forced_token_accuracy",
        "teacher_forced_answer_accuracy",
    } - ({"steps_to_answer"} if not any(r.answer for r in result.rollouts) else set())
    assert everything["self_correction_rate"].num == 2
    right = [correct_answers(s, [e] * 3) for s, e in zip(result.samples, chosen, strict=True)]
    assert everything["pass_at_1"].value == pytest.approx(sum(map(sum, right)) / 51)
    assert everything["pass_at_3"].value == pytest.approx(sum(map(any, right)) / 17)
    assert set(result.measures["type/self_correction"]) >= {"mending_rate"}
    assert "detection_rate" not in result.measures["type/positive"]
    assert any(name.startswith("operation/") for name in result.measures)
    assert "simple/text_extraction" not in result.measures


def test_a_second_adapter_is_compared(adapted, lively, encoder, examples):
    result = evaluate_model(
        adapted,
        encoder,
        examples[:4],
        **LIMITS,
        compare_base=True,
        bootstrap_samples=20,
        seed=0,
        against=lambda: nullcontext(lively),
    )
    assert result.against.rollouts == result.base.rollouts != result.adapter.rollouts
    assert result.against_comparison == result.comparison


def test_teacher_forced_measures_are_those_of_a_training(adapted, encoder, corrections):
    rows = {"simple": [to_row(example) for example in corrections]}
    stratum = Validation(
        CurriculumDataset(rows, encoder),
        ["simple"],
        samples_per_difficulty=3,
        batch_size=2,
        seed=0,
    )(adapted)["simple"]
    tallies = tally_examples(adapted, encoder, corrections, batch_size=2)
    found = forced_fractions(tallies)
    right, tokens = map(sum, zip(*found["teacher_forced_token_accuracy"], strict=True))
    assert (tokens, right / tokens) == (stratum.num_tokens, stratum.token_accuracy)
    answered = [part for part, _ in found["teacher_forced_answer_accuracy"]]
    assert sum(answered) / 3 == stratum.answer_accuracy
    assert torch.is_grad_enabled()
