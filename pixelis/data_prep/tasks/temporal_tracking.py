"""What moves through several images, where to, and in which direction."""

import random
from functools import partial

from pixelis.data_prep.picture import Box, Picture, Spot, Thing
from pixelis.data_prep.tasks.draft import Call, Draft, Findings, name_list, track
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


def _call(picture: Picture, thing: Thing) -> Call:
    thought = f"The {thing.name} is in {thing.spot.place} at first."
    return track(thing, thought, picture.num_frames)


def _ends(finding: object) -> tuple[Box, Box] | None:
    """The first and the last box of a track."""
    boxes = finding.get("boxes") if isinstance(finding, dict) else None
    return (tuple(boxes[0]), tuple(boxes[-1])) if boxes else None


def heading(first: Box, last: Box, min_distance: float) -> str:
    """The direction between two boxes in words: `left`, `right`, `up`, `down`, `not at all`."""
    dx, dy = (last[i] + last[i + 2] - first[i] - first[i + 2] for i in (0, 1))
    return HEADINGS[direction(dx / 2, dy / 2, min_distance)]


def _found_heading(findings: Findings, min_distance: float) -> str:
    ends = _ends(findings[-1])
    return heading(*ends, min_distance) if ends else ""


def _found_place(findings: Findings, spots: tuple[Spot, ...]) -> str:
    ends = _ends(findings[-1])
    return nearest(ends[1], spots).place if ends else ""


def nearest(box: Box, spots: tuple[Spot, ...]) -> Spot:
    """The spot whose middle is nearest to a box's."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return min(spots, key=lambda s: (s.point[0] - x) ** 2 + (s.point[1] - y) ** 2)


def _found_mover(findings: Findings, names: tuple[str, ...], min_distance: float) -> str:
    ends = [_ends(finding) for finding in findings]
    moving = [
        name
        for name, pair in zip(names, ends[-len(names) :], strict=True)
        if pair and heading(*pair, min_distance) != "not at all"
    ]
    return moving[0] if len(moving) == 1 else ""


def _about_mover(rng: random.Random, picture: Picture, movers: list[Thing]) -> Draft | None:
    others = [thing for thing in picture.unique() if thing not in movers]
    num_others = rng.randint(1, 2)
    if len(others) < num_others:
        return None
    mover = rng.choice(movers)
    named = [mover, *rng.sample(others, num_others)]
    rng.shuffle(named)
    names = tuple(thing.name for thing in named)
    return Draft(
        picture=picture,
        question=rng.choice(MOVER).format(names=name_list(named)),
        calls=tuple(_call(picture, thing) for thing in named),
        conclusion=f"Only the {mover.name} moves.",
        answer=mover.name,
        answer_from=partial(_found_mover, names=names, min_distance=picture.min_distance),
        wrong_answers=tuple(name for name in names if name != mover.name),
    )


def build(rng: random.Random, picture: Picture) -> Draft | None:
    """Ask for a place, a direction, or which one of several moves."""
    unique = [thing for thing in picture.unique() if len(thing.path) > 1]
    movers = [thing for thing in unique if thing.path[0] != thing.path[-1]]
    if not movers:
        return None
    form = rng.choice(("place", "heading", "mover"))
    if form == "mover":
        return _about_mover(rng, picture, movers)
    # What stands still is asked about too, so that moving is no foregone conclusion.
    thing = rng.choice(movers if rng.random() < 0.8 else unique)
    first, last = thing.path[0], thing.path[-1]
    calls = (_call(picture, thing),)
    if form == "place":
        spots = tuple(dict.fromkeys([*picture.free, *(s for t in picture.things for s in t.path)]))
        wrong = tuple(spot.place for spot in spots if spot != last)
        return Draft(
            picture=picture,
            question=rng.choice(PLACE).format(a=thing.name),
            calls=calls,
            conclusion=f"It ends in {last.place}.",
            answer=last.place,
            answer_from=partial(_found_place, spots=spots),
            wrong_answers=wrong,
        )
    answer = heading(first.box, last.box, picture.min_distance)
    moves = "does not move" if answer == "not at all" else f"moves {answer}"
    return Draft(
        picture=picture,
        question=rng.choice(HEADING).format(a=thing.name),
        calls=calls,
        conclusion=f"From {first.place} to {last.place}: it {moves}.",
        answer=answer,
        answer_from=partial(_found_heading, min_distance=picture.min_distance),
        wrong_answers=tuple(word for word in HEADINGS.values() if word != answer),
    )
