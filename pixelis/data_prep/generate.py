"""Draft -> example: run the planned operations on the pixels, check them, plant errors."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.data.images import image_digest
from pixelis.data_prep.picture import Spot
from pixelis.data_prep.sources import Source
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.data_prep.tasks import TASKS, Call, Draft
from pixelis.data_prep.tasks.draft import zoom
from pixelis.errors import DataError
from pixelis.operations import Observation, execute

GENERATOR_VERSION = "2"
MAX_ATTEMPTS = 400


class Images(tuple[Image.Image, ...]):
    """An example's images, and what operations have found on them so far."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        """Start with nothing found."""
        self.found: dict[str, Observation] = {}


def run_call(call: Call, images: Images, *, supervised: bool = True) -> Step:
    """Run a planned call on the pixels, once."""
    key = f"{call.operation} {json.dumps(dict(call.arguments))}"
    if key not in images.found:
        images.found[key] = execute(call.operation, call.arguments, images)
    observation = images.found[key]
    return Step(
        call.thought,
        call.operation,
        call.arguments,
        observation.result,
        observation.image,
        supervised,
    )


def findings_of(steps: Sequence[Step]) -> list[Mapping[str, Any]]:
    """What each step found: its arguments and, over them, its result; an error alone."""
    return [
        step.result if "error" in step.result else {**step.arguments, **step.result}
        for step in steps
    ]


def move_call(call: Call, spot: Spot) -> Call:
    """The same call, and the same claim, about another spot."""
    arguments = dict(call.arguments)
    if "bbox" in arguments:
        arguments["bbox"] = list(spot.box)
    else:
        arguments |= {"x": spot.point[0], "y": spot.point[1]}
    thought = call.thought.replace(call.spot.place, spot.place)
    return Call(thought, call.operation, arguments, spot)


def _misplaced(rng: random.Random, draft: Draft, *, empty: bool) -> tuple[int, Call] | None:
    """A call of the draft moved to a wrong spot: an empty one, or one with another thing."""
    movable = [
        index
        for index, call in enumerate(draft.calls)
        if call.spot.place in call.thought and call.operation != "ZOOM_IN"
    ]
    if not movable:
        # Where looking closer is all that there is, the wrong look is a close one too.
        movable = [i for i, call in enumerate(draft.calls) if call.spot.place in call.thought]
    spots = draft.picture.spots(empty=empty, meant=[call.spot for call in draft.calls])
    if not movable or not spots:
        return None
    index = rng.choice(movable)
    return index, move_call(draft.calls[index], rng.choice(spots))


def _with_correction(rng: random.Random, draft: Draft, images: Images) -> list[Step] | None:
    """Plant a wrong look (its real result, no loss) before a step, which then notices and mends."""
    # Where nothing is free, the wrong look falls on another thing.
    planted = _misplaced(rng, draft, empty=True) or _misplaced(rng, draft, empty=False)
    if planted is None:
        return None
    index, wrong = planted
    step = run_call(wrong, images, supervised=False)
    if "error" not in step.result:
        # Something is found, as nearly everywhere in a photograph: a closer look shows that it is
        # not what was meant.
        step = run_call(zoom(wrong.spot, wrong.thought), images, supervised=False)
    mended = draft.calls[index]
    calls = list(draft.calls)
    said = f"Wrong place. {mended.thought}"
    calls[index] = Call(said, mended.operation, mended.arguments, mended.spot)
    steps = [run_call(call, images) for call in calls]
    return [*steps[:index], step, *steps[index:]]


def describe_step(step: Step) -> str:
    """A step as one line of text: what was said, called and found."""
    arguments, result = json.dumps(dict(step.arguments)), json.dumps(dict(step.result))
    return f"{step.thought} {step.operation} {arguments} -> {result}"


def _describe(steps: Sequence[Step], answer: str) -> str:
    lines = [f"{number}. {describe_step(step)}" for number, step in enumerate(steps, 1)]
    return "\n".join(["A proposed solution:", *lines, f"Answer: {answer}", "Is it right?"])


def _flaw(
    rng: random.Random, draft: Draft, images: Images, sample_type: str
) -> tuple[str, str, dict[str, Any]] | None:
    """The flawed solution as prompt text, what is wrong with it, and its structured form."""
    if not draft.wrong_answers:
        return None
    calls = list(draft.calls)
    wrong = rng.choice(draft.wrong_answers)
    if sample_type == "trap_perceptual":
        moved = _misplaced(rng, draft, empty=False)
        if moved is None:
            return None
        index, calls[index] = moved
        verdict = f"No, step {index + 1} looks at the wrong place."
    elif sample_type == "trap_logical":
        verdict = f"No, the steps are right but {wrong} does not follow."
    else:
        verdict = f"No, {wrong} is wrong."
    steps = [run_call(call, images) for call in calls]
    flawed = {
        "answer": wrong,
        "steps": [
            {
                "thought": s.thought,
                "operation": s.operation,
                "arguments": dict(s.arguments),
                "result": dict(s.result),
            }
            for s in steps
        ],
    }
    return _describe(steps, wrong), verdict, flawed


def realise(
    draft: Draft, *, rng: random.Random, task: str, sample_type: str, provenance: dict[str, Any]
) -> Example | None:
    """Run a draft on its pixels; None where results and truth disagree or no error fits.

    The answer must follow from the findings of the operations alone and equal the picture's truth;
    no wrong answer becomes a target: a flawed solution stands in the question.
    """
    images = Images(draft.picture.draw())
    steps = [run_call(call, images) for call in draft.calls]
    if any("error" in step.result for step in steps):
        return None
    findings = findings_of(steps)
    if draft.answer_from(findings) != draft.answer:
        return None
    said = draft.conclusion
    question = draft.question
    extra: dict[str, Any] = {}
    if sample_type == "self_correction":
        corrected = _with_correction(rng, draft, images)
        if corrected is None:
            return None
        steps = corrected
    elif sample_type != "positive":
        flaw = _flaw(rng, draft, images, sample_type)
        if flaw is None:
            return None
        description, verdict, extra["flawed"] = flaw
        question = f"{question}\n{description}"
        first = draft.calls[0]
        judged = Call(f"{verdict} {first.thought}", first.operation, first.arguments, first.spot)
        steps[0] = run_call(judged, images)
    digest = image_digest(*images)
    content = json.dumps([task, sample_type, question, digest])
    return Example(
        id=hashlib.sha256(content.encode()).hexdigest()[:16],
        task=task,
        sample_type=sample_type,
        question=question,
        images=tuple(images),
        trajectory=tuple(steps),
        conclusion=said if isinstance(said, str) else said(findings),
        answer=draft.answer,
        ground_truth=draft.answer,
        provenance={
            **provenance,
            "generator": GENERATOR_VERSION,
            "image_digest": digest,
            "objects": [thing.truth() for thing in draft.picture.things],
            **dict(draft.picture.origin),
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
    """Example `index` of a data set: a function of its arguments alone.

    Args:
        seed: of the data set.
        index: of the example in it.
        task: a key of `TASKS`.
        sample_type: see `pixelis.data.example.SAMPLE_TYPES`.
        source: of the pictures; drawn scenes where none is given.
        salt: another number gives another example, where the first was one too many.

    Raises:
        DataError: when nothing in the source can be asked so.
    """
    source = source or DrawnScenes()
    rng = random.Random(f"{seed}:{index}:{task}:{sample_type}" + (f":{salt}" if salt else ""))
    provenance = {"source": source.name, "seed": seed, "index": index}
    for _ in range(MAX_ATTEMPTS):
        draft = TASKS[task](rng, source.picture(rng, task))
        if draft is None:
            continue
        example = realise(draft, rng=rng, task=task, sample_type=sample_type, provenance=provenance)
        if example is not None:
            return example
    raise DataError(
        f"the source {source.name!r} gave no {task} example of type {sample_type} in "
        f"{MAX_ATTEMPTS} tries; leave the task out (tasks) or add images"
    )
