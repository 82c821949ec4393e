"""Where objects are: which one is furthest to a side, and whether one lies beside another."""

import random
from functools import partial

from pixelis.data.scenes import CELLS, draw_items
from pixelis.data.tasks.draft import Draft, Results, fill_scene, located, name_list, segment, weigh

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
MEASURES = ("Column", "Row")  # by axis
RELATIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
# Centres of neighbouring cells are 28 pixels apart; less than half of that is the same line.
MIN_DISTANCE = 14


def _centres(results: Results, axis: int, sign: int) -> list[float]:
    boxes = [result.get("bbox", [0, 0, 0, 0]) for result in results]
    return [sign * (box[axis] + box[axis + 2]) / 2 for box in boxes]


def _extreme(results: Results, names: tuple[str, ...], word: str) -> str:
    centres = _centres(results, *WORDS[word])
    first, second = sorted(centres)[:2]
    return names[centres.index(first)] if second - first >= MIN_DISTANCE else ""


def _related(results: Results, relation: str) -> str:
    a, b = _centres(results, *RELATIONS[relation])
    return ("yes" if a < b else "no") if abs(a - b) >= MIN_DISTANCE else ""


def build(rng: random.Random) -> Draft:
    """Propose one example: a relation of two objects, or the furthest of two to four."""
    related = rng.random() < 0.4
    named = draw_items(rng, rng.sample(CELLS, 2 if related else rng.choice((2, 3, 4))))
    names = tuple(item.name for item in named)
    if related:
        relation = rng.choice(list(RELATIONS))
        axis, sign = RELATIONS[relation]
        a, b = (sign * item.cell[1 - axis] for item in named)
        answer = "yes" if a < b else "no"
        question = rng.choice(RELATION).format(a=names[0], b=names[1], relation=relation)
        conclusion = f"It is {'' if answer == 'yes' else 'not '}{relation} it."
        answer_from = partial(_related, relation=relation)
        wrong: tuple[str, ...] = ("no" if answer == "yes" else "yes",)
    else:
        word = rng.choice(list(WORDS))
        axis, sign = WORDS[word]
        places = [sign * item.cell[1 - axis] for item in named]
        answer = names[places.index(min(places))]
        question = rng.choice(EXTREME).format(word=word, names=name_list(named))
        conclusion = f"The {answer} is the {word}."
        answer_from = partial(_extreme, names=names, word=word)
        wrong = tuple(name for name in names if name != answer)
    weighed = weigh(MEASURES[axis], names, [item.cell[1 - axis] + 1 for item in named])
    return Draft(
        scene=fill_scene(rng, named, num_distractors=rng.randint(0, 5)),
        question=question,
        calls=tuple(segment(item, located(item)) for item in named),
        conclusion=f"{weighed} {conclusion}",
        answer=answer,
        answer_from=answer_from,
        wrong_answers=wrong,
    )
