"""Which object is larger or smaller: every named object is segmented, and the areas decide."""

import random
from functools import partial

from pixelis.data.scenes import CELLS, Item, draw_items, random_item
from pixelis.data.tasks.draft import Draft, Results, fill_scene, located, name_list, segment, weigh

PHRASINGS = (
    "Which is the {word}: {names}?",
    "Which one is the {word}: {names}?",
    "Find the {word} of these: {names}.",
    "Tell me the {word} object: {names}.",
    "What is the {word} one: {names}?",
)
# The winner's size class differs from every other's, so that areas differ by far.
CLASSES = {"largest": ("large", ("small", "medium")), "smallest": ("small", ("medium", "large"))}
# Two shapes of one class can differ in area by more than two classes of different shapes do.
MIN_RATIO = 1.25


def _extreme(results: Results, names: tuple[str, ...], word: str) -> str:
    areas = [result.get("area", 0) for result in results]
    best = max(areas) if word == "largest" else min(areas)
    ordered = sorted(areas, reverse=word == "largest")
    ratio = max(ordered[0], ordered[1]) / max(1, min(ordered[0], ordered[1]))
    return names[areas.index(best)] if ratio >= MIN_RATIO else ""


def _conclude(results: Results, names: tuple[str, ...], word: str) -> str:
    areas = [int(result.get("area", 0)) for result in results]
    return f"{weigh('Area', names, areas)} The {_extreme(results, names, word)} is the {word}."


def build(rng: random.Random) -> Draft:
    """Propose one example with two to four objects to compare."""
    word = rng.choice(list(CLASSES))
    winner_size, other_sizes = CLASSES[word]
    num_named = rng.choice((2, 2, 3, 4))
    cells = rng.sample(CELLS, num_named)
    drawn = draw_items(rng, cells)
    winner = rng.randrange(num_named)
    named: list[Item] = [
        random_item(
            rng,
            item.cell,
            item.colour,
            item.shape,
            winner_size if index == winner else rng.choice(other_sizes),
        )
        for index, item in enumerate(drawn)
    ]
    names = tuple(item.name for item in named)
    return Draft(
        scene=fill_scene(rng, named, num_distractors=rng.randint(0, 5)),
        question=rng.choice(PHRASINGS).format(word=word, names=name_list(named)),
        calls=tuple(segment(item, located(item)) for item in named),
        conclusion=partial(_conclude, names=names, word=word),
        answer=names[winner],
        answer_from=partial(_extreme, names=names, word=word),
        wrong_answers=tuple(name for name in names if name != names[winner]),
    )
