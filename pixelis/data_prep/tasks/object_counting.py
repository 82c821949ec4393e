"""How many things of a colour or a kind there are: found one by one, then counted."""

import random

from pixelis.data_prep.picture import Picture, Thing, plural
from pixelis.data_prep.tasks.draft import Draft, Findings, found_box, outline

PHRASINGS = (
    "How many {kind} are there?",
    "Count the {kind}.",
    "How many {kind} do you see?",
    "What is the number of {kind}?",
    "Tell me how many {kind} the image shows.",
)
MAX_COUNT = 5


def _count(findings: Findings) -> str:
    return str(len({box for finding in findings if (box := found_box(finding))}))


def _groups(picture: Picture) -> dict[str, list[Thing]]:
    """What can be counted, by its words: all of a kind, and all of a colour."""
    groups: dict[str, list[Thing]] = {}
    for thing in picture.objects():
        if thing.kind not in picture.uncounted:
            groups.setdefault(plural(thing.kind), []).append(thing)
        if thing.colour and not picture.uncounted:
            groups.setdefault(f"{thing.colour} objects", []).append(thing)
    return {kind: things for kind, things in groups.items() if len(things) <= MAX_COUNT}


def build(rng: random.Random, picture: Picture) -> Draft | None:
    """Ask how many there are of the largest group, or sometimes of another."""
    groups = _groups(picture)
    if not groups:
        return None
    most = max(len(things) for things in groups.values())
    largest = [kind for kind, things in groups.items() if len(things) == most]
    kind = rng.choice(largest if rng.random() < 0.8 else list(groups))
    things = sorted(groups[kind], key=lambda thing: (thing.spot.box[1], thing.spot.box[0]))
    count = len(things)
    return Draft(
        picture=picture,
        question=rng.choice(PHRASINGS).format(kind=kind),
        calls=tuple(
            outline(thing, f"Number {number}: {thing.name}, {thing.spot.place}.")
            for number, thing in enumerate(things, 1)
        ),
        conclusion=f"There are no more, so {count}.",
        answer=str(count),
        answer_from=_count,
        wrong_answers=tuple(str(n) for n in (count - 1, count + 1, count + 2)),
    )
