"""How far a model's operations are those of the reference trajectory."""

from collections.abc import Mapping, Sequence
from typing import Any

from pixelis.data.example import Example, Step
from pixelis.evaluation.intervals import Fraction
from pixelis.evaluation.matching import IOU_THRESHOLD, box_iou
from pixelis.evaluation.turns import CALL, Rollout, Turn
from pixelis.operations import OPERATIONS

# How large a region is shown does not change where it is looked at.
_PLACELESS = ("factor",)


def reference_steps(example: Example) -> tuple[Step, ...]:
    """The reference's steps, a planted wrong one left out."""
    return tuple(step for step in example.trajectory if step.supervised)


def call_agrees(turn: Turn, step: Step) -> bool:
    """Whether a call does what a reference step does.

    The operation is the same and looks at the same place: boxes overlap by an intersection over
    union of at least 0.5; a point lies in the box that the reference found, or is the same where
    the reference found none. Other arguments are equal, defaults filled in, but for the
    magnification.
    """
    if turn.operation != step.operation or not isinstance(turn.arguments, Mapping):
        return False
    defaults = OPERATIONS[step.operation].defaults if step.operation in OPERATIONS else {}
    said = _relevant({**defaults, **turn.arguments})
    meant = _relevant({**defaults, **step.arguments})
    if said.keys() != meant.keys():
        return False
    found = _as_box(step.result.get("bbox"))
    if {"x", "y"} <= meant.keys() and found is not None:
        x, y = said.pop("x"), said.pop("y")
        del meant["x"], meant["y"]
        if not (_is_number(x) and _is_number(y)):
            return False
        if not (found[0] <= x < found[2] and found[1] <= y < found[3]):
            return False
    return all(_same(said[name], meant[name]) for name in meant)


def num_agreeing(rollout: Rollout, example: Example) -> int:
    """How many of a rollout's operations are the reference's, in its order.

    The length of the longest common subsequence of both under `call_agrees`, as ROUGE-L has it for
    words (Lin 2004, section 3): each step counts once, and steps in another order count only as
    far as some of them are in order.
    """
    calls, steps = _calls_run(rollout), reference_steps(example)
    row = [0] * (len(steps) + 1)
    for call in calls:
        previous = row
        row = [0]
        for j, step in enumerate(steps):
            longest = max(previous[j + 1], row[j])
            row.append(max(longest, previous[j] + 1) if call_agrees(call, step) else longest)
    return row[-1]


def operation_fractions(
    rollouts: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Precision and recall of the operations against the reference trajectory.

    Returns:
        `operation_precision`: operations that are the reference's (`num_agreeing`) among those run,
        summed over examples before dividing, so that every operation weighs the same (micro
        average); `operation_recall`: the same among the reference's. Precision and recall of a
        longest common subsequence as in ROUGE-L (Lin 2004, section 3). Of examples with a reference
        only; the precision's also only where an operation was run.
    """
    precision: list[Fraction] = []
    recall: list[Fraction] = []
    for rollout, example in zip(rollouts, examples, strict=True):
        steps = reference_steps(example)
        agreeing = num_agreeing(rollout, example)
        precision.append((agreeing, rollout.num_operations) if steps else None)
        recall.append((agreeing, len(steps)) if steps else None)
    return {"operation_precision": precision, "operation_recall": recall}


def _calls_run(rollout: Rollout) -> list[Turn]:
    return [turn for turn in rollout.turns if turn.kind == CALL and turn.result is not None]


def _relevant(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in _PLACELESS}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_box(value: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(_is_number, value)):
        return None
    x1, y1, x2, y2 = value
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _same(said: Any, meant: Any) -> bool:
    a, b = _as_box(said), _as_box(meant)
    if a is not None and b is not None:
        return box_iou(a, b) >= IOU_THRESHOLD
    return bool(said == meant)
