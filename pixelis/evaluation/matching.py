"""Whether an answer is right, by what kind of answer it is, and how near it comes.

| kind | right | score, in [0, 1] |
| --- | --- | --- |
| `exact` | equal after normalisation; two numbers by value | 1 where right |
| `number` | equal by value | 1 where right |
| `set` | the same members in any order | 1 where right |
| `text` | equal after normalisation, digits as characters | ANLS |
| `box` | intersection over union of at least 0.5 | intersection over union |

An example says its kind in `provenance["answer_type"]` and further accepted answers in
`provenance["alternatives"]` (a list of strings); the best of them counts. Where it says no kind,
`text_extraction` is `text`, a truth of the form `[x1, y1, x2, y2]` is a `box`, one of the form
`{a, b}` a `set`, and anything else `exact`. No answer is wrong and scores 0.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from math import isfinite

from pixelis.data.example import Example

EXACT, NUMBER, SET, TEXT, BOX = ANSWER_TYPES = ("exact", "number", "set", "text", "box")
ANLS_THRESHOLD = 0.5
IOU_THRESHOLD = 0.5

_DECIMAL = r"[+-]?[0-9]+(?:\.[0-9]+)?"
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
)
_BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([f"({_DECIMAL})"] * 4) + r"\s*\]")
_SET = re.compile(r"\{(.*)\}", re.DOTALL)

Box = tuple[float, float, float, float]


def normalise_text(text: str) -> str:
    """Case folded, every run of white space one space, none at the ends."""
    return " ".join(text.casefold().split())


def parse_number(text: str) -> float | None:
    """A decimal number; None where the text is none.

    Such as `3`, `+3`, `3.0`, `.5`, `1e3` and `1,000` (commas between groups of three). A percent is
    a hundredth: `50 %` and `50%` are 0.5, not 50, as the relaxed accuracy of ChartQA is computed
    (Masry et al. 2022, ACL Findings, section 5.1). A number too large for a float is none.
    """
    stripped = text.strip()
    bare = stripped.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(bare):
        return None
    # As decimals: 0.7 / 100 is not the float that 0.007 is.
    value = Decimal(bare.replace(",", ""))
    found = float(value if bare == stripped else value / 100)
    return found if isfinite(found) else None


def parse_box(text: str) -> Box | None:
    """A box `[x1, y1, x2, y2]` with x1 < x2 and y1 < y2; None where the text is none."""
    found = _BOX.fullmatch(text.strip())
    if found is None:
        return None
    x1, y1, x2, y2 = map(float, found.groups())
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def parse_set(text: str) -> frozenset[str]:
    """The members of `a, b; c` or `{a, b, c}`, normalised; numbers by value."""
    braced = _SET.fullmatch(text.strip())
    members = re.split("[,;]", braced[1] if braced else text)
    return frozenset(_canonical(member) for member in members if member.strip())


def _canonical(text: str) -> str:
    number = parse_number(text)
    return normalise_text(text) if number is None else repr(number + 0.0)


def edit_distance(a: str, b: str) -> int:
    """Insertions, deletions and substitutions between two texts (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def anls(predicted: str, truth: str, *, threshold: float = ANLS_THRESHOLD) -> float:
    """Normalised Levenshtein similarity of one answer (Biten et al. 2019, ICCV, section 4).

    1 - distance / length of the longer, after `normalise_text`; 0 where that distance is not below
    the threshold: a text that differs in half of its characters was not read. The mean over
    examples is the ANLS.
    """
    a, b = normalise_text(predicted), normalise_text(truth)
    longer = max(len(a), len(b))
    if not longer:
        return 1.0
    # Longer by that much, it is too far off whatever it says: no need to look.
    if abs(len(a) - len(b)) >= threshold * longer:
        return 0.0
    distance = edit_distance(a, b) / longer
    return 1.0 - distance if distance < threshold else 0.0


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1] (Everingham et al. 2010, section 4.2)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (areas - both)


def _same_text(predicted: str, truth: str) -> float:
    return float(normalise_text(predicted) == normalise_text(truth))


def _same_value(predicted: str, truth: str) -> float:
    a, b = parse_number(predicted), parse_number(truth)
    if a is not None and b is not None:
        return float(a == b)
    return _same_text(predicted, truth)


def _same_set(predicted: str, truth: str) -> float:
    return float(parse_set(predicted) == parse_set(truth))


def _box_overlap(predicted: str, truth: str) -> float:
    a, b = parse_box(predicted), parse_box(truth)
    return box_iou(a, b) if a and b else _same_text(predicted, truth)


_SCORES: dict[str, Callable[[str, str], float]] = {
    EXACT: _same_value,
    NUMBER: _same_value,
    SET: _same_set,
    TEXT: anls,
    BOX: _box_overlap,
}


def answer_type(example: Example) -> str:
    """The kind of an example's answer, one of `ANSWER_TYPES`; see the table above."""
    said = example.provenance.get("answer_type")
    if said in ANSWER_TYPES:
        return str(said)
    if example.task == "text_extraction":
        return TEXT
    if parse_box(example.ground_truth) is not None:
        return BOX
    return SET if _SET.fullmatch(example.ground_truth.strip()) else EXACT


def truths(example: Example) -> tuple[str, ...]:
    """All answers that count as right: the ground truth first, then the alternatives."""
    others = example.provenance.get("alternatives")
    if not isinstance(others, list | tuple):
        return (example.ground_truth,)
    return (example.ground_truth, *(other for other in others if isinstance(other, str)))


def score_answer(predicted: str | None, example: Example) -> float:
    """How near an answer comes, in [0, 1]; by kind, see the table above."""
    if predicted is None:
        return 0.0
    score = _SCORES[answer_type(example)]
    return max(score(predicted, truth) for truth in truths(example))


def answers_match(predicted: str | None, example: Example) -> bool:
    """Whether an answer is right; by kind, see the table above.

    Case and runs of white space never count; anything else does (no partial credit, no synonyms:
    `a red circle` is not `red circle`). Several texts are right in order only. Two decimal numbers
    (`parse_number`) are compared by value (`3`, `3.0` and `+3` agree; `three` and `3` do not), but
    for text_extraction, where digits are characters. No answer is wrong. As the normalised exact
    match of SQuAD (Rajpurkar et al. 2016, section 6.1), without its removal of articles and
    punctuation.
    """
    if predicted is None:
        return False
    kind = answer_type(example)
    if kind == BOX:
        return score_answer(predicted, example) >= IOU_THRESHOLD
    right = _same_text if kind == TEXT else _SCORES[kind]
    return any(right(predicted, truth) == 1 for truth in truths(example))


def answer_key(predicted: str, example: Example) -> str:
    """What two answers to an example share where they say the same."""
    kind = answer_type(example)
    if kind == SET:
        return repr(sorted(parse_set(predicted)))
    return normalise_text(predicted) if kind == TEXT else _canonical(predicted)
