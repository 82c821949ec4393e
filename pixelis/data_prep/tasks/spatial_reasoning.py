"""Ask where objects are: which is furthest to one side, or the relation of two."""

import random

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance
from pixelis.data_prep.tasks.proposal import (
    Proposal,
    Results,
    box_centre,
    list_names,
    list_values,
    others,
    segment,
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
# word -> (axis of the centre, 0 for x; sign that makes the asked object's value the least)
WORDS = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}
RELATIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}


def _centres(results: Results, axis: int, sign: int) -> list[float]:
    centres = [box_centre(result, axis) for result in results]
    return [sign * centre for centre in centres if centre is not None]


def _propose_relation(
    rng: random.Random, picture: AnnotatedImage, a: Instance, b: Instance
) -> Proposal:
    relation = rng.choice(list(RELATIONS))
    axis, sign = RELATIONS[relation]
    answer = "yes" if sign * a.position[axis] < sign * b.position[axis] else "no"
    values = list_values(picture.axes[axis], (a.name, b.name), (a.position[axis], b.position[axis]))

    def measured(results: Results) -> str:
        centres = _centres(results, axis, sign)
        if len(centres) < 2 or abs(centres[0] - centres[1]) < picture.min_distance:
            return ""
        return "yes" if centres[0] < centres[1] else "no"

    return Proposal(
        picture=picture,
        question=rng.choice(RELATION).format(a=a.name, b=b.name, relation=relation),
        calls=(segment(a), segment(b)),
        conclusion=f"{values} It is {'' if answer == 'yes' else 'not '}{relation} it.",
        answer=answer,
        answer_from=measured,
        wrong_answers=others(("yes", "no"), answer),
    )


def _propose_extreme(
    rng: random.Random, picture: AnnotatedImage, named: list[Instance]
) -> Proposal:
    word = rng.choice(list(WORDS))
    axis, sign = WORDS[word]
    names = [instance.name for instance in named]
    positions = [instance.position[axis] for instance in named]
    signed = [sign * position for position in positions]
    answer = names[signed.index(min(signed))]
    values = list_values(picture.axes[axis], names, positions)

    def measured(results: Results) -> str:
        centres = _centres(results, axis, sign)
        if len(centres) < len(names):
            return ""
        first, second = sorted(centres)[:2]
        return names[centres.index(first)] if second - first >= picture.min_distance else ""

    return Proposal(
        picture=picture,
        question=rng.choice(EXTREME).format(word=word, names=list_names(named)),
        calls=tuple(segment(instance) for instance in named),
        conclusion=f"{values} The {answer} is the {word}.",
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
