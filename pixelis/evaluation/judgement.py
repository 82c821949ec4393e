"""Measures of detecting errors in shown solutions and of correcting planted errors."""

import re
from collections.abc import Mapping, Sequence

from pixelis.data.chat import CALL_OPEN, format_answer
from pixelis.data.example import Example
from pixelis.evaluation.conversation import planted_steps
from pixelis.evaluation.intervals import Fraction
from pixelis.evaluation.matching import answers_match, call_agrees, normalise_text
from pixelis.evaluation.turns import CALL, Rollout

JUDGED = ("outcome_negative", "trap_perceptual", "trap_logical")


def first_sentence(text: str) -> str:
    """Return the first sentence of a turn before its call or answer, normalised.

    For example `no, step 2 looks at the wrong place`. A full stop within a number does not end it.
    """
    prose = normalise_text(text.split(CALL_OPEN)[0].split("<answer>")[0])
    return re.split(r"[.!](?:\s|$)", prose)[0]


def says_no(text: str) -> bool:
    """Return whether a turn starts with the word no."""
    return re.match(r"no\b", first_sentence(text)) is not None


def detection_fractions(
    rollouts: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Return whether errors in shown solutions are detected; defined for negatives and traps only.

    Such an example shows a flawed solution and asks whether it is right; the reference starts with
    `No, ...`. All of these solutions are flawed, so a model that always answers no has a detection
    rate of 1: read it together with the diagnosis rate and the accuracy. Detecting and locating an
    error are separate in step-by-step verification too (Lightman et al. 2023; Zheng et al. 2024,
    "ProcessBench", section 2).

    Returns:
        `detection_rate`: share of examples whose first turn starts with no;
        `diagnosis_rate`: share whose first sentence, normalised, equals the reference's, which also
        names the error, such as the wrong step. It requires an exact match, like ProcessBench,
        which asks for the first wrong step; so it is a lower bound of what a reader would accept,
        and never above the detection rate.
    """
    detection: list[Fraction] = []
    diagnosis: list[Fraction] = []
    for rollout, example in zip(rollouts, examples, strict=True):
        if example.trajectory:
            reference = example.trajectory[0].thought
        else:
            reference = format_answer(example.conclusion, example.answer)
        if example.sample_type not in JUDGED or not says_no(reference):
            detection.append(None)
            diagnosis.append(None)
            continue
        text = rollout.turns[0].text
        detection.append((says_no(text), 1))
        diagnosis.append((first_sentence(text) == first_sentence(reference), 1))
    return {"detection_rate": detection, "diagnosis_rate": diagnosis}


def correction_fractions(
    planted: Mapping[str, Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Return whether planted errors are corrected; defined for self-corrections only.

    The prompt holds the trajectory up to its wrong step and that step's result, as if the model had
    taken it; then the model continues alone. No message points out the error: this is intrinsic
    self-correction (Huang et al. 2024; Kumar et al. 2024, section 3). `planted` holds these
    rollouts by example id.

    Returns:
        `self_correction_rate`: share of these rollouts whose answer is right in the end;
        `mending_rate`: share whose first turn makes the right call in place of the wrong one
        (`call_agrees` with the reference's next step).
    """
    corrected: list[Fraction] = []
    mended: list[Fraction] = []
    for example in examples:
        rollout = planted.get(example.id)
        if rollout is None:
            corrected.append(None)
            mended.append(None)
            continue
        corrected.append((answers_match(rollout.answer, example), 1))
        following = example.trajectory[len(planted_steps(example)) :]
        first = rollout.turns[0]
        mends = first.kind == CALL and call_agrees(first, following[0]) if following else False
        mended.append((mends, 1) if following else None)
    return {"self_correction_rate": corrected, "mending_rate": mended}
