"""Why an answer is wrong, in a sentence, from the rollout and the reference trajectory.

It tells what can be seen from outside: how the rollout ended, whether the model looked where the
reference looks, whether what it was shown held the truth. It is no account of the model's mind.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.data.example import Example
from pixelis.data_prep.regions import Region, box_iou, find_regions
from pixelis.evaluation.matching import BOX, TEXT, answer_type, score_answer
from pixelis.evaluation.turns import CALL, ERROR, MAX_OPERATIONS, NO_ANSWER, Rollout, Turn

# Boxes that overlap so much are of the same thing; the threshold of PASCAL VOC.
SAME_PLACE = 0.5
MAX_SHOWN = 60
MAX_SAID = 160  # characters of a conclusion
PARTLY = (TEXT, BOX)  # kinds of answers that count in part
MAX_NUMBERS = 4  # of the reference's steps that a sentence lists


def explain(rollout: Rollout, example: Example) -> str:
    """A few sentences about a wrong answer, or about why there is none.

    What the model concludes stands beside what the reference finds, in their own words, where both
    say something and not the same.
    """
    parts = [_ending(rollout, example), _conclusions(rollout, example)]
    if (loop := _loop(rollout)) is not None:
        parts.append(loop)
    elif rollout.outcome not in (MAX_OPERATIONS, NO_ANSWER):
        parts.append(_cause(rollout, example))
    return " ".join(filter(None, parts))


def shorten(value: Any, limit: int = MAX_SHOWN) -> str:
    """A value as a sentence shows it: a text as it is, anything else as JSON, never long."""
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
    said, truth = shorten(rollout.answer), shorten(example.ground_truth)
    return f"It answered “{said}”, the truth is “{truth}”{_distance(rollout, example)}."


def _conclusions(rollout: Rollout, example: Example) -> str:
    if rollout.answer is None:
        return ""
    said = _words(rollout.turns[-1].text.partition("<answer>")[0])
    found = _words(example.conclusion)
    if not said or not found or said.casefold() == found.casefold():
        return ""
    return f"It says “{shorten(said, MAX_SAID)}”; the reference finds “{shorten(found, MAX_SAID)}”."


def _words(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _distance(rollout: Rollout, example: Example) -> str:
    """By how much a number is off, or how alike a text is that counts in part."""
    said, truth = rollout.answer or "", example.ground_truth
    if answer_type(example) in PARTLY and 0 < (score := score_answer(said, example)) < 1:
        return f" (score {score:.2f})"
    try:
        off = int(said) - int(truth)
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
    if number := _shown_at(rollout.turns, example.ground_truth):
        return f"What it was shown in turn {number} holds the truth, but it answered otherwise."
    if 2 * len(failed) > len(calls):
        count = "Every operation" if len(failed) == len(calls) else "Most operations"
        return f"{count} failed, the last one with: {shorten((failed[-1].result or {})['error'])}."
    if (words := _place(calls, example)) is not None:
        return words
    missing = {step.operation for step in example.trajectory} - {turn.operation for turn in calls}
    if missing:
        return f"The reference uses {', '.join(sorted(missing))}, which it never called."
    if failed:
        count = f"{len(failed)} of its {len(calls)} operations"
        return f"{count} failed: {shorten((failed[-1].result or {})['error'])}."
    if any(turn.kind == ERROR for turn in rollout.turns):
        return "One of its turns was neither a call nor an answer."
    return ""


def _shown_at(turns: Sequence[Turn], truth: str) -> int | None:
    """The number of the last turn whose observation holds the truth as a value of its own."""
    wanted = truth.strip().casefold()
    for number in range(len(turns), 0, -1):
        result = turns[number - 1].result
        if result and any(value.strip().casefold() == wanted for value in _values(result)):
            return number
    return None


def _values(value: Any) -> Iterator[str]:
    """The texts of a result, and numbers that stand alone: those of a box say nothing."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list | tuple):
        yield from (inner for inner in value if isinstance(inner, str))


def _place(calls: Sequence[Turn], example: Example) -> str | None:
    """Whether the model's boxes are where the reference's are; None where either has none."""
    wanted = {
        box: number
        for number, step in enumerate(example.trajectory, 1)
        for box in _located(step.arguments, step.result)
    }
    seen = [box for turn in calls for box in _located(turn.arguments, turn.result)]
    if not wanted or not seen:
        return None
    found = {box: max(box_iou(box, other) for other in seen) for box in wanted}
    missed = sorted({number for box, number in wanted.items() if found[box] < SAME_PLACE})
    if not missed:
        return "It looked at all that the reference looks at; what it made of it is wrong."
    numbers = [f"R{number}" for number in missed]
    if len(numbers) > MAX_NUMBERS:
        numbers = [*numbers[:MAX_NUMBERS], "..."]
    best = max(found[box] for box, number in wanted.items() if number in missed)
    near = f", at best with an overlap of {best:.2f}" if best >= 0.05 else ""
    return f"It did not look at {', '.join(numbers)} of the reference{near}."


def _located(arguments: Any, result: Mapping[str, Any] | None) -> list[Region]:
    """The boxes that a call is about: those that it found (a point finds one), or those it names.

    Only the first image counts.
    """
    found: list[Region] = [place for place in find_regions(result, None, 1) if len(place) == 4]
    named = find_regions(arguments, result, 1)
    boxes = [place for place in named if len(place) == 4]
    return list(boxes) or (found if named else [])
