"""Which object is larger or smaller: every named object is measured, and the areas decide."""

import random
from functools import partial

from pixelis.data_prep.picture import Picture
from pixelis.data_prep.tasks.draft import (
    Draft,
    Findings,
    found_area,
    located,
    name_list,
    outline,
    weigh,
)

PHRASINGS = (
    "Which is the {word}: {names}?",
    "Which one is the {word}: {names}?",
    "Find the {word} of these: {names}.",
    "Tell me the {word} object: {names}.",
    "What is the {word} one: {names}?",
)
WORDS = ("largest", "smallest")
# Areas nearer than this to each other are not told apart.
MIN_RATIO = 1.25


def extreme(areas: list[int], names: tuple[str, ...], word: str) -> str:
    """The name whose area is the extreme by MIN_RATIO; empty where none is."""
    ordered = sorted(areas, reverse=word == "largest")
    ratio = max(ordered[0], ordered[1]) / max(1, min(ordered[0], ordered[1]))
    return names[areas.index(ordered[0])] if ratio >= MIN_RATIO else ""


def _extreme(findings: Findings, names: tuple[str, ...], word: str) -> str:
    return extreme([found_area(finding) for finding in findings], names, word)


def _conclude(findings: Findings, names: tuple[str, ...], word: str) -> str:
    areas = [found_area(finding) for finding in findings]
    measure = "Area" if all("area" in finding for finding in findings) else "Box area"
    return f"{weigh(measure, names, areas)} The {extreme(areas, names, word)} is the {word}."


def build(rng: random.Random, picture: Picture) -> Draft | None:
    """Ask for the extreme of two to four objects."""
    word = rng.choice(WORDS)
    unique = picture.unique()
    num_named = rng.choice((2, 2, 3, 4))
    if len(unique) < num_named:
        return None
    named = rng.sample(unique, num_named)
    names = tuple(thing.name for thing in named)
    winner = extreme([thing.area for thing in named], names, word)
    # What another thing covers in part is not smaller for it: both ways of asking have to agree.
    whole = extreme([round(thing.area / (1 - thing.occluded)) for thing in named], names, word)
    if not winner or whole != winner:
        return None
    return Draft(
        picture=picture,
        question=rng.choice(PHRASINGS).format(word=word, names=name_list(named)),
        calls=tuple(outline(thing, located(thing)) for thing in named),
        conclusion=partial(_conclude, names=names, word=word),
        answer=winner,
        answer_from=partial(_extreme, names=names, word=word),
        wrong_answers=tuple(name for name in names if name != winner),
    )
