"""What colour or shape is the object: named directly, small, or only by its neighbour."""

import random
from functools import partial

from pixelis.data.scenes import CELLS, GRID, Item, draw_items, random_item
from pixelis.data.tasks.draft import (
    Call,
    Draft,
    Results,
    fill_scene,
    located,
    properties,
    segment,
    zoom,
)
from pixelis.operations.pixels import PALETTE, SHAPES

BY_SHAPE = (
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


def _last(results: Results, asked: str) -> str:
    return str(results[-1].get(asked, ""))


def _finish(item: Item, calls: list[Call], thought: str) -> tuple[Call, ...]:
    if item.size == "small":
        calls.append(zoom(item, f"{thought} It is small."))
        thought = "Now its properties."
    calls.append(properties(item, thought))
    return tuple(calls)


def build(rng: random.Random) -> Draft:
    """Propose one example, in one of three forms of growing length."""
    form = rng.choice(("shape", "place", "neighbour"))
    asked = "color" if form == "shape" else rng.choice(("color", "shape"))
    phrasing = rng.randrange(5)
    target = random_item(rng, rng.choice(CELLS), rng.choice(list(PALETTE)), rng.choice(SHAPES))
    calls: list[Call] = []
    if form == "neighbour":
        relation, (down, right) = rng.choice(list(RELATIONS.items()))
        row, col = target.cell[0] - down, target.cell[1] - right
        if not (0 <= row < GRID and 0 <= col < GRID):
            return build(rng)
        anchor = draw_items(rng, [(row, col)], avoid=[target.name])[0]
        scene = fill_scene(rng, [target, anchor], num_distractors=rng.randint(0, 6))
        question = BY_NEIGHBOUR[phrasing].format(asked=asked, relation=relation, anchor=anchor.name)
        calls.append(segment(anchor, located(anchor)))
        thought = f"The object {relation} it is in {target.place}."
    elif form == "place":
        scene = fill_scene(rng, [target], num_distractors=rng.randint(0, 6))
        question = BY_PLACE[phrasing].format(asked=asked, place=target.place)
        thought = f"Look at {target.place}."
    else:
        scene = fill_scene(
            rng,
            [target],
            num_distractors=rng.randint(0, 5),
            avoid=lambda item: item.shape == target.shape,
        )
        question = BY_SHAPE[phrasing].format(known=target.shape)
        thought = f"The {target.shape} is in {target.place}."
    answer = target.colour if asked == "color" else target.shape
    choices = PALETTE if asked == "color" else SHAPES
    return Draft(
        scene=scene,
        question=question,
        calls=_finish(target, calls, thought),
        conclusion=f"Its {asked} is {answer}.",
        answer=answer,
        answer_from=partial(_last, asked=asked),
        wrong_answers=tuple(choice for choice in choices if choice != answer),
    )
