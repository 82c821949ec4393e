"""Explanations of wrong answers, from the rollout and the reference trajectory.

They use what can be observed: how the rollout ended, whether the model looked at the reference's
regions, and whether a result held the truth.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.data.example import Example
from pixelis.data_prep.regions import Region, box_iou, find_regions
from pixelis.evaluation.matching import BOX, TEXT, answer_type, score_answer
from pixelis.evaluation.turns import CALL, ERROR, MAX_OPERATIONS, NO_ANSWER, Rollout, Turn

SAME_OBJECT_IOU = 0.5  # the threshold of PASCAL VOC
MAX_VALUE = 60  # characters
MAX_CONCLUSION = 160  # characters
PARTIAL = (TEXT, BOX)  # kinds of answers with partial scores
MAX_STEPS = 4  # steps of the reference that a sentence lists


def explain(rollout: Rollout, example: Example) -> str:
    """Return a few sentences about a wrong or missing answer.

    The conclusions of the model and of the reference are quoted if both exist and differ.
    """
    parts = [_ending(rollout, example), _conclusions(rollout, example)]
    if (loop := _loop(rollout)) is not None:
        parts.append(loop)
    elif rollout.outcome not in (MAX_OPERATIONS, NO_ANSWER):
        parts.append(_cause(rollout, example))
    return " ".join(filter(None, parts))


def shorten(value: Any, limit: int = MAX_VALUE) -> str:
    """Shorten a value to one line: a text unchanged, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _ending(rollout: Rollout, example: Example) -> str:
    last = rollout.turns[-1] if rollout.turns else None
    if rollout.outcome == MAX_OPERATIONS:
        calls = rollout.num_operations
        return f"Still calling after {calls} operation{'s' * (calls != 1)}, it never answered."
    if rollout.outcome == NO_ANSWER or rollout.answer is None:
        if last is not None and not last.ended:
            return f"Cut off after {last.num_new_tokens} tokens of one turn, it never answered."
        return "Its last turn was neither a call nor an answer."
    answer, truth = shorten(rollout.answer), shorten(example.ground_truth)
    return f"It answered “{answer}”, the truth is “{truth}”{_distance(rollout.answer, example)}."


def _conclusions(rollout: Rollout, example: Example) -> str:
    if rollout.answer is None:
        return ""
    own = _one_line(rollout.turns[-1].text.partition("<answer>")[0])
    reference = _one_line(example.conclusion)
    if not own or not reference or own.casefold() == reference.casefold():
        return ""
    own, reference = shorten(own, MAX_CONCLUSION), shorten(reference, MAX_CONCLUSION)
    return f"It says “{own}”; the reference finds “{reference}”."


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _distance(answer: str, example: Example) -> str:
    """Return the difference of a wrong number, or the score of a partly right answer."""
    if answer_type(example) in PARTIAL and 0 < (score := score_answer(answer, example)) < 1:
        return f" (score {score:.2f})"
    try:
        off = int(answer) - int(example.ground_truth)
    except ValueError:
        return ""
    return f" ({off:+d})" if 0 < abs(off) < 1000 and answer_type(example) != TEXT else ""


def _loop(rollout: Rollout) -> str | None:
    repeated = rollout.num_repeated
    if repeated >= 2:
        return f"It made a call again that it had made already, {repeated} times."
    malformed = rollout.num_malformed
    if malformed >= 2:
        return f"{malformed} of its turns were neither a call nor an answer."
    return None


def _cause(rollout: Rollout, example: Example) -> str:
    calls = [turn for turn in rollout.turns if turn.kind == CALL and turn.result is not None]
    failed = [turn for turn in calls if "error" in (turn.result or {})]
    if not calls:
        return "It answered without looking: no operation was run."
    if number := _turn_with_truth(rollout.turns, example.ground_truth):
        return f"What it was shown in turn {number} holds the truth, but it answered otherwise."
    if 2 * len(failed) > len(calls):
        count = "Every operation" if len(failed) == len(calls) else "Most operations"
        return f"{count} failed, the last one with: {shorten((failed[-1].result or {})['error'])}."
    if (sentence := _missed_steps(calls, example)) is not None:
        return sentence
    missing = {step.operation for step in example.trajectory} - {turn.operation for turn in calls}
    if missing:
        return f"The reference uses {', '.join(sorted(missing))}, which it never called."
    if failed:
        count = f"{len(failed)} of its {len(calls)} operations"
        return f"{count} failed: {shorten((failed[-1].result or {})['error'])}."
    if any(turn.kind == ERROR for turn in rollout.turns):
        return "One of its turns was neither a call nor an answer."
    return ""


def _turn_with_truth(turns: Sequence[Turn], truth: str) -> int | None:
    """Return the number of the last turn whose result has a value equal to the truth."""
    expected = truth.strip().casefold()
    for number in range(len(turns), 0, -1):
        result = turns[number - 1].result
        if result and any(value.strip().casefold() == expected for value in _values(result)):
            return number
    return None


def _values(value: Any) -> Iterator[str]:
    """Iterate over the texts of a result and its single numbers, but not the numbers of a box."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list | tuple):
        yield from (inner for inner in value if isinstance(inner, str))


def _missed_steps(calls: Sequence[Turn], example: Example) -> str | None:
    """Return a sentence about the reference's boxes that the model missed; None without boxes."""
    expected = {
        box: number
        for number, step in enumerate(example.trajectory, 1)
        for box in _boxes(step.arguments, step.result)
    }
    seen = [box for turn in calls for box in _boxes(turn.arguments, turn.result)]
    if not expected or not seen:
        return None
    overlaps = {box: max(box_iou(box, other) for other in seen) for box in expected}
    missed = sorted({n for box, n in expected.items() if overlaps[box] < SAME_OBJECT_IOU})
    if not missed:
        return "It looked at all that the reference looks at; what it made of it is wrong."
    numbers = [f"R{number}" for number in missed]
    if len(numbers) > MAX_STEPS:
        numbers = [*numbers[:MAX_STEPS], "..."]
    best = max(overlaps[box] for box, number in expected.items() if number in missed)
    near = f", at best with an overlap of {best:.2f}" if best >= 0.05 else ""
    return f"It did not look at {', '.join(numbers)} of the reference{near}."


def _boxes(arguments: Any, result: Mapping[str, Any] | None) -> list[Region]:
    """Return the boxes of a call in the first image, from its arguments or else its result."""
    named = find_regions(arguments, result, 1)
    boxes: list[Region] = [region for region in named if len(region) == 4]
    if boxes or not named:
        return boxes
    return [region for region in find_regions(result, None, 1) if len(region) == 4]
