"""Generate examples: run the calls of a task's proposal on the pixels, check them, plant errors."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.data.images import image_digest
from pixelis.data_prep.annotated_image import Location
from pixelis.data_prep.sources import Source
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.data_prep.tasks import TASKS
from pixelis.data_prep.tasks.proposal import PlannedCall, Proposal, zoom_in
from pixelis.errors import DataError
from pixelis.operations import execute

GENERATOR_VERSION = "3"
MAX_ATTEMPTS = 400


class NoExampleError(DataError):
    """The images of a source give no example of a task and a sample type."""


def run_call(call: PlannedCall, images: Sequence[Image.Image], *, supervised: bool = True) -> Step:
    """Run a planned call; return its step with the observation."""
    seen = execute(call.operation, call.arguments, images)
    return Step(call.thought, call.operation, call.arguments, seen.result, seen.image, supervised)


def move_call(call: PlannedCall, location: Location) -> PlannedCall:
    """Return the same call with the same claim, but about another location."""
    arguments = dict(call.arguments)
    if "bbox" in arguments:
        arguments["bbox"] = list(location.box)
    else:
        arguments |= {"x": location.point[0], "y": location.point[1]}
    thought = call.thought.replace(call.location.name, location.name)
    return PlannedCall(thought, call.operation, arguments, location)


def _moved_call(
    rng: random.Random, proposal: Proposal, *, empty: bool
) -> tuple[int, PlannedCall] | None:
    """Return one of the calls, moved to a wrong location: an empty one, or another instance's."""
    calls, picture = proposal.calls, proposal.picture
    named = [i for i, call in enumerate(calls) if call.location.name in call.thought]
    # A zoom is moved only where there is nothing else to move.
    movable = [i for i in named if calls[i].operation != "ZOOM_IN"] or named
    right = {call.location.box for call in calls}
    taken = [each.location for each in picture.instances if each.location.box not in right]
    locations = picture.free if empty else taken
    if not movable or not locations:
        return None
    index = rng.choice(movable)
    return index, move_call(calls[index], rng.choice(locations))


def _plant_correction(
    rng: random.Random, proposal: Proposal, steps: Sequence[Step], images: Sequence[Image.Image]
) -> list[Step] | None:
    """Insert a wrong call (with its real result, without loss) before a step that corrects it."""
    # Without a free location, the wrong call looks at another instance.
    moved = _moved_call(rng, proposal, empty=True) or _moved_call(rng, proposal, empty=False)
    if moved is None:
        return None
    index, wrong = moved
    planted = run_call(wrong, images, supervised=False)
    if "error" not in planted.result:
        # In a photograph something is found nearly everywhere: zooming in shows that it is not
        # the right object.
        planted = run_call(zoom_in(wrong.location, wrong.thought), images, supervised=False)
    corrected = replace(steps[index], thought=f"Wrong place. {steps[index].thought}")
    return [*steps[:index], planted, corrected, *steps[index + 1 :]]


def describe_step(step: Step) -> str:
    """Write a step as one line of text: its thought, its call and its result."""
    arguments, result = json.dumps(dict(step.arguments)), json.dumps(dict(step.result))
    return f"{step.thought} {step.operation} {arguments} -> {result}"


def _flawed_solution(
    rng: random.Random,
    proposal: Proposal,
    steps: Sequence[Step],
    images: Sequence[Image.Image],
    sample_type: str,
) -> tuple[str, str, dict[str, Any]] | None:
    """Return a flawed solution as prompt text, its flaw in words, and its structured form."""
    if not proposal.wrong_answers:
        return None
    flawed = list(steps)
    wrong = rng.choice(proposal.wrong_answers)
    if sample_type == "trap_perceptual":
        moved = _moved_call(rng, proposal, empty=False)
        if moved is None:
            return None
        index, call = moved
        flawed[index] = run_call(call, images)
        verdict = f"No, step {index + 1} looks at the wrong place."
    elif sample_type == "trap_logical":
        verdict = f"No, the steps are right but {wrong} does not follow."
    else:
        verdict = f"No, {wrong} is wrong."
    names = ("thought", "operation", "arguments", "result")
    listed = [{name: getattr(step, name) for name in names} for step in flawed]
    lines = [f"{number}. {describe_step(step)}" for number, step in enumerate(flawed, 1)]
    text = "\n".join(["A proposed solution:", *lines, f"Answer: {wrong}", "Is it right?"])
    return text, verdict, {"answer": wrong, "steps": listed}


def build_example(
    proposal: Proposal,
    *,
    rng: random.Random,
    task: str,
    sample_type: str,
    provenance: dict[str, Any],
) -> Example | None:
    """Run a proposal on its pixels; None where results and annotations disagree or no error fits.

    The answer must follow from the results of the operations alone and equal the annotated one. No
    wrong answer becomes a target: a flawed solution is part of the question.
    """
    images = proposal.picture.draw()
    steps = [run_call(call, images) for call in proposal.calls]
    if any("error" in step.result for step in steps):
        return None
    results = [{**step.arguments, **step.result} for step in steps]
    if proposal.answer_from(results) != proposal.answer:
        return None
    conclusion, question = proposal.conclusion, proposal.question
    extra: dict[str, Any] = {}
    if sample_type == "self_correction":
        corrected = _plant_correction(rng, proposal, steps, images)
        if corrected is None:
            return None
        steps = corrected
    elif sample_type != "positive":
        flaw = _flawed_solution(rng, proposal, steps, images, sample_type)
        if flaw is None:
            return None
        description, verdict, extra["flawed"] = flaw
        question = f"{question}\n{description}"
        steps[0] = replace(steps[0], thought=f"{verdict} {steps[0].thought}")
    ious = _ious(proposal)
    if ious:
        extra["iou"] = round(min(ious), 4)
    num_options = proposal.num_options
    if num_options is None:
        num_options = 1 + len(proposal.wrong_answers)
    digest = image_digest(*images)
    content = json.dumps([task, sample_type, question, digest])
    return Example(
        id=hashlib.sha256(content.encode()).hexdigest()[:16],
        task=task,
        sample_type=sample_type,
        question=question,
        images=tuple(images),
        trajectory=tuple(steps),
        conclusion=conclusion if isinstance(conclusion, str) else conclusion(results),
        answer=proposal.answer,
        ground_truth=proposal.answer,
        provenance={
            **provenance,
            "generator": GENERATOR_VERSION,
            "image_digest": digest,
            "num_options": num_options,
            "objects": [instance.provenance() for instance in proposal.picture.instances],
            **dict(proposal.picture.origin),
            **extra,
        },
    )


def _ious(proposal: Proposal) -> list[float]:
    """Return the IoU with the annotated mask of each call that measures an object, where known."""
    known = {each.location: dict(each.ious) for each in proposal.picture.instances}
    found = [known.get(call.location, {}).get(call.operation) for call in proposal.calls]
    return [iou for iou in found if iou is not None]


def generate_example(
    *,
    seed: int,
    index: int,
    task: str,
    sample_type: str,
    source: Source | None = None,
    salt: int = 0,
) -> Example:
    """Generate example `index` of a data set, as a function of the arguments alone.

    Args:
        seed: seed of the data set.
        index: index of the example in the data set.
        task: a key of `TASKS`.
        sample_type: see `pixelis.data.example.SAMPLE_TYPES`.
        source: source of the images; None for drawn scenes.
        salt: another number gives another example, to replace a duplicate.

    Raises:
        NoExampleError: when MAX_ATTEMPTS images of the source give no such example.
        DataError: when an image of the source cannot be read any more.
    """
    source = source or DrawnScenes()
    rng = random.Random(f"{seed}:{index}:{task}:{sample_type}" + (f":{salt}" if salt else ""))
    provenance = {"source": source.name, "seed": seed, "index": index}
    for _ in range(MAX_ATTEMPTS):
        proposal = TASKS[task](rng, source.picture(rng, task))
        if proposal is None:
            continue
        example = build_example(
            proposal, rng=rng, task=task, sample_type=sample_type, provenance=provenance
        )
        if example is not None:
            return example
    raise NoExampleError(
        f"the source {source.name!r} gave no {task} example of type {sample_type} in "
        f"{MAX_ATTEMPTS} tries; leave the task out (tasks) or add images"
    )
