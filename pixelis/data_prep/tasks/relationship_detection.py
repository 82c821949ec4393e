"""Ask how two objects are related: their direction, their common properties, or which is on top."""

import random
from collections.abc import Sequence

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance
from pixelis.data_prep.tasks.conclusions import (
    conclude_common,
    conclude_direction,
    conclude_front,
)
from pixelis.data_prep.tasks.proposal import (
    DIRECTIONS,
    PlannedCall,
    Proposal,
    Results,
    call_on_box,
    direction,
    others,
    result_area,
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
    "What do the objects in {a} and {b} have in common?",
    "What do the objects in {a} and {b} share?",
    "In what are the objects in {a} and {b} alike?",
    "Which property is the same for the objects in {a} and {b}?",
    "Tell me what the objects in {a} and {b} have in common.",
)
COVER = (
    "Which is in front: the {a} or the {b}?",
    "Which one covers the other: the {a} or the {b}?",
    "Of the {a} and the {b}, which is in front?",
    "Tell me which is in front, the {a} or the {b}.",
    "What is in front: the {a} or the {b}?",
)
SHARED = ("color", "shape", "nothing")
# Most pairs of random objects share nothing: this share of such questions is dropped.
SKIPPED_NOTHINGS = 0.7


def _propose_direction(
    rng: random.Random, picture: AnnotatedImage, a: Instance, b: Instance
) -> Proposal | None:
    answer = direction(a.extent, b.extent, picture.min_distance)
    if not answer:
        return None
    names, places = (a.name, b.name), (a.location.name, b.location.name)
    return Proposal(
        picture=picture,
        question=rng.choice(DIRECTION).format(a=a.name, b=b.name),
        calls=(segment(a), segment(b)),
        conclusion=conclude_direction(names, places, answer),
        answer=answer,
        answer_from=lambda results: direction(
            results[0]["bbox"], results[1]["bbox"], picture.min_distance
        ),
        wrong_answers=others(tuple(DIRECTIONS), answer),
    )


def name_shared(a: Sequence[str], b: Sequence[str]) -> str:
    """Return which of colour and shape two objects share."""
    same = [word for word, x, y in zip(("color", "shape"), a, b, strict=True) if x == y]
    return " and ".join(same) or "nothing"


def _propose_shared(
    rng: random.Random, picture: AnnotatedImage, a: Instance, b: Instance
) -> Proposal | None:
    if not all(instance.colour and instance.kind in SHAPES for instance in (a, b)):
        return None
    answer = name_shared((a.colour, a.kind), (b.colour, b.kind))
    if answer == "nothing" and rng.random() < SKIPPED_NOTHINGS:
        return None
    names = [a.name, b.name]

    def found(results: Results) -> list[tuple[str, str]]:
        return [(result["color"], result["shape"]) for result in results]

    def measured(results: Results) -> str:
        # No answer follows if an object was not recognised.
        return name_shared(*found(results)) if list(map(" ".join, found(results))) == names else ""

    return Proposal(
        picture=picture,
        # Asked by place: the names would give the answer away.
        question=rng.choice(COMMON).format(a=a.location.name, b=b.location.name),
        calls=tuple(
            call_on_box("GET_PROPERTIES", each, f"Look at {each.location.name}.") for each in (a, b)
        ),
        conclusion=lambda results: conclude_common(found(results), answer),
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

    def areas_of(results: Results) -> list[int]:
        return [result_area(result) for result in results]

    def conclude(results: Results) -> str:
        *areas, met = areas_of(results)
        return conclude_front((a.name, b.name), areas, met, occlusion.front.name)

    def measured(results: Results) -> str:
        """Return the object whose box is also found at the point where the two meet."""
        first, second, met = (result["bbox"] for result in results)
        areas = areas_of(results)
        if areas[0] == areas[1]:  # the conclusion could not tell them apart
            return ""
        return a.name if met == first else b.name if met == second else ""

    return Proposal(
        picture=picture,
        question=rng.choice(COVER).format(a=a.name, b=b.name),
        calls=(segment(a), segment(b), meeting),
        conclusion=conclude,
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
