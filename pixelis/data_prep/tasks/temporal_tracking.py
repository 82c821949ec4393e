"""Ask about movement over several frames: which object moves, its last cell, its direction."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from pixelis.data_prep.annotated_image import AnnotatedImage, Box, Instance, Location
from pixelis.data_prep.tasks.proposal import (
    PlannedCall,
    Proposal,
    Results,
    list_names,
    others,
    track,
)
from pixelis.data_prep.tasks.relationship_detection import direction

PLACE = (
    "Where is the {a} in the last image?",
    "Where does the {a} end?",
    "In which place is the {a} at the end?",
    "Find the {a} in the last image. Where is it?",
    "Tell me where the {a} is in the last image.",
)
HEADING = (
    "In which direction does the {a} move?",
    "Which way does the {a} go?",
    "How does the {a} move?",
    "Tell me the direction in which the {a} moves.",
    "Does the {a} move left, right, up or down, or not at all?",
)
MOVER = (
    "Which one moves: {names}?",
    "Which of these moves: {names}?",
    "Find the one that moves: {names}.",
    "Tell me which one moves: {names}.",
    "What moves: {names}?",
)
HEADINGS = {
    "left of": "left",
    "right of": "right",
    "above": "up",
    "below": "down",
    "": "not at all",
}


def _track(picture: AnnotatedImage, instance: Instance) -> PlannedCall:
    thought = f"The {instance.name} is in {instance.location.name} at first."
    return track(instance, thought, picture.num_frames)


def _ends(result: Mapping[str, Any]) -> tuple[Box, Box] | None:
    """Return the first and the last box of a track."""
    boxes = result.get("boxes")
    return (tuple(boxes[0]), tuple(boxes[-1])) if boxes else None


def heading(first: Box, last: Box, min_distance: float) -> str:
    """Return the direction between two boxes: `left`, `right`, `up`, `down`, `not at all`."""
    dx, dy = (last[i] + last[i + 2] - first[i] - first[i + 2] for i in (0, 1))
    return HEADINGS[direction(dx / 2, dy / 2, min_distance)]


def nearest(box: Box, locations: Sequence[Location]) -> Location:
    """Return the location whose point is nearest to the middle of a box."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return min(locations, key=lambda each: (each.point[0] - x) ** 2 + (each.point[1] - y) ** 2)


def _propose_mover(
    rng: random.Random, picture: AnnotatedImage, movers: list[Instance]
) -> Proposal | None:
    still = [instance for instance in picture.unique() if instance not in movers]
    num_still = rng.randint(1, 2)
    if len(still) < num_still:
        return None
    mover = rng.choice(movers)
    named = [mover, *rng.sample(still, num_still)]
    rng.shuffle(named)
    names = [instance.name for instance in named]

    def measured(results: Results) -> str:
        tracks = zip(names, map(_ends, results[-len(names) :]), strict=True)
        moving = [
            name
            for name, ends in tracks
            if ends and heading(*ends, picture.min_distance) != "not at all"
        ]
        return moving[0] if len(moving) == 1 else ""

    return Proposal(
        picture=picture,
        question=rng.choice(MOVER).format(names=list_names(named)),
        calls=tuple(_track(picture, instance) for instance in named),
        conclusion=f"Only the {mover.name} moves.",
        answer=mover.name,
        answer_from=measured,
        wrong_answers=others(names, mover.name),
    )


def _propose_place(rng: random.Random, picture: AnnotatedImage, instance: Instance) -> Proposal:
    last = instance.path[-1]
    paths = (location for each in picture.instances for location in each.path)
    locations = tuple(dict.fromkeys([*picture.free, *paths]))

    def measured(results: Results) -> str:
        ends = _ends(results[-1])
        return nearest(ends[1], locations).name if ends else ""

    return Proposal(
        picture=picture,
        question=rng.choice(PLACE).format(a=instance.name),
        calls=(_track(picture, instance),),
        conclusion=f"It ends in {last.name}.",
        answer=last.name,
        answer_from=measured,
        wrong_answers=tuple(location.name for location in locations if location != last),
    )


def _propose_heading(rng: random.Random, picture: AnnotatedImage, instance: Instance) -> Proposal:
    first, last = instance.path[0], instance.path[-1]
    answer = heading(first.box, last.box, picture.min_distance)
    moves = "does not move" if answer == "not at all" else f"moves {answer}"

    def measured(results: Results) -> str:
        ends = _ends(results[-1])
        return heading(*ends, picture.min_distance) if ends else ""

    return Proposal(
        picture=picture,
        question=rng.choice(HEADING).format(a=instance.name),
        calls=(_track(picture, instance),),
        conclusion=f"From {first.name} to {last.name}: it {moves}.",
        answer=answer,
        answer_from=measured,
        wrong_answers=others(tuple(HEADINGS.values()), answer),
    )


def propose(rng: random.Random, picture: AnnotatedImage) -> Proposal | None:
    """Ask for a location, a direction, or which of several objects moves."""
    unique = [instance for instance in picture.unique() if len(instance.path) > 1]
    movers = [instance for instance in unique if instance.path[0] != instance.path[-1]]
    if not movers:
        return None
    form = rng.choice(("place", "heading", "mover"))
    if form == "mover":
        return _propose_mover(rng, picture, movers)
    # Also ask about objects that do not move, or the answer would always be a movement.
    instance = rng.choice(movers if rng.random() < 0.8 else unique)
    if form == "place":
        return _propose_place(rng, picture, instance)
    return _propose_heading(rng, picture, instance)
