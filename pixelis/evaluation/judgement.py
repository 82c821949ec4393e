"""Measures of errors: ones that the model has to judge, and one planted in its own steps."""

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

    Such as `no, step 2 looks at the wrong place`; a full stop within a number ends no sentence.
    """
    words = normalise_text(text.split(CALL_OPEN)[0].split("<answer>")[0])
    return re.split(r"[.!](?:\s|$)", words)[0]


def says_no(text: str) -> bool:
    """Return whether a turn starts with the word no."""
    return re.match(r"no\b", first_sentence(text)) is not None


def detection_fractions(
    rollouts: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Return whether errors in proposed solutions are detected: of negatives and traps alone.

    Such an example shows a flawed solution and asks whether it is right; the reference starts with
    `No, ...`. All solutions shown are flawed, so a model that always says no has a detection rate
    of 1: read it with the diagnosis rate and with the accuracy, as detecting and locating an error
    are separate in step-by-step verification (Lightman et al. 2023; Zheng et al. 2024,
    "ProcessBench", section 2).

    Returns:
        `detection_rate`: share of examples whose first turn starts with no;
        `diagnosis_rate`: share whose first sentence, normalised, equals the reference's: it also
        names what is wrong, such as the step or the answer. An exact match, as ProcessBench asks
        for the very step that is first wrong; a lower bound of what a reader would accept, and
        never above the detection rate.
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
    """Return what follows a planted error: of self-corrections alone.

    The prompt holds the trajectory up to its wrong step and that step's result, as if the model
    had taken it; then the model goes on alone. As intrinsic self-correction (Huang et al. 2024;
    Kumar et al. 2024, section 3): no message points out that something is wrong. `planted` holds
    these rollouts by example id.

    Returns:
        `self_correction_rate`: share of these rollouts whose answer is right in the end;
        `mending_rate`: share whose first turn makes the call that the wrong step should have been
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
