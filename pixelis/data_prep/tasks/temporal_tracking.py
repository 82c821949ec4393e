"""Ask about movement over several frames: which object moves, its last cell, its direction."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance, Location
from pixelis.data_prep.tasks.conclusions import conclude_heading, conclude_mover, describe_path
from pixelis.data_prep.tasks.proposal import (
    PlannedCall,
    Proposal,
    Results,
    box_centre,
    call_on_box,
    direction,
    list_names,
    others,
)

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
    frames = list(range(1, picture.num_frames + 1))
    return call_on_box("TRACK_OBJECT", instance, thought, frames=frames)


def heading(first: Sequence[int], last: Sequence[int], min_distance: float) -> str:
    """Return the direction between two boxes: `left`, `right`, `up`, `down`, `not at all`."""
    return HEADINGS[direction(last, first, min_distance)]


def _heading(result: Mapping[str, Any], picture: AnnotatedImage) -> str:
    return heading(result["boxes"][0], result["boxes"][-1], picture.min_distance)


def nearest(box: Sequence[int], locations: Sequence[Location]) -> Location:
    """Return the location whose point is nearest to the middle of a box."""
    middle = box_centre(box, 0), box_centre(box, 1)
    return min(locations, key=lambda each: math.dist(each.point, middle))


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
    paths = [(each.path[0].name, each.path[-1].name) for each in named]

    def measured(results: Results) -> str:
        moving = [
            name
            for name, result in zip(names, results, strict=True)
            if _heading(result, picture) != "not at all"
        ]
        return moving[0] if len(moving) == 1 else ""

    return Proposal(
        picture=picture,
        question=rng.choice(MOVER).format(names=list_names(named)),
        calls=tuple(_track(picture, instance) for instance in named),
        conclusion=conclude_mover(names, paths, mover.name),
        answer=mover.name,
        answer_from=measured,
        wrong_answers=others(names, mover.name),
    )


def _propose_place(rng: random.Random, picture: AnnotatedImage, instance: Instance) -> Proposal:
    last = instance.path[-1]
    paths = (location for each in picture.instances for location in each.path)
    locations = tuple(dict.fromkeys([*picture.free, *paths]))

    return Proposal(
        picture=picture,
        question=rng.choice(PLACE).format(a=instance.name),
        calls=(_track(picture, instance),),
        conclusion=f"{describe_path(instance.path[0].name, last.name)}.",
        answer=last.name,
        answer_from=lambda results: nearest(results[0]["boxes"][-1], locations).name,
        wrong_answers=tuple(location.name for location in locations if location != last),
    )


def _propose_heading(rng: random.Random, picture: AnnotatedImage, instance: Instance) -> Proposal:
    first, last = instance.path[0], instance.path[-1]
    answer = heading(first.box, last.box, picture.min_distance)

    return Proposal(
        picture=picture,
        question=rng.choice(HEADING).format(a=instance.name),
        calls=(_track(picture, instance),),
        conclusion=conclude_heading(first.name, last.name, answer),
        answer=answer,
        answer_from=lambda results: _heading(results[0], picture),
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
