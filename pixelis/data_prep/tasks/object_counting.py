"""Ask how many objects of a colour or a kind there are; each one is segmented and counted."""

import random
from collections.abc import Collection

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance, plural
from pixelis.data_prep.tasks.conclusions import list_found
from pixelis.data_prep.tasks.proposal import Proposal, segment

PHRASINGS = (
    "How many {kind} are there?",
    "Count the {kind}.",
    "How many {kind} do you see?",
    "What is the number of {kind}?",
    "Tell me how many {kind} the image shows.",
)
MAX_COUNT = 5
# Of more instances than this, only those that count are listed.
MAX_LISTED = 12


def _reading_order(instance: Instance) -> tuple[int, int]:
    x1, y1, *_ = instance.location.box
    return y1, x1


def countable_groups(picture: AnnotatedImage) -> dict[str, list[Instance]]:
    """Return the objects that can be counted, by their common name."""
    groups: dict[str, list[Instance]] = {}
    for instance in picture.objects():
        if instance.kind not in picture.uncounted:
            groups.setdefault(plural(instance.kind), []).append(instance)
        if instance.colour and not picture.uncounted:
            groups.setdefault(f"{instance.colour} objects", []).append(instance)
    return {kind: group for kind, group in groups.items() if len(group) <= MAX_COUNT}


def conclude_found(picture: AnnotatedImage, kind: str, counted: Collection[Instance]) -> str:
    """List what is in the image in reading order, with the count of one group so far."""
    listed = picture.instances if len(picture.instances) <= MAX_LISTED else counted
    ordered = sorted(listed, key=_reading_order)
    found = list_found(
        [(each.location.name, each.name) for each in ordered],
        [index for index, each in enumerate(ordered) if each in counted],
    )
    return f"The {kind}: {found}"


def propose(rng: random.Random, picture: AnnotatedImage) -> Proposal | None:
    """Ask for the number of the largest group, or sometimes of another."""
    groups = countable_groups(picture)
    if not groups:
        return None
    most = max(len(group) for group in groups.values())
    largest = [kind for kind, group in groups.items() if len(group) == most]
    kind = rng.choice(largest if rng.random() < 0.8 else list(groups))
    counted = sorted(groups[kind], key=_reading_order)
    count = len(counted)
    thoughts = [
        f"Number {number}: {each.name}, {each.location.name}."
        for number, each in enumerate(counted, 1)
    ]
    thoughts[0] = f"{conclude_found(picture, kind, counted)} {thoughts[0]}"
    return Proposal(
        picture=picture,
        question=rng.choice(PHRASINGS).format(kind=kind),
        calls=tuple(map(segment, counted, thoughts)),
        conclusion=f"There are no more, so {count}.",
        answer=str(count),
        answer_from=lambda results: str(len({tuple(result["bbox"]) for result in results})),
        wrong_answers=(str(count - 1), str(count + 1), str(count + 2)),
        num_options=MAX_COUNT,
    )
