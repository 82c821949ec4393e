"""How many objects of a colour, a shape or a kind there are: found one by one, then counted."""

import random

from pixelis.data.scenes import CELLS, random_item
from pixelis.data.tasks.draft import Draft, Results, fill_scene, segment
from pixelis.operations.pixels import PALETTE, SHAPES

PHRASINGS = (
    "How many {kind} are there?",
    "Count the {kind}.",
    "How many {kind} do you see?",
    "What is the number of {kind}?",
    "Tell me how many {kind} the image shows.",
)
MAX_COUNT = 5


def _count(results: Results) -> str:
    boxes = {tuple(result["bbox"]) for result in results if "bbox" in result}
    return str(len(boxes))


def build(rng: random.Random) -> Draft:
    """Propose one example with 1 to MAX_COUNT objects of the kind, and others beside them."""
    count = rng.randint(1, MAX_COUNT)
    cells = sorted(rng.sample(CELLS, count))
    if rng.random() < 0.5:
        colour = rng.choice(list(PALETTE))
        kind = f"{colour} objects"
        items = [random_item(rng, cell, colour, rng.choice(SHAPES)) for cell in cells]
    else:
        shape = rng.choice(SHAPES)
        kind = f"{shape}s" if shape != "cross" else "crosses"
        items = [random_item(rng, cell, rng.choice(list(PALETTE)), shape) for cell in cells]
    counted = {(item.colour if "objects" in kind else item.shape) for item in items}
    scene = fill_scene(
        rng,
        items,
        num_distractors=rng.randint(0, 6),
        avoid=lambda item: (item.colour if "objects" in kind else item.shape) in counted,
    )
    calls = tuple(
        segment(item, f"Number {number}: {item.name}, {item.place}.")
        for number, item in enumerate(items, 1)
    )
    return Draft(
        scene=scene,
        question=rng.choice(PHRASINGS).format(kind=kind),
        calls=calls,
        conclusion=f"There are no more, so {count}.",
        answer=str(count),
        answer_from=_count,
        wrong_answers=tuple(str(n) for n in (count - 1, count + 1, count + 2)),
    )
