"""Dense text lessons: decisions over values and places, as the conclusions of the tasks state them.

A model of this size learns to compare numbers or to count by class only from many decisions in many
steps, with the loss on the decided words alone: with a loss on all words of a conversation it stays
at chance. So a row is a series of short statements without a chat around them, and only the words
that have to be decided are supervised.
"""

import json
import random
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pixelis.data.encode import IGNORE_INDEX
from pixelis.data_prep.annotated_image import plural
from pixelis.data_prep.scenes import CELL, CELLS, GRID, RADII, Cell, random_text
from pixelis.data_prep.sources.drawn import FRAMES, full_area, location_of
from pixelis.data_prep.tasks.attribute_recognition import RELATIONS
from pixelis.data_prep.tasks.conclusions import (
    conclude_common,
    conclude_direction,
    conclude_extreme,
    conclude_front,
    conclude_heading,
    conclude_mover,
    conclude_relation,
    describe_path,
    list_found,
    list_values,
)
from pixelis.data_prep.tasks.geometric_comparison import MIN_RATIO
from pixelis.data_prep.tasks.geometric_comparison import WORDS as SIZE_WORDS
from pixelis.data_prep.tasks.proposal import DIRECTIONS, direction
from pixelis.data_prep.tasks.relationship_detection import name_shared
from pixelis.data_prep.tasks.spatial_reasoning import WORDS as SIDE_WORDS
from pixelis.data_prep.tasks.temporal_tracking import heading
from pixelis.operations.pixels import PALETTE, SHAPES

# A lesson is a text in parts, each with whether it is decided (supervised).
Lesson = list[tuple[str, bool]]
Build = Callable[[random.Random], Lesson]

NAMES = tuple(f"{colour} {shape}" for colour in PALETTE for shape in SHAPES)
AXES = ("column", "row")
MAX_COVERED = 0.25  # largest share of a shape that is covered
MAX_NAMED = 4
MAX_FOUND = 9
MAX_TEXTS = 3
AREA_SHARE = 0.75  # of the comparisons; rows and columns, of one digit, are learned in less
VERDICTS = r"( (?:yes|no) \d|(?<=no more: )\d)"  # what is decided in a list
JITTER = 2  # pixels by which a tracked box may be off its cell


def place(cell: Cell) -> str:
    """Return the name of a cell."""
    return location_of(cell).name


def decide(sentence: str, *words: str) -> Lesson:
    """Split a sentence into parts; the last occurrence of each word, in order, is decided."""
    parts: Lesson = []
    for word in reversed(words):
        sentence, _, after = sentence.rpartition(word)
        parts = [(word, True), (after, False), *parts]
    return [(sentence, False), *parts]


def draw_area(rng: random.Random) -> int:
    """Draw the area of a shape in pixels; a neighbour may cover a part of it."""
    area = full_area(rng.choice(SHAPES), rng.choice(list(RADII)))
    return round(area * (1 - rng.uniform(0, MAX_COVERED))) if rng.random() < 0.3 else area


def draw_areas(rng: random.Random, count: int) -> list[int]:
    """Draw areas of which each is at least MIN_RATIO times the next smaller one, shuffled."""
    while True:
        areas = sorted(draw_area(rng) for _ in range(count))
        if all(b >= MIN_RATIO * a for a, b in zip(areas, areas[1:], strict=False)):
            return rng.sample(areas, count)


def draw_values(
    rng: random.Random, count: int, area_share: float
) -> tuple[str, str, list[int], bool]:
    """Draw a measure, the word that is asked for, distinct values, and whether the least wins."""
    if rng.random() < area_share:
        word = rng.choice(SIZE_WORDS)
        return "area", word, draw_areas(rng, count), word == "smallest"
    word = rng.choice(list(SIDE_WORDS))
    axis, sign = DIRECTIONS[SIDE_WORDS[word]]
    return AXES[axis], word, rng.sample(range(1, GRID + 1), count), sign > 0


def build_extreme(rng: random.Random, area_share: float = AREA_SHARE) -> Lesson:
    """State which of two to four names has the extreme value."""
    names = rng.sample(NAMES, rng.randint(2, MAX_NAMED))
    measure, word, values, least = draw_values(rng, len(names), area_share)
    answer = names[values.index(min(values) if least else max(values))]
    return decide(conclude_extreme(measure, names, values, word, answer), answer)


def build_order(
    rng: random.Random, num_names: int | None = None, area_share: float = AREA_SHARE
) -> Lesson:
    """State two to four names in the order of their values."""
    names = rng.sample(NAMES, num_names or rng.randint(2, MAX_NAMED))
    measure, word, values, least = draw_values(rng, len(names), area_share)
    ordered = sorted(names, key=lambda name: values[names.index(name)], reverse=not least)
    listed = list_values(names, values)
    return decide(f"The {word} first by {measure}, {listed}, is {', '.join(ordered)}.", *ordered)


def build_relation(rng: random.Random) -> Lesson:
    """State whether the first of two names lies to a side of the second, by row or column."""
    word, relation = rng.choice(list(SIDE_WORDS.items()))
    axis, sign = DIRECTIONS[relation]
    values = rng.sample(range(1, GRID + 1), 2)
    names = rng.sample(NAMES, 2)
    answer = "yes" if sign * values[0] < sign * values[1] else "no"
    extreme = names[0] if answer == "yes" else names[1]
    return decide(conclude_relation(AXES[axis], names, values, word, answer), extreme, answer)


def build_direction(rng: random.Random) -> Lesson:
    """State where one of two names lies from the other, by their places."""
    while True:
        first, second = rng.sample(CELLS, 2)
        # As in the tasks, places that lie aslant have no direction.
        if answer := direction(location_of(first).box, location_of(second).box, CELL / 2):
            places = (place(first), place(second))
            return decide(conclude_direction(rng.sample(NAMES, 2), places, answer), answer)


def build_common(rng: random.Random) -> Lesson:
    """State which of colour and shape two objects share."""
    a, b = ((rng.choice(list(PALETTE)), rng.choice(SHAPES)) for _ in range(2))
    if rng.random() < 0.7:
        b = rng.choice([(a[0], b[1]), (b[0], a[1])])
    words = name_shared(a, b)
    verdicts = ["same" if x == y else "different" for x, y in zip(a, b, strict=True)]
    return decide(conclude_common((a, b), words), *verdicts, words)


def build_front(rng: random.Random) -> Lesson:
    """State which of two areas is found where the two meet."""
    names, areas = rng.sample(NAMES, 2), draw_areas(rng, 2)
    met = rng.randrange(2)
    return decide(conclude_front(names, areas, areas[met], names[met]), names[met])


def build_recall(rng: random.Random, max_asked: int = MAX_NAMED, backwards: float = 0.5) -> Lesson:
    """State names with a place or a number each, then the one for the other.

    Args:
        rng: draws the lesson.
        max_asked: how many are asked for at most, each once.
        backwards: share of those that ask for the name.
    """
    names = rng.sample(NAMES, rng.randint(2, MAX_NAMED))
    if rng.random() < 0.6:
        # The place follows its name at once: with a word between them, it was not learned.
        between, values = " ", list(map(place, rng.sample(CELLS, len(names))))
    else:
        between, values = ": ", list(map(str, draw_areas(rng, len(names))))
    pairs = list(zip(names, values, strict=True))
    listed = ", ".join(f"{name}{between}{value}" for name, value in pairs)
    parts: Lesson = [(f"Given {listed}", False)]
    for name, value in rng.sample(pairs, min(len(pairs), max_asked)):
        asked, answer = (value, name) if rng.random() < backwards else (name, value)
        parts += [(f", {asked}{between}", False), (answer, True)]
    return [*parts, (".", False)]


def build_placed(rng: random.Random) -> Lesson:
    """State the places of two to four names, the row or the column of each, and the extreme."""
    names = rng.sample(NAMES, rng.randint(2, MAX_NAMED))
    word = rng.choice(list(SIDE_WORDS))
    axis, sign = DIRECTIONS[SIDE_WORDS[word]]
    across = rng.sample(range(GRID), len(names))
    along = rng.choices(range(GRID), k=len(names))
    cells = list(zip(along, across, strict=True) if axis == 0 else zip(across, along, strict=True))
    given = " ".join(
        f"The {name} is in {place(cell)}." for name, cell in zip(names, cells, strict=True)
    )
    order = rng.sample(range(len(names)), len(names))
    names, values = [names[i] for i in order], [across[i] + 1 for i in order]
    answer = names[values.index(min(values) if sign > 0 else max(values))]
    concluded = conclude_extreme(AXES[axis], names, values, word, answer)
    return [(f"{given} ", False), *decide(concluded, *map(str, values), answer)]


def build_copy(rng: random.Random) -> Lesson:
    """State one to three texts as results of READ_TEXT, then what they say."""
    texts = [random_text(rng, (0, 0)).text for _ in range(rng.randint(1, MAX_TEXTS))]
    results = "\n".join(json.dumps({"text": text}) for text in texts)
    said = " ".join(texts)
    return [(f'{results}\nIt says "', False), (said, True), ('".\n<answer>', False), (said, True)]


def build_found(rng: random.Random) -> Lesson:
    """State a list of things in reading order with the count of one class so far, then recall."""
    cells = sorted(rng.sample(CELLS, rng.randint(1, MAX_FOUND)))
    colour, shape = rng.choice(list(PALETTE)), rng.choice(SHAPES)
    by_colour = rng.random() < 0.5
    asked = f"{colour} objects" if by_colour else plural(shape)
    rate = rng.random()
    items, counted = [], []
    for index, cell in enumerate(cells):
        name = rng.choice(NAMES)
        if rng.random() < rate:
            name = (
                f"{colour} {rng.choice(SHAPES)}"
                if by_colour
                else f"{rng.choice(list(PALETTE))} {shape}"
            )
        if (colour if by_colour else shape) in name.split():
            counted.append(index)
        items.append((place(cell), name))
    listed = re.split(VERDICTS, f"The {asked}: {list_found(items, counted)}")
    parts = [(text, bool(number % 2)) for number, text in enumerate(listed)]
    for number, index in enumerate(counted, 1):
        where, name = items[index]
        parts += [
            (f" Number {number}: ", False),
            (name, True),
            (", ", False),
            (where, True),
            (".", False),
        ]
    return parts


def build_path(rng: random.Random) -> Lesson:
    """State the places of the first and the last of the boxes that a tracker found."""
    cells = [rng.choice(CELLS) for _ in range(rng.choice(FRAMES))]
    boxes = []
    for cell in cells:
        x1, y1, x2, y2 = location_of(cell).box
        x, y = (rng.choice((*[0] * 8, -JITTER, JITTER)) for _ in range(2))
        side = GRID * CELL
        boxes.append([max(0, x1 + x), max(0, y1 + y), min(side, x2 + x), min(side, y2 + y)])
    first, last = place(cells[0]), place(cells[-1])
    return decide(f"{json.dumps({'boxes': boxes})}\n{describe_path(first, last)}.", first, last)


def build_beside(rng: random.Random) -> Lesson:
    """State the place beside a place."""
    while True:
        relation, (down, right) = rng.choice(list(RELATIONS.items()))
        row, column = rng.choice(CELLS)
        if (cell := (row + down, column + right)) in CELLS:
            beside = place(cell)
            return decide(f"The object {relation} {place((row, column))} is in {beside}.", beside)


def build_heading(rng: random.Random) -> Lesson:
    """State the direction from one place to another in the same row or column."""
    first = rng.choice(CELLS)
    last = rng.choice([cell for cell in CELLS if cell[0] == first[0] or cell[1] == first[1]])
    answer = heading(location_of(first).box, location_of(last).box, CELL / 2)
    return decide(conclude_heading(place(first), place(last), answer), answer)


def build_mover(rng: random.Random) -> Lesson:
    """State which of two or three names has another place at the end."""
    names = rng.sample(NAMES, rng.randint(2, 3))
    firsts = rng.sample(CELLS, len(names))
    mover = rng.randrange(len(names))
    lasts = list(firsts)
    lasts[mover] = rng.choice([cell for cell in CELLS if cell not in firsts])
    paths = list(zip(map(place, firsts), map(place, lasts), strict=True))
    verdicts = ["stays" if a == b else "moves" for a, b in paths]
    return decide(conclude_mover(names, paths, names[mover]), *verdicts, names[mover])


recall_one = partial(build_recall, max_asked=1)
# A long lesson is drawn less often; comparisons and lists take the most decisions to learn.
LESSONS: dict[Build, int] = {
    build_extreme: 6,
    build_order: 20,
    build_relation: 2,
    partial(build_recall, backwards=0.6): 12,
    build_placed: 4,
    build_copy: 4,
    build_found: 10,
    build_direction: 2,
    build_common: 8,
    build_front: 4,
    build_path: 3,
    build_beside: 2,
    build_heading: 2,
    build_mover: 8,
}
# Lessons in stages, each with how often it is drawn. All at once from the start, none is learned in
# a thousand steps: a comparison of small numbers alone takes 500. The name of a place or a number
# is learned last, in a few hundred steps that mostly ask for it.
STAGES: dict[str, dict[Build, int]] = {
    "comparison": {partial(build_extreme, area_share=0): 1},
    "decision": {kind: share for kind, share in LESSONS.items() if kind is not build_copy},
    "recall": {
        partial(build_recall, backwards=0.9): 8,
        build_copy: 4,
        build_placed: 3,
        build_order: 2,
        build_found: 2,
    },
    "review": LESSONS,
}


def encode_lesson(tokenizer: Any, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Encode a lesson as token ids and labels; IGNORE_INDEX where nothing is decided."""
    text = "".join(part for part, _ in lesson)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    decided, end = set(), 0
    for part, is_decided in lesson:
        decided |= set(range(end + 1, end + len(part) + 1)) if is_decided else set()
        end += len(part)
    ids = encoded["input_ids"]
    ends = [stop for _, stop in encoded["offset_mapping"]]
    labels = [i if stop in decided else IGNORE_INDEX for i, stop in zip(ids, ends, strict=True)]
    return ids, labels


def build_row(
    rng: random.Random, tokenizer: Any, length: int, lessons: Mapping[Build, int]
) -> tuple[list[int], list[int]]:
    """Build a row of lessons, `length` tokens and labels; the last lesson is cut.

    Args:
        rng: draws the lessons.
        tokenizer: the base's tokenizer.
        length: the number of tokens.
        lessons: what is drawn, with its weight.
    """
    ids: list[int] = []
    labels: list[int] = []
    kinds, weights = list(lessons), list(lessons.values())
    while len(ids) < length:
        more, their = encode_lesson(tokenizer, [*rng.choices(kinds, weights)[0](rng), (" ", False)])
        ids += more
        labels += their
    return ids[:length], labels[:length]
