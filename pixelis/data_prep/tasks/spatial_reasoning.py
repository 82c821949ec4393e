"""Where objects are: which one is furthest to a side, and whether one lies beside another."""

import random
from functools import partial

from pixelis.data_prep.picture import Picture, Thing
from pixelis.data_prep.tasks.draft import (
    Draft,
    Findings,
    centre,
    located,
    name_list,
    outline,
    weigh,
)

EXTREME = (
    "Which is the {word}: {names}?",
    "Which one is the {word}: {names}?",
    "Find the {word} of these: {names}.",
    "Tell me the {word} object: {names}.",
    "What is the {word} one: {names}?",
)
RELATION = (
    "Is the {a} {relation} the {b}?",
    "Does the {a} lie {relation} the {b}?",
    "Is it true that the {a} is {relation} the {b}?",
    "Can the {a} be found {relation} the {b}?",
    "Yes or no: the {a} is {relation} the {b}?",
)
# word -> (axis of the centre: 0 is x, sign that makes the winner the least)
WORDS = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}
RELATIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}


def _centres(findings: Findings, axis: int, sign: int) -> list[float]:
    found = [centre(finding, axis) for finding in findings]
    return [sign * middle for middle in found if middle is not None]


def _extreme(findings: Findings, names: tuple[str, ...], word: str, min_distance: float) -> str:
    centres = _centres(findings, *WORDS[word])
    if len(centres) < len(names):
        return ""
    first, second = sorted(centres)[:2]
    return names[centres.index(first)] if second - first >= min_distance else ""


def _related(findings: Findings, relation: str, min_distance: float) -> str:
    centres = _centres(findings, *RELATIONS[relation])
    if len(centres) < 2 or abs(centres[0] - centres[1]) < min_distance:
        return ""
    return "yes" if centres[0] < centres[1] else "no"


def _about_relation(rng: random.Random, picture: Picture, named: list[Thing]) -> Draft:
    a, b = named
    relation = rng.choice(list(RELATIONS))
    axis, sign = RELATIONS[relation]
    answer = "yes" if sign * a.position[axis] < sign * b.position[axis] else "no"
    weighed = weigh(picture.axes[axis], (a.name, b.name), (a.position[axis], b.position[axis]))
    return Draft(
        picture=picture,
        question=rng.choice(RELATION).format(a=a.name, b=b.name, relation=relation),
        calls=tuple(outline(thing, located(thing)) for thing in named),
        conclusion=f"{weighed} It is {'' if answer == 'yes' else 'not '}{relation} it.",
        answer=answer,
        answer_from=partial(_related, relation=relation, min_distance=picture.min_distance),
        wrong_answers=("no" if answer == "yes" else "yes",),
    )


def build(rng: random.Random, picture: Picture) -> Draft | None:
    """Ask about a relation of two objects, or for the furthest of two to four."""
    related = rng.random() < 0.4
    num_named = 2 if related else rng.choice((2, 3, 4))
    unique = picture.unique()
    if len(unique) < num_named:
        return None
    named = rng.sample(unique, num_named)
    if related:
        return _about_relation(rng, picture, named)
    word = rng.choice(list(WORDS))
    axis, sign = WORDS[word]
    names = tuple(thing.name for thing in named)
    places = [sign * thing.position[axis] for thing in named]
    answer = names[places.index(min(places))]
    weighed = weigh(picture.axes[axis], names, [thing.position[axis] for thing in named])
    return Draft(
        picture=picture,
        question=rng.choice(EXTREME).format(word=word, names=name_list(named)),
        calls=tuple(outline(thing, located(thing)) for thing in named),
        conclusion=f"{weighed} The {answer} is the {word}.",
        answer=answer,
        answer_from=partial(_extreme, names=names, word=word, min_distance=picture.min_distance),
        wrong_answers=tuple(name for name in names if name != answer),
    )
