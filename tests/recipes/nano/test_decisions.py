"""Every decided word follows from the rest of its lesson, worked out from the text alone."""

import collections
import json
import random
import re

import pytest

from pixelis.data.encode import IGNORE_INDEX
from recipes.nano.decisions import (
    LESSONS,
    MAX_NAMED,
    STAGES,
    build_common,
    build_direction,
    build_extreme,
    build_found,
    build_front,
    build_heading,
    build_mover,
    build_order,
    build_recall,
    build_relation,
    build_row,
    encode_lesson,
)

MEASURE = {
    **dict.fromkeys(("largest", "smallest"), "area"),
    **dict.fromkeys(("leftmost", "rightmost"), "column"),
    **dict.fromkeys(("topmost", "bottommost"), "row"),
}
# Down and right, of the direction that the words name.
STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
HEADINGS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "not at all": (0, 0)}
PLACE = r"row \d column \d"
PAIR = rf"\w+ \w+(?:: \d+| {PLACE})"
PAIRS = r"\w+ \w+: \d+(?:, \w+ \w+: \d+)+"


def cell_of(place):
    return tuple(map(int, re.findall(r"\d", place)))


def sign(number):
    return (number > 0) - (number < 0)


def apart(first, last):
    """How far a place is below and right of another."""
    return tuple(b - a for a, b in zip(cell_of(first), cell_of(last), strict=True))


def pairs_in(text):
    pairs = [pair.split(": ") for pair in text.split(", ")]
    assert 2 <= len(pairs) <= MAX_NAMED and len(dict(pairs)) == len(pairs)
    return dict(pairs)


def numbers_in(text, measure):
    """Name -> value; areas are those of drawn shapes, rows and columns those of a scene."""
    values = {name: int(value) for name, value in pairs_in(text).items()}
    least, most = (40, 560) if measure == "area" else (1, 4)
    assert least <= min(values.values()) and max(values.values()) <= most
    return values


def ranked(word, measure, listed):
    """The names in the order of the word; the first is first by a clear margin."""
    assert measure == MEASURE[word]
    values = numbers_in(listed, measure)
    ordered = sorted(values, key=values.get, reverse=word in ("largest", "rightmost", "bottommost"))
    first, second = sorted(values[name] for name in ordered[:2])
    assert 4 * second >= 5 * first
    return ordered


def answer_relation(word, measure, listed):
    """The furthest of two, and whether it is the first."""
    furthest = ranked(word, measure, listed)[0]
    assert len(pairs_in(listed)) == 2
    return [furthest, "yes" if listed.startswith(furthest) else "no"]


def answer_direction(first, second):
    (down, right) = apart(second, first)
    assert max(abs(down), abs(right)) >= 2 * min(abs(down), abs(right))
    step = (0, sign(right)) if abs(right) > abs(down) else (sign(down), 0)
    return [word for word, each in STEPS.items() if each == step]


def answer_common(*words):
    same = {"color": words[0] == words[1], "shape": words[2] == words[3]}
    verdicts = ["same" if is_same else "different" for is_same in same.values()]
    return [*verdicts, " and ".join(word for word in same if same[word]) or "nothing"]


def answer_recall(listed, asked):
    values = dict(re.findall(rf"(\w+ \w+):? ({PLACE}|\d+)", listed))
    names = {value: name for name, value in values.items()}
    assert 2 <= len(names) == len(values) <= MAX_NAMED
    known = re.findall(r", (.+?):? _", asked)
    assert len(set(known)) == len(known)
    return [{**names, **values}[each] for each in known]


def answer_placed(given, word, measure, listed):
    """The row or column of each place, then the extreme."""
    axis = ("row", "column").index(measure)
    cells = {name: cell_of(at) for name, at in re.findall(rf"The (\w+ \w+) is in ({PLACE})", given)}
    names = re.findall(r"(\w+ \w+): _", listed)
    assert sorted(names) == sorted(cells) and 2 <= len(names) <= MAX_NAMED
    values = [str(cells[name][axis]) for name in names]
    assert len(set(values)) == len(values)
    pairs = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    return [*values, ranked(word, measure, pairs)[0]]


def answer_copy(results):
    texts = [json.loads(line)["text"] for line in results.splitlines()]
    assert 1 <= len(texts) <= 3
    return [" ".join(texts)] * 2


def answer_found(oracles, kind, listed, numbered):
    """The verdicts with the count so far, the count, then each place and name that counts."""
    items = re.findall(rf"({PLACE}) ([\w ]+)_, ", listed)
    places = [cell_of(place) for place, _ in items]
    assert places == sorted(set(places))
    counted, answers = [], []
    for place, name in items:
        if oracles.fits(kind, name):
            counted.append((name, place))
        answers.append(f" {'yes' if oracles.fits(kind, name) else 'no'} {len(counted)}")
    ends = [f" Number {number}: _, _." for number in range(1, len(counted) + 1)]
    assert numbered == "".join(ends)
    return [*answers, str(len(counted)), *(word for pair in counted for word in pair)]


def answer_path(boxes):
    """The cells that hold the middle of the first and of the last box."""
    ends = [json.loads(boxes)["boxes"][index] for index in (0, -1)]
    middles = [((y1 + y2) // 2 // 28 + 1, (x1 + x2) // 2 // 28 + 1) for x1, y1, x2, y2 in ends]
    return [f"row {row} column {column}" for row, column in middles]


def answer_beside(relation, place):
    row, column = (a + b for a, b in zip(cell_of(place), STEPS[relation], strict=True))
    return [f"row {row} column {column}"]


def answer_heading(first, last):
    step = tuple(map(sign, apart(first, last)))
    return [word for word, each in HEADINGS.items() if each == step]


def answer_mover(listed):
    paths = re.findall(rf"the (\w+ \w+) from ({PLACE}) to ({PLACE}) _", listed)
    assert len(paths) in (2, 3)
    (moved,) = [name for name, first, last in paths if first != last]
    return [*("stays" if first == last else "moves" for _, first, last in paths), moved]


# The text with `_` where something is decided, and what stands there.
FORMS = [
    (rf"The (\w+) by (\w+), ({PAIRS}), is the _\.", lambda *said: ranked(*said)[:1]),
    (rf"The (\w+) first by (\w+), ({PAIRS}), is _(?:, _)+\.", ranked),
    (rf"The (\w+) by (\w+), ({PAIRS}), is the _, so _\.", answer_relation),
    (rf"The \w+ \w+ in ({PLACE}), the \w+ \w+ in ({PLACE}), so _\.", answer_direction),
    (r"Colors (\w+) and (\w+): _, shapes (\w+) and (\w+): _, so _\.", answer_common),
    (
        rf"By area, ({PAIRS}), there: (\d+), in front is the _\.",
        lambda listed, met: [k for k, v in numbers_in(listed, "area").items() if v == int(met)],
    ),
    (
        rf"Given ({PAIR}(?:, {PAIR})+)((?:, (?:\w+ \w+|{PLACE}|\d+):? _)+)\.",
        answer_recall,
    ),
    (
        rf"((?:The \w+ \w+ is in {PLACE}\. )+)The (\w+) by (\w+), (.*: _), is the _\.",
        answer_placed,
    ),
    (r'((?:\{"text": "\w+"\}\n)+)It says "_"\.\n<answer>_', answer_copy),
    (rf"The (\w+|\w+ objects): ((?:{PLACE} [\w ]+_, )+)no more: _\.(.*)", answer_found),
    (r"(\{.*\})\nFrom _ to _\.", answer_path),
    (rf"The object ([a-z ]+) ({PLACE}) is in _\.", answer_beside),
    (rf"From ({PLACE}) to ({PLACE}), so it moves: _\.", answer_heading),
    (r"T(he \w+ \w+ from .*), so the _\.", lambda listed: answer_mover(f"t{listed}")),
]


def understand(said, oracles):
    """The one form that a text with `_` has, and what stands there."""
    ((form, found, answer),) = [
        (form, found, answer) for form, answer in FORMS if (found := re.fullmatch(form, said))
    ]
    more = [oracles] if answer is answer_found else []
    return form, answer(*more, *found.groups())


every_lesson = pytest.mark.parametrize(
    "build", LESSONS, ids=lambda build: getattr(build, "func", build).__name__
)


def built(build, count=400):
    return [build(random.Random(seed)) for seed in range(count)]


def decided_in(lesson):
    return [text for text, decided in lesson if decided]


def said_in(lesson):
    """The text with `_` for what is decided."""
    return "".join("_" if decided else text for text, decided in lesson)


@every_lesson
def test_what_is_decided_is_true_and_follows_from_the_rest(build, oracles):
    for lesson in built(build):
        said = said_in(lesson)
        assert decided_in(lesson) == understand(said, oracles)[1], said


@pytest.mark.parametrize(
    ("build", "most"),
    [
        (build_relation, 0.7),
        (build_direction, 0.35),
        (build_common, 0.5),
        (build_heading, 0.4),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_no_answer_is_right_most_of_the_time(build, most):
    answers = collections.Counter(decided_in(lesson)[-1] for lesson in built(build))
    assert max(answers.values()) < most * answers.total()


@pytest.mark.parametrize("build", [build_extreme, build_order, build_front, build_mover])
def test_the_place_of_a_name_in_the_list_is_no_hint(build):
    first = 0
    for lesson in built(build):
        text, answer = said_in(lesson), decided_in(lesson)[-1]
        first += re.findall(r"(\w+ \w+)(?:: \d| from)", text)[0] == answer
    assert 0.25 < first / 400 < 0.6


def test_counts_of_every_size_are_listed():
    counts = collections.Counter(
        int(next(word for word in decided_in(lesson) if word.isdigit()))
        for lesson in built(build_found)
    )
    assert set(counts) >= set(range(6))
    assert max(counts.values()) < 0.4 * counts.total()


def test_the_first_stage_compares_rows_and_columns_alone():
    (build,) = STAGES["comparison"]
    said = [said_in(lesson) for lesson in built(build)]
    assert {re.match(r"The \w+ by (\w+), ", text)[1] for text in said} == {"row", "column"}


@pytest.mark.parametrize("backwards", [0, 0.25, 1])
def test_names_are_asked_for_in_a_given_share(backwards):
    lessons = [build_recall(random.Random(seed), backwards=backwards) for seed in range(400)]
    decided = [word for lesson in lessons for word in decided_in(lesson)]
    names = sum(not re.search(r"\d", word) for word in decided)
    assert names / len(decided) == pytest.approx(backwards, abs=0.06)


def test_an_order_may_be_of_a_given_number_of_names():
    for count in range(2, MAX_NAMED + 1):
        lesson = build_order(random.Random(0), num_names=count)
        assert len(decided_in(lesson)) == count


@every_lesson
def test_labels_are_the_tokens_of_the_decided_words(build, tokenizer):
    for lesson in built(build, 60):
        ids, labels = encode_lesson(tokenizer, lesson)
        assert tokenizer.decode(ids) == "".join(text for text, _ in lesson)
        runs = [[]]
        for token, label in zip(ids, labels, strict=True):
            assert label in (token, IGNORE_INDEX)
            runs.append([]) if label == IGNORE_INDEX else runs[-1].append(token)
        learnt = [tokenizer.decode(run).strip() for run in runs if run]
        assert learnt == [word.strip() for word in decided_in(lesson)]


@pytest.mark.parametrize("length", [1, 32, 64, 96])
def test_a_row_is_full_of_lessons_of_which_the_last_is_cut(tokenizer, length):
    for seed in range(20):
        ids, labels = build_row(random.Random(seed), tokenizer, length, LESSONS)
        more_ids, more_labels = build_row(random.Random(seed), tokenizer, 2 * length, LESSONS)
        assert (ids, labels) == (more_ids[:length], more_labels[:length])
        assert len(ids) == len(labels) == length and tokenizer.pad_token_id not in ids
        assert length < 96 or set(labels) != {IGNORE_INDEX}


def test_a_row_has_the_lessons_that_are_given_in_their_shares(tokenizer):
    lessons = {build_common: 3, build_recall: 1}
    texts = [
        tokenizer.decode(build_row(random.Random(seed), tokenizer, 96, lessons)[0])
        for seed in range(60)
    ]
    number = {word: sum(text.count(word) for text in texts) for word in ("Colors ", "Given ")}
    assert 2 < number["Colors "] / number["Given "] < 5
    assert "The " not in "".join(texts)
