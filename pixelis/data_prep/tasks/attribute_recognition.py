"""Ask for an object's colour or shape: by its kind, by its location, or by its neighbour."""

import random

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance
from pixelis.data_prep.tasks.proposal import (
    PlannedCall,
    Proposal,
    call_on_box,
    others,
    segment,
    zoom_in,
)
from pixelis.operations.pixels import COLOURS, SHAPES

BY_KIND = (
    "What color is the {known}?",
    "Which color does the {known} have?",
    "Name the color of the {known}.",
    "Tell me the color of the {known}.",
    "The {known} is of which color?",
)
BY_PLACE = (
    "What {asked} is the object in {place}?",
    "Which {asked} does the object in {place} have?",
    "Name the {asked} of the object in {place}.",
    "Tell me the {asked} of the object in {place}.",
    "The object in {place} is of which {asked}?",
)
BY_NEIGHBOUR = (
    "What {asked} is the object {relation} the {anchor}?",
    "Which {asked} does the object {relation} the {anchor} have?",
    "Name the {asked} of the object {relation} the {anchor}.",
    "Tell me the {asked} of the object {relation} the {anchor}.",
    "The object {relation} the {anchor} is of which {asked}?",
)
# Rows down and columns right, from the neighbour to the object.
RELATIONS = {"right of": (0, 1), "left of": (0, -1), "below": (1, 0), "above": (-1, 0)}


def neighbours(picture: AnnotatedImage, target: Instance) -> list[tuple[str, Instance]]:
    """Return the unique objects next to an instance, each with the instance's relation to it."""
    if target.cell is None:
        return []
    row, col = target.cell
    unique = picture.unique()
    beside = [
        (relation, picture.at((row - down, col - right)))
        for relation, (down, right) in RELATIONS.items()
    ]
    return [(relation, each) for relation, each in beside if each is not None and each in unique]


def propose(rng: random.Random, picture: AnnotatedImage) -> Proposal | None:
    """Ask in one of three forms of growing length."""
    objects = [instance for instance in picture.objects() if instance.colour]
    if not objects:
        return None
    form = rng.choice(("kind", "place", "neighbour"))
    target = rng.choice(objects)
    has_shape = target.kind in SHAPES
    asked = rng.choice(("color", "shape")) if has_shape and form != "kind" else "color"
    phrasing = rng.randrange(5)
    calls: list[PlannedCall] = []
    where = target.location.name
    if form == "neighbour":
        beside = neighbours(picture, target)
        if not beside:
            return None
        relation, anchor = rng.choice(beside)
        question = BY_NEIGHBOUR[phrasing].format(asked=asked, relation=relation, anchor=anchor.name)
        thought = f"The object {relation} {anchor.location.name} is in {where}."
        calls.append(segment(anchor))
    elif form == "place":
        question = BY_PLACE[phrasing].format(asked=asked, place=where)
        thought = f"Look at {where}."
    else:
        num_of_kind = sum(instance.kind == target.kind for instance in picture.objects())
        if num_of_kind > 1 or target.kind in picture.uncounted:
            return None
        question = BY_KIND[phrasing].format(known=target.kind)
        thought = f"The {target.kind} is in {where}."
    if target.small:
        calls.append(zoom_in(target.location, f"{thought} It is small."))
        thought = "Now its properties."
    calls.append(call_on_box("GET_PROPERTIES", target, thought))
    answer = target.colour if asked == "color" else target.kind
    return Proposal(
        picture=picture,
        question=question,
        calls=tuple(calls),
        conclusion=f"Its {asked} is {answer}.",
        answer=answer,
        answer_from=lambda results: str(results[-1][asked]),
        wrong_answers=others(tuple(COLOURS) if asked == "color" else SHAPES, answer),
    )
