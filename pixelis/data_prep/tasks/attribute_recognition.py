"""What colour or shape is the object: named directly, small, or only by its neighbour."""

import random
from functools import partial

from pixelis.data_prep.picture import Picture, Thing
from pixelis.data_prep.tasks.draft import Call, Draft, Findings, located, outline, properties, zoom
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
RELATIONS = {"right of": (0, 1), "left of": (0, -1), "below": (1, 0), "above": (-1, 0)}


def neighbours(picture: Picture, target: Thing) -> list[tuple[str, Thing]]:
    """Objects beside a thing on the grid, each with the relation of the thing to it."""
    if target.cell is None:
        return []
    row, col = target.cell
    unique = picture.unique()
    beside = [
        (relation, picture.at((row - down, col - right)))
        for relation, (down, right) in RELATIONS.items()
    ]
    return [
        (relation, thing) for relation, thing in beside if thing is not None and thing in unique
    ]


def _last(findings: Findings, asked: str) -> str:
    return str(findings[-1].get(asked, ""))


def _draft(
    picture: Picture, target: Thing, asked: str, question: str, calls: list[Call], thought: str
) -> Draft:
    if target.small:
        calls.append(zoom(target.spot, f"{thought} It is small."))
        thought = "Now its properties."
    calls.append(properties(target, thought))
    answer = target.colour if asked == "color" else target.kind
    # What the picture shows elsewhere misleads more than what it does not show.
    choices = COLOURS if asked == "color" else SHAPES
    return Draft(
        picture=picture,
        question=question,
        calls=tuple(calls),
        conclusion=f"Its {asked} is {answer}.",
        answer=answer,
        answer_from=partial(_last, asked=asked),
        wrong_answers=tuple(choice for choice in choices if choice != answer),
    )


def build(rng: random.Random, picture: Picture) -> Draft | None:
    """Ask in one of three forms of growing length."""
    objects = [thing for thing in picture.objects() if thing.colour]
    if not objects:
        return None
    form = rng.choice(("kind", "place", "neighbour"))
    target = rng.choice(objects)
    has_shape = target.kind in SHAPES
    asked = rng.choice(("color", "shape")) if has_shape and form != "kind" else "color"
    phrasing = rng.randrange(5)
    if form == "neighbour":
        beside = neighbours(picture, target)
        if not beside:
            return None
        relation, anchor = rng.choice(beside)
        question = BY_NEIGHBOUR[phrasing].format(asked=asked, relation=relation, anchor=anchor.name)
        thought = f"The object {relation} it is in {target.spot.place}."
        calls = [outline(anchor, located(anchor))]
        return _draft(picture, target, asked, question, calls, thought)
    if form == "place":
        question = BY_PLACE[phrasing].format(asked=asked, place=target.spot.place)
        return _draft(picture, target, asked, question, [], f"Look at {target.spot.place}.")
    if sum(thing.kind == target.kind for thing in picture.objects()) > 1:
        return None
    if target.kind in picture.uncounted:
        return None
    question = BY_KIND[phrasing].format(known=target.kind)
    return _draft(
        picture, target, asked, question, [], f"The {target.kind} is in {target.spot.place}."
    )
