"""Ask where objects are: which is furthest to one side, or the relation of two."""

import random

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance
from pixelis.data_prep.tasks.conclusions import conclude_extreme, conclude_relation
from pixelis.data_prep.tasks.geometric_comparison import PHRASINGS
from pixelis.data_prep.tasks.proposal import (
    DIRECTIONS,
    Proposal,
    Results,
    box_centre,
    list_names,
    others,
    segment,
)

RELATION = (
    "Is the {a} {relation} the {b}?",
    "Does the {a} lie {relation} the {b}?",
    "Is it true that the {a} is {relation} the {b}?",
    "Can the {a} be found {relation} the {b}?",
    "Yes or no: the {a} is {relation} the {b}?",
)
WORDS = {"leftmost": "left of", "rightmost": "right of", "topmost": "above", "bottommost": "below"}


def _propose_relation(
    rng: random.Random, picture: AnnotatedImage, a: Instance, b: Instance
) -> Proposal:
    word, relation = rng.choice(list(WORDS.items()))
    axis, sign = DIRECTIONS[relation]
    answer = "yes" if sign * a.position[axis] < sign * b.position[axis] else "no"
    names, values = (a.name, b.name), (a.position[axis], b.position[axis])

    def measured(results: Results) -> str:
        first, second = (sign * box_centre(result["bbox"], axis) for result in results)
        if abs(first - second) < picture.min_distance:
            return ""
        return "yes" if first < second else "no"

    return Proposal(
        picture=picture,
        question=rng.choice(RELATION).format(a=a.name, b=b.name, relation=relation),
        calls=(segment(a), segment(b)),
        conclusion=conclude_relation(picture.axes[axis], names, values, word, answer),
        answer=answer,
        answer_from=measured,
        wrong_answers=others(("yes", "no"), answer),
    )


def _propose_extreme(
    rng: random.Random, picture: AnnotatedImage, named: list[Instance]
) -> Proposal:
    word = rng.choice(list(WORDS))
    axis, sign = DIRECTIONS[WORDS[word]]
    names = [instance.name for instance in named]
    answer = min(named, key=lambda each: sign * each.position[axis]).name
    values = [each.position[axis] for each in named]

    def measured(results: Results) -> str:
        centres = [sign * box_centre(result["bbox"], axis) for result in results]
        first, second = sorted(centres)[:2]
        return names[centres.index(first)] if second - first >= picture.min_distance else ""

    return Proposal(
        picture=picture,
        question=rng.choice(PHRASINGS).format(word=word, names=list_names(named)),
        calls=tuple(segment(instance) for instance in named),
        conclusion=conclude_extreme(picture.axes[axis], names, values, word, answer),
        answer=answer,
        answer_from=measured,
        wrong_answers=others(names, answer),
    )


def propose(rng: random.Random, picture: AnnotatedImage) -> Proposal | None:
    """Ask about a relation of two objects, or for the furthest of two to four."""
    relation = rng.random() < 0.4
    num_named = 2 if relation else rng.choice((2, 3, 4))
    unique = picture.unique()
    if len(unique) < num_named:
        return None
    named = rng.sample(unique, num_named)
    if relation:
        return _propose_relation(rng, picture, *named)
    return _propose_extreme(rng, picture, named)
