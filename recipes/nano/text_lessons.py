"""Conversations without looking at the image: repeat and recall earlier text.

A trajectory needs these skills: a relation in the question is used a hundred tokens later, a result
is copied letter by letter, a name is given with its number. Large models already have them.
"""

import random
from collections.abc import Callable

from pixelis.data_prep.scenes import CELLS, Item, random_text
from pixelis.operations.pixels import PALETTE, SHAPES

Turn = tuple[str, str]

RELATIONS = (
    *("left of", "right of", "above", "below"),
    *("leftmost", "rightmost", "topmost", "bottommost", "largest", "smallest"),
)
NUM_REPEATED = (2, 7)  # smallest and largest number
NUM_PAIRS = (2, 5)
NUM_TURNS = 3


def _name(rng: random.Random) -> str:
    return f"{rng.choice(list(PALETTE))} {rng.choice(SHAPES)}"


def _place(rng: random.Random) -> str:
    return Item(rng.choice(CELLS)).place


def _text(rng: random.Random) -> str:
    return random_text(rng, (0, 0)).text


def _number(rng: random.Random) -> str:
    return str(rng.randint(1, 9) if rng.random() < 0.4 else rng.randint(10, 600))


def _relation(rng: random.Random) -> str:
    return rng.choice(RELATIONS)


PHRASES: tuple[Callable[[random.Random], str], ...] = (_name, _place, _text, _number, _relation)


def build_repeat(rng: random.Random) -> Turn:
    """Ask to repeat a list of names, places, texts, numbers and relations."""
    phrases = [rng.choice(PHRASES)(rng) for _ in range(rng.randint(*NUM_REPEATED))]
    return f"Repeat {', '.join(phrases)}.", ", ".join(phrases)


def build_recall(rng: random.Random) -> Turn:
    """Give names with a value each, and ask for the values of names or the names of values."""
    draw_value = rng.choice((_place, _text, _number))
    names = list(dict.fromkeys(_name(rng) for _ in range(rng.randint(*NUM_PAIRS))))
    values = list(dict.fromkeys(draw_value(rng) for _ in names))
    pairs = list(zip(names, values, strict=False))
    listed = ", ".join(f"{name}: {value}" for name, value in pairs)
    backwards = rng.random() < 0.5
    rng.shuffle(pairs)
    asked = ", ".join(v if backwards else n for n, v in pairs)
    answer = ", ".join(f"{v}: {n}" if backwards else f"{n}: {v}" for n, v in pairs)
    return f"Given {listed}, match {asked}.", answer


def build_turns(rng: random.Random) -> list[Turn]:
    """Build some turns; the last may ask for the first question again."""
    kinds = (build_repeat, build_repeat, build_recall, build_recall)
    turns = [rng.choice(kinds)(rng) for _ in range(NUM_TURNS)]
    if rng.random() < 0.5:
        question = turns[0][0]
        turns.append(("What was the first question?", question))
    return turns
