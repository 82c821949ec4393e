"""How a model meets errors: ones that it is asked to judge, and one planted in its own steps."""

import re
from collections.abc import Mapping, Sequence

from pixelis.data.chat import CALL_OPEN, format_answer
from pixelis.data.example import Example
from pixelis.evaluation.conversation import planted_steps
from pixelis.evaluation.intervals import Fraction
from pixelis.evaluation.matching import answers_match, normalise_text
from pixelis.evaluation.trajectory_match import call_agrees
from pixelis.evaluation.turns import CALL, Rollout

JUDGED = ("outcome_negative", "trap_perceptual", "trap_logical")


def verdict(text: str) -> str:
    """The first sentence of a turn, without what it calls: `no, step 2 looks at the wrong place`.

    Normalised; a full stop within a number ends no sentence.
    """
    said = normalise_text(text.split(CALL_OPEN)[0].split("<answer>")[0])
    return re.split(r"[.!](?:\s|$)", said)[0]


def says_no(text: str) -> bool:
    """Whether a turn begins with the word no."""
    return re.match(r"no\b", verdict(text)) is not None


def _reference_opening(example: Example) -> str:
    if example.trajectory:
        return example.trajectory[0].thought
    return format_answer(example.conclusion, example.answer)


def detection_fractions(
    rollouts: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Whether errors in proposed solutions are seen: of outcome negatives and traps alone.

    Such an example shows a flawed solution and asks whether it is right; the reference begins with
    `No, ...`. All solutions shown are flawed, so a model that always says no has a detection rate
    of 1: read it with the diagnosis rate and with the accuracy, as detecting and locating an error
    are told apart where solutions are verified step by step (Lightman et al. 2023; Zheng et al.
    2024, "ProcessBench", section 2).

    Returns:
        `detection_rate`: share of examples whose first turn begins with no;
        `diagnosis_rate`: share whose first sentence, normalised (`verdict`), is the reference's to
        the word: it also names what is wrong, such as the step or the answer. An exact match, as
        ProcessBench asks for the very step that is first wrong (Zheng et al. 2024, section 2); it
        bounds from below what a reader would accept, and is never above the detection rate.
    """
    detection: list[Fraction] = []
    diagnosis: list[Fraction] = []
    for rollout, example in zip(rollouts, examples, strict=True):
        reference = _reference_opening(example)
        if example.sample_type not in JUDGED or not says_no(reference):
            detection.append(None)
            diagnosis.append(None)
            continue
        said = rollout.turns[0].text
        detection.append((says_no(said), 1))
        diagnosis.append((verdict(said) == verdict(reference), 1))
    return {"detection_rate": detection, "diagnosis_rate": diagnosis}


def correction_fractions(
    planted: Mapping[str, Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """What follows a planted error: of self-corrections alone, rolled out from a planted start.

    The conversation holds the trajectory up to its wrong step and what that step showed, as if the
    model had taken it; then the model goes on by itself. As intrinsic self-correction (Huang et al.
    2024; Kumar et al. 2024, section 3): nobody tells it that something is wrong.

    Args:
        planted: the rollouts with a planted start, by example id.
        examples: all that were evaluated.

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
