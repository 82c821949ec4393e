"""Generate examples: run the calls of a task's proposal on the pixels, check them, plant errors."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
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
from pixelis.operations import Observation, execute

GENERATOR_VERSION = "2"
MAX_ATTEMPTS = 400


class CallRunner:
    """A runner of calls on the images of one example; it runs equal calls once."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        """Start without observations."""
        self._images = images
        self._observations: dict[str, Observation] = {}

    def run(self, call: PlannedCall, *, supervised: bool = True) -> Step:
        """Return the step of a planned call, with its observation."""
        key = f"{call.operation} {json.dumps(dict(call.arguments))}"
        if key not in self._observations:
            self._observations[key] = execute(call.operation, call.arguments, self._images)
        seen = self._observations[key]
        return Step(
            call.thought, call.operation, call.arguments, seen.result, seen.image, supervised
        )


def results_of(steps: Sequence[Step]) -> list[Mapping[str, Any]]:
    """Return each step's arguments updated with its result; for a failed step only the result."""
    return [
        step.result if "error" in step.result else {**step.arguments, **step.result}
        for step in steps
    ]


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
    calls = proposal.calls
    named = [i for i, call in enumerate(calls) if call.location.name in call.thought]
    # A zoom is moved only where there is nothing else to move.
    movable = [i for i in named if calls[i].operation != "ZOOM_IN"] or named
    right = [call.location for call in calls]
    locations = proposal.picture.wrong_locations(empty=empty, right=right)
    if not movable or not locations:
        return None
    index = rng.choice(movable)
    return index, move_call(calls[index], rng.choice(locations))


def _plant_correction(
    rng: random.Random, proposal: Proposal, runner: CallRunner
) -> list[Step] | None:
    """Insert a wrong call (with its real result, without loss) before a step that corrects it."""
    # Without a free location, the wrong call looks at another instance.
    moved = _moved_call(rng, proposal, empty=True) or _moved_call(rng, proposal, empty=False)
    if moved is None:
        return None
    index, wrong = moved
    planted = runner.run(wrong, supervised=False)
    if "error" not in planted.result:
        # In a photograph something is found nearly everywhere: zooming in shows that it is not
        # the right object.
        planted = runner.run(zoom_in(wrong.location, wrong.thought), supervised=False)
    calls = list(proposal.calls)
    calls[index] = replace(calls[index], thought=f"Wrong place. {calls[index].thought}")
    steps = [runner.run(call) for call in calls]
    return [*steps[:index], planted, *steps[index:]]


def describe_step(step: Step) -> str:
    """Write a step as one line of text: its thought, its call and its result."""
    arguments, result = json.dumps(dict(step.arguments)), json.dumps(dict(step.result))
    return f"{step.thought} {step.operation} {arguments} -> {result}"


def _describe_solution(steps: Sequence[Step], answer: str) -> str:
    lines = [f"{number}. {describe_step(step)}" for number, step in enumerate(steps, 1)]
    return "\n".join(["A proposed solution:", *lines, f"Answer: {answer}", "Is it right?"])


def _flawed_solution(
    rng: random.Random, proposal: Proposal, runner: CallRunner, sample_type: str
) -> tuple[str, str, dict[str, Any]] | None:
    """Return a flawed solution as prompt text, its flaw in words, and its structured form."""
    if not proposal.wrong_answers:
        return None
    calls = list(proposal.calls)
    wrong = rng.choice(proposal.wrong_answers)
    if sample_type == "trap_perceptual":
        moved = _moved_call(rng, proposal, empty=False)
        if moved is None:
            return None
        index, calls[index] = moved
        verdict = f"No, step {index + 1} looks at the wrong place."
    elif sample_type == "trap_logical":
        verdict = f"No, the steps are right but {wrong} does not follow."
    else:
        verdict = f"No, {wrong} is wrong."
    steps = [runner.run(call) for call in calls]
    listed = [
        {
            "thought": step.thought,
            "operation": step.operation,
            "arguments": dict(step.arguments),
            "result": dict(step.result),
        }
        for step in steps
    ]
    return _describe_solution(steps, wrong), verdict, {"answer": wrong, "steps": listed}


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
    runner = CallRunner(images)
    steps = [runner.run(call) for call in proposal.calls]
    if any("error" in step.result for step in steps):
        return None
    results = results_of(steps)
    if proposal.answer_from(results) != proposal.answer:
        return None
    conclusion, question = proposal.conclusion, proposal.question
    extra: dict[str, Any] = {}
    if sample_type == "self_correction":
        corrected = _plant_correction(rng, proposal, runner)
        if corrected is None:
            return None
        steps = corrected
    elif sample_type != "positive":
        flaw = _flawed_solution(rng, proposal, runner, sample_type)
        if flaw is None:
            return None
        description, verdict, extra["flawed"] = flaw
        question = f"{question}\n{description}"
        steps[0] = replace(steps[0], thought=f"{verdict} {steps[0].thought}")
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
            "objects": [instance.provenance() for instance in proposal.picture.instances],
            **dict(proposal.picture.origin),
            **extra,
        },
    )


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
        DataError: when MAX_ATTEMPTS images of the source give no such example.
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
    raise DataError(
        f"the source {source.name!r} gave no {task} example of type {sample_type} in "
        f"{MAX_ATTEMPTS} tries; leave the task out (tasks) or add images"
    )
