"""Draft -> example: run the planned operations on the pixels, check them, plant errors."""

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.data.scenes import CELL, CELLS, Cell, Scene, render
from pixelis.data.tasks import TASKS, Call, Draft
from pixelis.operations import execute

GENERATOR_VERSION = "1"
MAX_ATTEMPTS = 200


def image_digest(image: Image.Image) -> str:
    """SHA-256 of an image's size and RGB pixels."""
    rgb = image.convert("RGB")
    return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()


def run_call(call: Call, image: Image.Image, *, supervised: bool = True) -> Step:
    """Run a planned call on the pixels."""
    observation = execute(call.operation, call.arguments, [image])
    return Step(
        call.thought,
        call.operation,
        call.arguments,
        observation.result,
        observation.image,
        supervised,
    )


def call_cell(call: Call) -> Cell:
    """The grid cell that a planned call looks at."""
    box = call.arguments.get("bbox")
    x, y = box[:2] if box else (call.arguments["x"], call.arguments["y"])
    return y // CELL, x // CELL


def place_words(cell: Cell) -> str:
    """A cell's place as thoughts name it."""
    return f"row {cell[0] + 1} column {cell[1] + 1}"


def move_call(call: Call, cell: Cell) -> Call:
    """The same call, and the same claim, about another cell."""
    row, col = call_cell(call)
    down, right = (cell[0] - row) * CELL, (cell[1] - col) * CELL
    arguments = dict(call.arguments)
    if "bbox" in arguments:
        x1, y1, x2, y2 = arguments["bbox"]
        arguments["bbox"] = [x1 + right, y1 + down, x2 + right, y2 + down]
    else:
        arguments |= {"x": arguments["x"] + right, "y": arguments["y"] + down}
    thought = call.thought.replace(place_words((row, col)), place_words(cell))
    return Call(thought, call.operation, arguments)


def _misplaced(rng: random.Random, draft: Draft, *, empty: bool) -> tuple[int, Call] | None:
    """A call of the draft moved to a wrong cell: an empty one, or one with another object."""
    movable = [
        index
        for index, call in enumerate(draft.calls)
        if place_words(call_cell(call)) in call.thought and call.operation != "ZOOM_IN"
    ]
    meant = {call_cell(call) for call in draft.calls}
    cells = [c for c in CELLS if c not in meant and (draft.scene.at(c) is None) == empty]
    if not movable or not cells:
        return None
    index = rng.choice(movable)
    return index, move_call(draft.calls[index], rng.choice(cells))


def _with_correction(rng: random.Random, draft: Draft, image: Image.Image) -> list[Step] | None:
    """Plant a wrong look (its real result, no loss) before a step, which then notices and mends."""
    planted = _misplaced(rng, draft, empty=True)
    if planted is None:
        return None
    index, wrong = planted
    step = run_call(wrong, image, supervised=False)
    if "error" not in step.result:
        return None
    mended = draft.calls[index]
    calls = list(draft.calls)
    calls[index] = Call(f"Wrong place. {mended.thought}", mended.operation, mended.arguments)
    steps = [run_call(call, image) for call in calls]
    return [*steps[:index], step, *steps[index:]]


def _describe(steps: Sequence[Step], answer: str) -> str:
    lines = [
        f"{number}. {step.thought} {step.operation} {json.dumps(step.arguments)} -> "
        f"{json.dumps(step.result)}"
        for number, step in enumerate(steps, 1)
    ]
    return "\n".join(["A proposed solution:", *lines, f"Answer: {answer}", "Is it right?"])


def _flaw(
    rng: random.Random, draft: Draft, image: Image.Image, sample_type: str
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
    steps = [run_call(call, image) for call in calls]
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


def _scene_truth(scene: Scene) -> list[dict[str, Any]]:
    return [
        {"cell": list(i.cell), "name": i.name, "size": i.size, "text": i.text} for i in scene.items
    ]


def realise(
    draft: Draft, *, rng: random.Random, task: str, sample_type: str, provenance: dict[str, Any]
) -> Example | None:
    """Run a draft on its pixels; None where results and truth disagree or no error fits.

    The answer must follow from the results of the operations alone and equal the scene's truth;
    no wrong answer becomes a target: a flawed solution stands in the question.
    """
    image = render(draft.scene)
    steps = [run_call(call, image) for call in draft.calls]
    if any("error" in step.result for step in steps):
        return None
    results = [step.result for step in steps]
    if draft.answer_from(results) != draft.answer:
        return None
    said = draft.conclusion
    question = draft.question
    extra: dict[str, Any] = {}
    if sample_type == "self_correction":
        corrected = _with_correction(rng, draft, image)
        if corrected is None:
            return None
        steps = corrected
    elif sample_type != "positive":
        flaw = _flaw(rng, draft, image, sample_type)
        if flaw is None:
            return None
        description, verdict, extra["flawed"] = flaw
        question = f"{question}\n{description}"
        first = steps[0]
        steps[0] = run_call(
            Call(f"{verdict} {first.thought}", first.operation, first.arguments), image
        )
    digest = image_digest(image)
    content = json.dumps([task, sample_type, question, digest])
    return Example(
        id=hashlib.sha256(content.encode()).hexdigest()[:16],
        task=task,
        sample_type=sample_type,
        question=question,
        images=(image,),
        trajectory=tuple(steps),
        conclusion=said if isinstance(said, str) else said(results),
        answer=draft.answer,
        ground_truth=draft.answer,
        provenance={
            **provenance,
            "generator": GENERATOR_VERSION,
            "image_digest": digest,
            "objects": _scene_truth(draft.scene),
            **extra,
        },
    )


def generate_example(*, seed: int, index: int, task: str, sample_type: str) -> Example:
    """Example `index` of a data set: a function of its arguments alone.

    Raises:
        RuntimeError: when no draft of the task passes its checks (a defect of the task).
    """
    rng = random.Random(f"{seed}:{index}:{task}:{sample_type}")
    provenance = {"source": "scenes", "seed": seed, "index": index}
    for _ in range(MAX_ATTEMPTS):
        draft = TASKS[task](rng)
        example = realise(draft, rng=rng, task=task, sample_type=sample_type, provenance=provenance)
        if example is not None:
            return example
    raise RuntimeError(f"{task}/{sample_type} gave no valid example in {MAX_ATTEMPTS} drafts")
