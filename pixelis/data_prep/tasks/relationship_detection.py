"""How two objects are related: by direction, by what they share, and by which covers which."""

import random
from functools import partial

from pixelis.data_prep.picture import Picture, Thing
from pixelis.data_prep.tasks.draft import (
    Call,
    Draft,
    Findings,
    centre,
    found_box,
    located,
    outline,
    properties,
    weigh,
)
from pixelis.operations.pixels import SHAPES

DIRECTION = (
    "Where is the {a} relative to the {b}?",
    "How does the {a} lie to the {b}?",
    "In which direction from the {b} is the {a}?",
    "What is the position of the {a} relative to the {b}?",
    "Tell me how the {a} is placed relative to the {b}.",
)
COMMON = (
    "What do the {a} and the {b} have in common?",
    "What do the {a} and the {b} share?",
    "In what are the {a} and the {b} alike?",
    "Which property is the same for the {a} and the {b}?",
    "Tell me what the {a} has in common with the {b}.",
)
COVER = (
    "Which is in front: the {a} or the {b}?",
    "Which one covers the other: the {a} or the {b}?",
    "Of the {a} and the {b}, which is in front?",
    "Tell me which is in front, the {a} or the {b}.",
    "What is in front: the {a} or the {b}?",
)
# By axis and by whether the first one's centre is the lesser.
DIRECTIONS = {(0, True): "left of", (0, False): "right of", (1, True): "above", (1, False): "below"}
SHARED = ("color", "shape", "nothing")
# Of two objects at random, most share nothing.
SKIPPED_NOTHINGS = 0.7
# A direction is named where the centres differ along one axis by so much more than the other.
DOMINANCE = 2.0


def direction(dx: float, dy: float, min_distance: float) -> str:
    """How a point lies to another, dx and dy pixels from it; empty where no axis dominates."""
    axis = 0 if abs(dx) >= abs(dy) else 1
    along, across = (dx, dy) if axis == 0 else (dy, dx)
    if abs(along) < max(min_distance, DOMINANCE * abs(across)):
        return ""
    return DIRECTIONS[axis, along < 0]


def _found_direction(findings: Findings, min_distance: float) -> str:
    x = [centre(finding, 0) for finding in findings]
    y = [centre(finding, 1) for finding in findings]
    if x[0] is None or x[1] is None or y[0] is None or y[1] is None:
        return ""
    return direction(x[0] - x[1], y[0] - y[1], min_distance)


def _about_direction(rng: random.Random, picture: Picture, a: Thing, b: Thing) -> Draft | None:
    ax, ay = ((thing.extent[i] + thing.extent[i + 2]) / 2 for thing in (a,) for i in (0, 1))
    bx, by = ((thing.extent[i] + thing.extent[i + 2]) / 2 for thing in (b,) for i in (0, 1))
    answer = direction(ax - bx, ay - by, picture.min_distance)
    if not answer:
        return None
    axis = 0 if answer in ("left of", "right of") else 1
    weighed = weigh(picture.axes[axis], (a.name, b.name), (a.position[axis], b.position[axis]))
    return Draft(
        picture=picture,
        question=rng.choice(DIRECTION).format(a=a.name, b=b.name),
        calls=tuple(outline(thing, located(thing)) for thing in (a, b)),
        conclusion=f"{weighed} The {a.name} is {answer} the {b.name}.",
        answer=answer,
        answer_from=partial(_found_direction, min_distance=picture.min_distance),
        wrong_answers=tuple(word for word in DIRECTIONS.values() if word != answer),
    )


def _shared(findings: Findings, names: tuple[str, str]) -> str:
    """What is the same of the two; nothing follows where one was not found to be what it is."""
    if len(findings) < 2 or any("color" not in finding for finding in findings):
        return ""
    first, second = findings[-2:]
    if names != (f"{first['color']} {first['shape']}", f"{second['color']} {second['shape']}"):
        return ""
    same = [word for word in ("color", "shape") if first[word] == second[word]]
    return " and ".join(same) or "nothing"


def _conclude_shared(findings: Findings, names: tuple[str, str]) -> str:
    shared = _shared(findings, names)
    said = "Nothing is the same." if shared == "nothing" else f"The {shared} is the same."
    return f"Found: {', '.join(names)}. {said}"


def _about_common(rng: random.Random, picture: Picture, a: Thing, b: Thing) -> Draft | None:
    if not all(thing.colour and thing.kind in SHAPES for thing in (a, b)):
        return None
    same = [
        word
        for word, shared in (("color", a.colour == b.colour), ("shape", a.kind == b.kind))
        if shared
    ]
    answer = " and ".join(same) or "nothing"
    if answer == "nothing" and rng.random() < SKIPPED_NOTHINGS:
        return None
    return Draft(
        picture=picture,
        question=rng.choice(COMMON).format(a=a.name, b=b.name),
        calls=tuple(properties(thing, located(thing)) for thing in (a, b)),
        conclusion=partial(_conclude_shared, names=(a.name, b.name)),
        answer=answer,
        answer_from=partial(_shared, names=(a.name, b.name)),
        wrong_answers=tuple(word for word in SHARED if word != answer),
    )


def _in_front(findings: Findings, names: tuple[str, str]) -> str:
    """Whose box is found again at the point where the two meet."""
    boxes = [found_box(finding) for finding in findings]
    if len(boxes) < 3 or None in boxes:
        return ""
    first, second, meeting = boxes[-3:]
    return names[0] if meeting == first else names[1] if meeting == second else ""


def _about_cover(rng: random.Random, picture: Picture) -> Draft:
    contact = rng.choice(picture.contacts)
    pair = [contact.front, contact.back]
    rng.shuffle(pair)
    a, b = pair
    x, y = contact.spot.point
    calls = [outline(thing, located(thing)) for thing in pair]
    arguments = {"x": x, "y": y}
    calls.append(Call("Now where they meet.", "SEGMENT_OBJECT_AT", arguments, contact.spot))
    names = (a.name, b.name)
    return Draft(
        picture=picture,
        question=rng.choice(COVER).format(a=a.name, b=b.name),
        calls=tuple(calls),
        conclusion=f"It is the {contact.front.name} that is found there, so it is in front.",
        answer=contact.front.name,
        answer_from=partial(_in_front, names=names),
        wrong_answers=(contact.back.name,),
    )


def build(rng: random.Random, picture: Picture) -> Draft | None:
    """Ask in one of three forms."""
    form = rng.choice(("direction", "common", "cover"))
    if form == "cover":
        return _about_cover(rng, picture) if picture.contacts else None
    unique = picture.unique()
    if len(unique) < 2:
        return None
    a, b = rng.sample(unique, 2)
    if form == "direction":
        return _about_direction(rng, picture, a, b)
    return _about_common(rng, picture, a, b)
