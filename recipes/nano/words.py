"""Lessons of text alone: to repeat, to recall and to compare what was said before.

A trajectory is mostly this: the question's relation is needed again a hundred tokens later, a
result is copied letter by letter, a name is given with its number. Large models bring it along.
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
TO_REPEAT = (2, 7)
PAIRS = (2, 5)
NUMBERS = (2, 4)
TURNS_OF_TEXT = 3


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


WORDS: tuple[Callable[[random.Random], str], ...] = (_name, _place, _text, _number, _relation)


def build_repeat(rng: random.Random) -> Turn:
    """Say a list of names, places, texts, numbers and relations again."""
    words = [rng.choice(WORDS)(rng) for _ in range(rng.randint(*TO_REPEAT))]
    return f"Repeat {', '.join(words)}.", ", ".join(words)


def build_recall(rng: random.Random) -> Turn:
    """Given names with a value each, say the values of some of them, or the names of values."""
    value = rng.choice((_place, _text, _number))
    names = list(dict.fromkeys(_name(rng) for _ in range(rng.randint(*PAIRS))))
    values = list(dict.fromkeys(value(rng) for _ in names))
    pairs = list(zip(names, values, strict=False))
    listed = ", ".join(f"{name}: {said}" for name, said in pairs)
    backwards = rng.random() < 0.5
    rng.shuffle(pairs)
    asked = ", ".join(said if backwards else name for name, said in pairs)
    answer = ", ".join(f"{v}: {n}" if backwards else f"{n}: {v}" for n, v in pairs)
    return f"Given {listed}, match {asked}.", answer


def build_compare(rng: random.Random) -> Turn:
    """Put numbers in order."""
    numbers = list(dict.fromkeys(_number(rng) for _ in range(rng.randint(*NUMBERS))))
    word = rng.choice(("largest", "smallest"))
    ordered = sorted(numbers, key=int, reverse=word == "largest")
    return f"Order {', '.join(numbers)}, the {word} first.", ", ".join(ordered)


def build_turns(rng: random.Random) -> list[Turn]:
    """Some turns of text; the first may be asked for again at the end."""
    kinds = (build_repeat, build_repeat, build_recall, build_recall, build_compare)
    turns = [rng.choice(kinds)(rng) for _ in range(TURNS_OF_TEXT)]
    if rng.random() < 0.5:
        question = turns[0][0]
        turns.append(("What was the first question?", question))
    return turns
