"""Measures other than answer accuracy: of answers, calls, detected errors, several samples.

Functions of one rollout return measure -> fraction (`intervals.Fraction`); `metrics.score_table`
computes the ratios of many and their intervals.
"""

import re
from collections.abc import Sequence
from math import comb

from pixelis.data.chat import format_answer, prose_of
from pixelis.data.example import Example
from pixelis.evaluation.intervals import Fraction
from pixelis.evaluation.matching import (
    answer_key,
    answers_match,
    call_agrees,
    normalise_text,
    num_agreeing,
    reference_steps,
    score_answer,
)
from pixelis.evaluation.rollout import planted_steps
from pixelis.evaluation.turns import ANSWER, ANSWERED, CALL, Rollout
from pixelis.evaluation.validation import Tally
from pixelis.operations import OPERATIONS, UNKNOWN_OPERATION, WRONG_ARGUMENTS

JUDGED = ("outcome_negative", "trap_perceptual", "trap_logical")
_NO = re.compile(r"no\b")


def compute_measures(
    rollouts: Sequence[Rollout], planted: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Return the measures of one rollout per example, and of rollouts after planted errors.

    Returns:
        `answer_score`: mean score of answers in [0, 1] (`matching.score_answer`);
        `steps_to_answer`: mean number of operations before the answer, over rollouts that end in
        any answer (read it with `outcome_answered`);
        the measures of `call_fractions`, `operation_fractions`, `detection_fractions` and
        `correction_fractions`.
    """
    after_errors = {rollout.example_id: rollout for rollout in planted}
    rows: list[dict[str, Fraction]] = [
        {
            "answer_score": (score_answer(rollout.answer, example), 1),
            "steps_to_answer": (rollout.num_operations, 1) if rollout.outcome == ANSWERED else None,
            **call_fractions(rollout),
            **operation_fractions(rollout, example),
            **detection_fractions(rollout, example),
            **correction_fractions(after_errors.get(example.id), example),
        }
        for rollout, example in zip(rollouts, examples, strict=True)
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def num_valid_calls(rollout: Rollout) -> int:
    """Return the number of a rollout's calls that are valid.

    A call is valid if it parses, names a known operation, has arguments that fit the operation's
    schema, and was not refused when it was run (such as a box outside of the image). A valid call
    may still fail by finding nothing. A repeated call is as valid as the first one.
    """
    calls = [turn for turn in rollout.turns if turn.kind == CALL]
    refused = {
        turn.call_key for turn in calls if turn.failure in (UNKNOWN_OPERATION, WRONG_ARGUMENTS)
    }
    return sum(
        turn.operation in OPERATIONS
        and OPERATIONS[turn.operation].takes(turn.arguments)
        and turn.call_key not in refused
        for turn in calls
    )


def call_fractions(rollout: Rollout) -> dict[str, Fraction]:
    """Return rates of calls as ratios of sums, in which every act or call has the same weight.

    An act is a turn that is not an answer. Parsing, the fit of name and arguments, and running are
    separate rates, as in the Berkeley Function-Calling Leaderboard (Patil et al. 2023).

    Returns:
        `valid_call_rate`: valid calls (`num_valid_calls`) among all acts;
        `well_formed_call_rate`: calls that parse, with any name, among all acts;
        `failed_operation_rate`: operations with an error among those run;
        `repeated_call_rate`: calls equal to an earlier one of their rollout among all calls.
        A fraction is None for a rollout without such turns.
    """
    num_acts = sum(turn.kind != ANSWER for turn in rollout.turns)
    num_calls = sum(turn.kind == CALL for turn in rollout.turns)
    parts = {
        "valid_call_rate": (num_valid_calls(rollout), num_acts),
        "well_formed_call_rate": (num_calls, num_acts),
        "failed_operation_rate": (rollout.num_failed, rollout.num_operations),
        "repeated_call_rate": (rollout.num_repeated, num_calls),
    }
    return {name: (part, whole) if whole else None for name, (part, whole) in parts.items()}


def operation_fractions(rollout: Rollout, example: Example) -> dict[str, Fraction]:
    """Return precision and recall of the operations against the reference trajectory.

    Returns:
        `operation_precision`: operations that agree with the reference (`matching.num_agreeing`)
        among those run (micro average); `operation_recall`: the same number among the reference's
        steps, as in ROUGE-L (Lin 2004, section 3). None without a reference.
    """
    steps, agreeing = reference_steps(example), num_agreeing(rollout, example)
    return {
        "operation_precision": (agreeing, rollout.num_operations) if steps else None,
        "operation_recall": (agreeing, len(steps)) if steps else None,
    }


def first_sentence(text: str) -> str:
    """Return the first sentence of a turn before its call or answer, normalised.

    For example `no, step 2 looks at the wrong place`. A full stop within a number does not end it.
    """
    return re.split(r"[.!](?:\s|$)", normalise_text(prose_of(text)))[0]


def detection_fractions(rollout: Rollout, example: Example) -> dict[str, Fraction]:
    """Return whether errors in shown solutions are detected; defined for negatives and traps only.

    Such an example shows a flawed solution and asks whether it is right; the reference starts with
    `No, ...`. A model that always answers no has a detection rate of 1: read it together with the
    diagnosis rate. The two are separate in step-by-step verification too (Lightman et al. 2023;
    Zheng et al. 2024, "ProcessBench", section 2).

    Returns:
        `detection_rate`: share of examples whose first turn starts with no;
        `diagnosis_rate`: share whose first sentence, normalised, equals the reference's, which also
        names the error. The exact match is a lower bound of what a reader would accept.
    """
    solution = [step.thought for step in example.trajectory]
    solution.append(format_answer(example.conclusion, example.answer))
    expected = first_sentence(solution[0])
    if example.sample_type not in JUDGED or not _NO.match(expected):
        return {"detection_rate": None, "diagnosis_rate": None}
    said = first_sentence(rollout.turns[0].text)
    return {"detection_rate": (bool(_NO.match(said)), 1), "diagnosis_rate": (said == expected, 1)}


def correction_fractions(planted: Rollout | None, example: Example) -> dict[str, Fraction]:
    """Return whether planted errors are corrected; defined for self-corrections only.

    In the rollout `planted` the model goes on after a wrong step in its prompt. No message points
    out the error: intrinsic self-correction (Huang et al. 2024; Kumar et al. 2024, section 3).

    Returns:
        `self_correction_rate`: share of these rollouts whose answer is right in the end;
        `mending_rate`: share whose first turn makes the right call in place of the wrong one
        (`call_agrees` with the reference's next step).
    """
    following = example.trajectory[len(planted_steps(example)) :]
    if planted is None:
        return {"self_correction_rate": None, "mending_rate": None}
    first = planted.turns[0]
    mends = bool(following) and first.kind == CALL and call_agrees(first, following[0])
    return {
        "self_correction_rate": (answers_match(planted.answer, example), 1),
        "mending_rate": (mends, 1) if following else None,
    }


def pass_at_k(num: int, num_right: int, k: int) -> float:
    """Return the probability that one of k samples is right (Chen et al. 2021, section 2.1).

    If `num_right` of `num` >= k samples are right, it is 1 - C(num - num_right, k) / C(num, k): the
    share of subsets of k samples with a right one, which is unbiased.
    """
    return 1.0 - comb(num - num_right, k) / comb(num, k)


def majority_answer(rollouts: Sequence[Rollout], example: Example) -> str | None:
    """Return the answer of most samples (self-consistency, Wang et al. 2023, section 2).

    Answers with the same `answer_key` are equal; samples without an answer have no vote; with equal
    votes the answer of the earlier sample wins. The result is None if no sample has an answer.
    """
    votes: dict[str, list[str]] = {}
    for rollout in rollouts:
        if rollout.answer is not None:
            votes.setdefault(answer_key(rollout.answer, example), []).append(rollout.answer)
    # max returns the first of equal values, and the keys are in the order of the samples.
    return max(votes.values(), key=len)[0] if votes else None


def sample_fractions(
    samples: Sequence[Sequence[Rollout]], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Return measures of several samples per example.

    Returns:
        `pass_at_<k>` for k = 1, 2, 4, ... and the number of samples (`pass_at_k`; at 1 it is the
        mean accuracy of all samples); `majority_accuracy`: share of examples whose
        `majority_answer` is right.
    """
    fractions: dict[str, list[Fraction]] = {}
    for rollouts, example in zip(samples, examples, strict=True):
        num = len(rollouts)
        num_right = sum(answers_match(rollout.answer, example) for rollout in rollouts)
        for k in sorted({2**power for power in range(num.bit_length())} | {num}):
            value = pass_at_k(num, num_right, k)
            fractions.setdefault(f"pass_at_{k}", []).append((value, 1))
        right = answers_match(majority_answer(rollouts, example), example)
        fractions.setdefault("majority_accuracy", []).append((right, 1))
    return fractions


def teacher_forced_fractions(tallies: Sequence[Tally]) -> dict[str, list[Fraction]]:
    """Return accuracies of the next token given the right ones (Williams and Zipser 1989).

    Returns:
        `teacher_forced_token_accuracy`: share of supervised tokens whose most likely prediction is
        right; `teacher_forced_answer_accuracy`: share of examples with every token of the last turn
        right. They are defined like the strata of a training.
    """
    return {
        "teacher_forced_token_accuracy": [(t.right, t.tokens) for t in tallies],
        "teacher_forced_answer_accuracy": [(t.answered, 1) for t in tallies],
    }
