"""Ask how two objects are related: their direction, their common properties, or which is on top."""

import random

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance
from pixelis.data_prep.tasks.proposal import (
    PlannedCall,
    Proposal,
    Results,
    box_centre,
    get_properties,
    list_values,
    others,
    result_box,
    segment,
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
# By axis and by whether the first object's centre has the smaller coordinate.
DIRECTIONS = {(0, True): "left of", (0, False): "right of", (1, True): "above", (1, False): "below"}
SHARED = ("color", "shape", "nothing")
# Most pairs of random objects share nothing: this share of such questions is dropped.
SKIPPED_NOTHINGS = 0.7
# A direction is named where the centres differ along one axis by this many times the other.
DOMINANCE = 2.0


def direction(dx: float, dy: float, min_distance: float) -> str:
    """Return where a point lies from another, (dx, dy) pixels away; empty if no axis dominates."""
    axis = 0 if abs(dx) >= abs(dy) else 1
    along, across = (dx, dy) if axis == 0 else (dy, dx)
    if abs(along) < max(min_distance, DOMINANCE * abs(across)):
        return ""
    return DIRECTIONS[axis, along < 0]


def _propose_direction(
    rng: random.Random, picture: AnnotatedImage, a: Instance, b: Instance
) -> Proposal | None:
    dx, dy = (
        (a.extent[i] + a.extent[i + 2]) / 2 - (b.extent[i] + b.extent[i + 2]) / 2 for i in (0, 1)
    )
    answer = direction(dx, dy, picture.min_distance)
    if not answer:
        return None
    axis = 0 if answer in ("left of", "right of") else 1
    values = list_values(picture.axes[axis], (a.name, b.name), (a.position[axis], b.position[axis]))

    def measured(results: Results) -> str:
        (ax, bx), (ay, by) = ([box_centre(result, i) for result in results[:2]] for i in (0, 1))
        if ax is None or bx is None or ay is None or by is None:
            return ""
        return direction(ax - bx, ay - by, picture.min_distance)

    return Proposal(
        picture=picture,
        question=rng.choice(DIRECTION).format(a=a.name, b=b.name),
        calls=(segment(a), segment(b)),
        conclusion=f"{values} The {a.name} is {answer} the {b.name}.",
        answer=answer,
        answer_from=measured,
        wrong_answers=others(tuple(DIRECTIONS.values()), answer),
    )


def _propose_shared(
    rng: random.Random, picture: AnnotatedImage, a: Instance, b: Instance
) -> Proposal | None:
    if not all(instance.colour and instance.kind in SHAPES for instance in (a, b)):
        return None
    same = [
        word
        for word, equal in (("color", a.colour == b.colour), ("shape", a.kind == b.kind))
        if equal
    ]
    answer = " and ".join(same) or "nothing"
    if answer == "nothing" and rng.random() < SKIPPED_NOTHINGS:
        return None
    names = (a.name, b.name)

    def measured(results: Results) -> str:
        # No answer follows if an object was not recognised.
        if len(results) < 2 or any("color" not in result for result in results):
            return ""
        first, second = results[-2:]
        if names != (f"{first['color']} {first['shape']}", f"{second['color']} {second['shape']}"):
            return ""
        same = [word for word in ("color", "shape") if first[word] == second[word]]
        return " and ".join(same) or "nothing"

    def conclude(results: Results) -> str:
        shared = measured(results)
        verdict = "Nothing is the same." if shared == "nothing" else f"The {shared} is the same."
        return f"Found: {', '.join(names)}. {verdict}"

    return Proposal(
        picture=picture,
        question=rng.choice(COMMON).format(a=a.name, b=b.name),
        calls=(get_properties(a), get_properties(b)),
        conclusion=conclude,
        answer=answer,
        answer_from=measured,
        wrong_answers=others(SHARED, answer),
    )


def _propose_occlusion(rng: random.Random, picture: AnnotatedImage) -> Proposal:
    occlusion = rng.choice(picture.occlusions)
    pair = [occlusion.front, occlusion.back]
    rng.shuffle(pair)
    a, b = pair
    x, y = occlusion.location.point
    meeting = PlannedCall(
        "Now where they meet.", "SEGMENT_OBJECT_AT", {"x": x, "y": y}, occlusion.location
    )

    def measured(results: Results) -> str:
        """Return the object whose box is also found at the point where the two meet."""
        boxes = [result_box(result) for result in results]
        if len(boxes) < 3 or None in boxes:
            return ""
        first, second, met = boxes[-3:]
        return a.name if met == first else b.name if met == second else ""

    return Proposal(
        picture=picture,
        question=rng.choice(COVER).format(a=a.name, b=b.name),
        calls=(segment(a), segment(b), meeting),
        conclusion=f"It is the {occlusion.front.name} that is found there, so it is in front.",
        answer=occlusion.front.name,
        answer_from=measured,
        wrong_answers=(occlusion.back.name,),
    )


def propose(rng: random.Random, picture: AnnotatedImage) -> Proposal | None:
    """Ask in one of three forms."""
    form = rng.choice(("direction", "common", "cover"))
    if form == "cover":
        return _propose_occlusion(rng, picture) if picture.occlusions else None
    unique = picture.unique()
    if len(unique) < 2:
        return None
    a, b = rng.sample(unique, 2)
    if form == "direction":
        return _propose_direction(rng, picture, a, b)
    return _propose_shared(rng, picture, a, b)
