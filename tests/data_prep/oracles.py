"""What the answer of an example about a drawn scene is, by other means than the tasks' own code.

Used are the question's words, the things in provenance, and for what covers what the pixels. Of the
tasks only the phrasings are taken, to tell a question's gaps from its other words.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from pixelis.data_prep.tasks import (
    attribute_recognition,
    geometric_comparison,
    object_counting,
    relationship_detection,
    spatial_reasoning,
    temporal_tracking,
    text_extraction,
)
from pixelis.operations.pixels import PALETTE

CELL = 28
FORMS = {
    "attribute_recognition": {
        "kind": attribute_recognition.BY_KIND,
        "place": attribute_recognition.BY_PLACE,
        "neighbour": attribute_recognition.BY_NEIGHBOUR,
    },
    "object_counting": {"count": object_counting.PHRASINGS},
    "geometric_comparison": {"size": geometric_comparison.PHRASINGS},
    "spatial_reasoning": {
        "extreme": geometric_comparison.PHRASINGS,
        "relation": spatial_reasoning.RELATION,
    },
    "text_extraction": {
        "single": text_extraction.SINGLE,
        "beside": text_extraction.BESIDE,
        "all": text_extraction.ALL,
    },
    "relationship_detection": {
        "direction": relationship_detection.DIRECTION,
        "common": relationship_detection.COMMON,
        "cover": relationship_detection.COVER,
    },
    "temporal_tracking": {
        "place": temporal_tracking.PLACE,
        "heading": temporal_tracking.HEADING,
        "mover": temporal_tracking.MOVER,
    },
}
GAPS = {
    "relation": "left of|right of|above|below",
    "place": r"row \d column \d",
    "asked": "color|shape",
    "names": "the .+",
    "kind": r"\w+(?: objects)?",
    "known": r"\w+",
    "word": r"\w+",
    "anchor": r"\w+ \w+",
    "a": r"\w+ \w+|row \d column \d",
    "b": r"\w+ \w+|row \d column \d",
}
# Rows down and columns right, from the one that the words end with.
STEPS = {"right of": (0, 1), "left of": (0, -1), "below": (1, 0), "above": (-1, 0)}
MIN_RATIO = 1.25


@dataclass(frozen=True)
class Asked:
    """A question that was understood: its words, the things that it is about, and its answer."""

    form: str
    phrasing: str
    gaps: dict
    instances: list
    answer: str


@lru_cache
def _patterns(task):
    def gap(name):
        return f"(?P<{name[1]}>{GAPS[name[1]]})"

    return [
        (form, phrasing, re.compile(re.sub(r"\\\{(\w+)\\\}", gap, re.escape(phrasing))))
        for form, phrasings in FORMS[task].items()
        for phrasing in phrasings
    ]


def asked(example):
    """Understand a question; it must be of one phrasing only."""
    line = example.question.split("\n")[0]
    matches = [
        (form, phrasing, found.groupdict())
        for form, phrasing, pattern in _patterns(example.task)
        if (found := pattern.fullmatch(line))
    ]
    ((form, phrasing, gaps),) = matches
    objects = example.provenance["objects"]
    things, answer = ORACLES[example.task](example, form, gaps, objects)
    return Asked(form, phrasing, gaps, things, answer)


def named(name, objects):
    """The thing of a name; no other must have it."""
    (thing,) = [thing for thing in objects if thing["name"] == name]
    return thing


def listed(names):
    return re.split(", the | or the ", names.removeprefix("the "))


def cell_of(place):
    _, row, _, column = place.split()
    return int(row) - 1, int(column) - 1


def _beside(gaps, objects):
    row, column = named(gaps["anchor"], objects)["cell"]
    down, right = STEPS[gaps["relation"]]
    (thing,) = [thing for thing in objects if thing["cell"] == [row + down, column + right]]
    return thing


def _attribute(example, form, gaps, objects):
    if form == "kind":
        (thing,) = [t for t in objects if t["name"].endswith(f" {gaps['known']}")]
    elif form == "place":
        (thing,) = [t for t in objects if tuple(t["cell"]) == cell_of(gaps["place"])]
    else:
        thing = _beside(gaps, objects)
    colour, shape = thing["name"].split()
    return [thing], shape if gaps.get("asked") == "shape" else colour


def fits(kind, name):
    """Whether a thing is of the kind that a question counts."""
    colour, _, rest = kind.partition(" ")
    if rest == "objects":
        return name.startswith(f"{colour} ")
    return name.endswith(f" {'cross' if kind == 'crosses' else kind.removesuffix('s')}")


def _count(example, form, gaps, objects):
    things = [thing for thing in objects if fits(gaps["kind"], thing["name"])]
    return things, str(len(things))


def _size(example, form, gaps, objects):
    things = [named(name, objects) for name in listed(gaps["names"])]
    by_area = sorted(things, key=lambda t: t["area"], reverse=gaps["word"] == "largest")
    first, second = (thing["area"] for thing in by_area[:2])
    assert max(first, second) >= MIN_RATIO * min(first, second), "no clear margin"
    return things, by_area[0]["name"]


# (row, column) -> a number that is least for the winner, and a before b where the relation holds.
ORDER = {
    "leftmost": lambda cell: cell[1],
    "rightmost": lambda cell: -cell[1],
    "topmost": lambda cell: cell[0],
    "bottommost": lambda cell: -cell[0],
    "left of": lambda cell: cell[1],
    "right of": lambda cell: -cell[1],
    "above": lambda cell: cell[0],
    "below": lambda cell: -cell[0],
}


def _place(example, form, gaps, objects):
    names = [gaps["a"], gaps["b"]] if form == "relation" else listed(gaps["names"])
    things = [named(name, objects) for name in names]
    order = ORDER[gaps["relation"] if form == "relation" else gaps["word"]]
    places = [order(thing["cell"]) for thing in things]
    assert places.count(min(places)) == 1, "no one is furthest"
    if form == "relation":
        return things, "yes" if places[0] < places[1] else "no"
    return things, names[places.index(min(places))]


def _text(example, form, gaps, objects):
    if form == "beside":
        things = [_beside(gaps, objects)]
        assert things[0]["name"] == gaps["word"]
    else:
        things = sorted((t for t in objects if t["name"] == gaps["word"]), key=lambda t: t["cell"])
        assert (len(things) == 1) == (form == "single")
    return things, " ".join(thing["text"] for thing in things)


def middle(thing):
    """Twice the middle of a thing's visible box, x and y."""
    x1, y1, x2, y2 = thing["box"]
    return x1 + x2, y1 + y2


def colour_at(image, x, y):
    """The palette's name of a pixel's very colour, or None."""
    names = {rgb: name for name, rgb in PALETTE.items()}
    return names.get(image.getpixel((x, y)))


def _relationship(example, form, gaps, objects):
    if form == "common":
        first, second = (
            next(t for t in objects if tuple(t["cell"]) == cell_of(gaps[name])) for name in "ab"
        )
        pairs = zip(first["name"].split(), second["name"].split(), ("color", "shape"), strict=True)
        return [first, second], " and ".join(w for p, q, w in pairs if p == q) or "nothing"
    first, second = (named(gaps[name], objects) for name in "ab")
    if form == "cover":
        # Both reach the middle between their cells (a fact of test_scenes): seen is who is in front
        (row, column), (other_row, other_column) = first["cell"], second["cell"]
        assert abs(row - other_row) + abs(column - other_column) == 1, "they do not touch"
        x, y = ((p + q + 1) * CELL // 2 for p, q in ((column, other_column), (row, other_row)))
        seen = colour_at(example.images[0], x, y)
        (front,) = [t for t in (first, second) if t["name"].split()[0] == seen]
        back = second if front is first else first
        assert "occluded" not in front and back["occluded"] > 0
        return [first, second], front["name"]
    (ax, ay), (bx, by) = middle(first), middle(second)
    across, down = ax - bx, ay - by
    assert max(abs(across), abs(down)) >= 2 * min(abs(across), abs(down)), "aslant"
    assert max(abs(across), abs(down)) >= CELL, "too near"
    if abs(across) > abs(down):
        return [first, second], "right of" if across > 0 else "left of"
    return [first, second], "below" if down > 0 else "above"


def _tracking(example, form, gaps, objects):
    if form == "mover":
        things = [named(name, objects) for name in listed(gaps["names"])]
        (mover,) = [thing for thing in things if thing["path"][0] != thing["path"][-1]]
        return things, mover["name"]
    thing = named(gaps["a"], objects)
    if form == "place":
        return [thing], thing["path"][-1]
    (row, column), (last_row, last_column) = cell_of(thing["path"][0]), cell_of(thing["path"][-1])
    assert row == last_row or column == last_column, "aslant"
    ways = {
        "left": last_column < column,
        "right": last_column > column,
        "up": last_row < row,
        "down": last_row > row,
    }
    return [thing], next((way for way, gone in ways.items() if gone), "not at all")


ORACLES = {
    "attribute_recognition": _attribute,
    "object_counting": _count,
    "geometric_comparison": _size,
    "spatial_reasoning": _place,
    "text_extraction": _text,
    "relationship_detection": _relationship,
    "temporal_tracking": _tracking,
}
