"""The comparison of answers with the truth, and of calls with the reference's steps.

| kind | right | score, in [0, 1] |
| --- | --- | --- |
| `exact` | equal after normalisation; two numbers by value | 1 where right |
| `number` | equal by value | 1 where right |
| `set` | the same members in any order | 1 where right |
| `text` | equal after normalisation, digits as characters | ANLS |
| `box` | intersection over union of at least 0.5 | intersection over union |

The kind of an example is in `provenance["answer_type"]`, and further accepted answers are in
`provenance["alternatives"]` (a list of strings); the best match counts. Without a kind,
`text_extraction` is `text`, a truth of the form `[x1, y1, x2, y2]` is a `box`, one of the form
`{a, b}` is a `set`, and anything else is `exact`. A missing answer is wrong and scores 0.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Any

from pixelis.data.example import Example, Step
from pixelis.data_prep.regions import box_iou
from pixelis.evaluation.turns import Rollout, Turn
from pixelis.operations import OPERATIONS

EXACT, _, SET, TEXT, BOX = ANSWER_TYPES = ("exact", "number", "set", "text", "box")
ANLS_THRESHOLD = 0.5
IOU_THRESHOLD = 0.5
NOT_COMPARED = "factor"  # an argument: the magnification does not change the region

_DECIMAL = r"[+-]?[0-9]+(?:\.[0-9]+)?"
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
)
_BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([f"({_DECIMAL})"] * 4) + r"\s*\]")
_SET = re.compile(r"\{(.*)\}", re.DOTALL)

Box = tuple[float, float, float, float]


def normalise_text(text: str) -> str:
    """Fold case, replace every run of white space by one space, and strip both ends."""
    return " ".join(text.casefold().split())


def parse_number(text: str) -> float | None:
    """Parse a decimal number; return None for any other text.

    Numbers are `3`, `+3`, `3.0`, `.5`, `1e3` and `1,000` (commas between groups of three). `50 %`
    and `50%` are 0.5, as in the relaxed accuracy of ChartQA (Masry et al. 2022, ACL Findings,
    section 5.1). A number too large for a float gives None.
    """
    stripped = text.strip()
    bare = stripped.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(bare):
        return None
    # Decimal, because 0.7 / 100 and 0.007 are different floats.
    value = Decimal(bare.replace(",", ""))
    number = float(value if bare == stripped else value / 100)
    return number if isfinite(number) else None


def parse_box(text: str) -> Box | None:
    """Parse a box `[x1, y1, x2, y2]` with x1 < x2 and y1 < y2; return None for any other text."""
    match = _BOX.fullmatch(text.strip())
    return _as_box([*map(float, match.groups())]) if match else None


def parse_set(text: str) -> frozenset[str]:
    """Parse the members of `a, b; c` or `{a, b, c}`, normalised; numbers by value."""
    braced = _SET.fullmatch(text.strip())
    members = re.split("[,;]", braced[1] if braced else text)
    return frozenset(_canonical(member) for member in members if member.strip())


def _canonical(text: str) -> str:
    number = parse_number(text)
    return normalise_text(text) if number is None else repr(number + 0.0)


def edit_distance(a: str, b: str) -> int:
    """Count insertions, deletions and substitutions between two texts (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def anls(predicted: str, truth: str) -> float:
    """Return the normalised Levenshtein similarity of an answer (Biten et al. 2019, section 4).

    It is 1 - distance / length of the longer text, after `normalise_text`, and 0 if the relative
    distance is not below the threshold: a text that differs in half of its characters was not read.
    """
    a, b = normalise_text(predicted), normalise_text(truth)
    longer = max(len(a), len(b))
    if not longer:
        return 1.0
    distance = edit_distance(a, b) / longer
    return 1.0 - distance if distance < ANLS_THRESHOLD else 0.0


def answer_type(example: Example) -> str:
    """Return the kind of an example's answer, one of `ANSWER_TYPES`; see the table above."""
    kind = example.provenance.get("answer_type")
    if kind in ANSWER_TYPES:
        return str(kind)
    if example.task == "text_extraction":
        return TEXT
    if parse_box(example.ground_truth) is not None:
        return BOX
    return SET if _SET.fullmatch(example.ground_truth.strip()) else EXACT


def truths(example: Example) -> tuple[str, ...]:
    """Return all answers that count as right: the ground truth first, then the alternatives."""
    others = example.provenance.get("alternatives")
    if not isinstance(others, list | tuple):
        return (example.ground_truth,)
    return (example.ground_truth, *(other for other in others if isinstance(other, str)))


def score_answer(predicted: str | None, example: Example) -> float:
    """Return the score of an answer in [0, 1], which depends on its kind (see the table above)."""
    if predicted is None:
        return 0.0
    kind = answer_type(example)
    return max(_score(kind, predicted, truth) for truth in truths(example))


def _score(kind: str, predicted: str, truth: str) -> float:
    if kind == TEXT:
        return anls(predicted, truth)
    if kind == BOX and (a := parse_box(predicted)) and (b := parse_box(truth)):
        return box_iou(a, b)
    return float(_key(kind, predicted) == _key(kind, truth))


def answers_match(predicted: str | None, example: Example) -> bool:
    """Return whether an answer is right, which depends on its kind (see the table above).

    Case and white space are ignored, but there are no synonyms: `a red circle` is not `red circle`,
    and `three` is not `3`. A missing answer is wrong. This is the normalised exact match of SQuAD
    (Rajpurkar et al. 2016, section 6.1), without its removal of articles and punctuation.
    """
    if predicted is None:
        return False
    if answer_type(example) == BOX:
        return score_answer(predicted, example) >= IOU_THRESHOLD
    key = answer_key(predicted, example)
    return any(key == answer_key(truth, example) for truth in truths(example))


def answer_key(answer: str, example: Example) -> str:
    """Return a key that is the same for equal answers to an example."""
    return _key(answer_type(example), answer)


def _key(kind: str, answer: str) -> str:
    if kind == SET:
        return repr(sorted(parse_set(answer)))
    return normalise_text(answer) if kind == TEXT else _canonical(answer)


def reference_steps(example: Example) -> tuple[Step, ...]:
    """Return the reference's steps without a planted wrong one."""
    return tuple(step for step in example.trajectory if step.supervised)


def call_agrees(turn: Turn, step: Step) -> bool:
    """Return whether a call agrees with a reference step.

    It must be the same operation on the same region: boxes overlap by an intersection over union of
    at least 0.5; a point lies in the reference's box, or is the same if the reference has no box.
    Other arguments must be equal, with defaults filled in, except for the magnification.
    """
    if turn.operation != step.operation or not isinstance(turn.arguments, Mapping):
        return False
    defaults = OPERATIONS[step.operation].defaults if step.operation in OPERATIONS else {}
    given, expected = ({**defaults, **each} for each in (turn.arguments, step.arguments))
    if given.keys() != expected.keys():
        return False
    box = _as_box(step.result.get("bbox"))
    x: Any = given.get("x")
    y: Any = given.get("y")
    if box is not None and _is_number(x) and _is_number(y):
        inside = box[0] <= x < box[2] and box[1] <= y < box[3]
        given |= {"x": expected["x"], "y": expected["y"]} if inside else {}
    names = expected.keys() - {NOT_COMPARED}
    return all(_same_argument(given[name], expected[name]) for name in names)


def num_agreeing(rollout: Rollout, example: Example) -> int:
    """Return the number of a rollout's operations that agree with the reference, in its order.

    It is the length of the longest common subsequence of both under `call_agrees`, like ROUGE-L for
    words (Lin 2004, section 3).
    """
    steps = reference_steps(example)
    row = [0] * (len(steps) + 1)
    for call in rollout.operations:
        previous, row = row, [0]
        for j, step in enumerate(steps):
            longest = max(previous[j + 1], row[j])
            row.append(max(longest, previous[j] + 1) if call_agrees(call, step) else longest)
    return row[-1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_box(value: Any) -> Box | None:
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(_is_number, value)):
        return None
    x1, y1, x2, y2 = value
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _same_argument(given: Any, expected: Any) -> bool:
    a, b = _as_box(given), _as_box(expected)
    if a is not None and b is not None:
        return box_iou(a, b) >= IOU_THRESHOLD
    return bool(given == expected)
