"""Texts that state a comparison, a list or a path, and with it an answer.

The tasks conclude in them, and the recipe of the embedded base teaches in exactly these words
(`recipes.nano.decisions`).
"""

from collections.abc import Collection, Sequence


def list_values(names: Sequence[str], values: Sequence[object]) -> str:
    """Write values of names: `red circle: 361, blue cross: 208`."""
    return ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))


def conclude_extreme(
    measure: str, names: Sequence[str], values: Sequence[int], word: str, answer: str
) -> str:
    """Write `The largest by area, red circle: 361, blue cross: 208, is the red circle.`."""
    return f"The {word} by {measure}, {list_values(names, values)}, is the {answer}."


def conclude_relation(
    measure: str, names: Sequence[str], values: Sequence[int], word: str, answer: str
) -> str:
    """Write `The topmost by row, red circle: 2, blue cross: 3, is the red circle, so yes.`.

    The answer is to the question whether the first name lies to the side that `word` names.
    """
    extreme = names[0] if answer == "yes" else names[1]
    return f"{conclude_extreme(measure, names, values, word, extreme)[:-1]}, so {answer}."


def conclude_direction(names: Sequence[str], places: Sequence[str], answer: str) -> str:
    """Write `The red circle in row 2 column 1, the blue cross in row 2 column 3, so left of.`."""
    listed = ", ".join(f"the {name} in {place}" for name, place in zip(names, places, strict=True))
    return f"{listed[0].upper()}{listed[1:]}, so {answer}."


def conclude_common(found: Sequence[tuple[str, str]], shared: str) -> str:
    """Write `Colors red and blue: different, shapes circle and circle: same, so shape.`.

    `found` has the colour and the shape of each of the two objects.
    """
    pairs = zip(("Colors", "shapes"), zip(*found, strict=True), strict=True)
    listed = ", ".join(
        f"{kind} {a} and {b}: {'same' if a == b else 'different'}" for kind, (a, b) in pairs
    )
    return f"{listed}, so {shared}."


def conclude_front(names: Sequence[str], areas: Sequence[int], met: int, answer: str) -> str:
    """Write `By area, red circle: 361, blue cross: 208, there: 208, in front is the blue cross.`.

    `met` is the area of what was found where the two meet.
    """
    return f"By area, {list_values(names, areas)}, there: {met}, in front is the {answer}."


def describe_path(first: str, last: str) -> str:
    """Write `From row 2 column 1 to row 2 column 3`."""
    return f"From {first} to {last}"


def conclude_heading(first: str, last: str, answer: str) -> str:
    """Write `From row 2 column 1 to row 2 column 3, so it moves: right.`."""
    return f"{describe_path(first, last)}, so it moves: {answer}."


def conclude_mover(names: Sequence[str], paths: Sequence[tuple[str, str]], answer: str) -> str:
    """Write for each `the red circle from row 1 column 1 to row 1 column 2 moves`; then the answer.

    Args:
        names: the names of the objects.
        paths: the first and the last place of each.
        answer: the name of the one that moves.
    """
    listed = ", ".join(
        f"the {name} from {first} to {last} {'stays' if first == last else 'moves'}"
        for name, (first, last) in zip(names, paths, strict=True)
    )
    return f"{listed[0].upper()}{listed[1:]}, so the {answer}."


def list_found(items: Sequence[tuple[str, str]], counted: Collection[int]) -> str:
    """Write what is found in reading order, with the count so far, and end with the count.

    Such as `row 1 column 2 red circle yes 1, row 2 column 4 blue cross no 1, no more: 1.`.

    Args:
        items: the place and the name of each, in reading order.
        counted: the indices of those that count.
    """
    parts, count = [], 0
    for index, (place, name) in enumerate(items):
        count += index in counted
        parts.append(f"{place} {name} {'yes' if index in counted else 'no'} {count}")
    return f"{', '.join([*parts, 'no more'])}: {count}."
