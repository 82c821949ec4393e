"""The table of all rollouts of all models, with verdict, reason and picture."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from pixelis.data.example import Example
from pixelis.data_prep.figures import side_by_side
from pixelis.evaluation.cases import explain, verdict_of
from pixelis.evaluation.evaluate import Evaluation, EvaluationResult
from pixelis.evaluation.matching import answers_match
from pixelis.evaluation.turns import Rollout
from pixelis.tracking import MlflowRecorder

NAME = "evaluation/rollouts"
SIDE = 128  # pixels
MAX_IMAGES = 1000  # files, which a server receives one by one
LEFT_OUT = "left out: the table's images are full"

logger = logging.getLogger(__name__)


def record_rollout_table(recorder: MlflowRecorder, result: EvaluationResult) -> None:
    """Record `evaluation/rollouts.json`, and log how many images were left out."""
    cells = picture_cells(result.examples)
    rows = rollout_rows(result, cells)
    recorder.table(rows, f"{NAME}.json")
    if num_left_out := list(cells.values()).count(LEFT_OUT):
        logger.info(
            f"{NAME}.json shows the images of {len(cells) - num_left_out} of {len(cells)} "
            f"examples, the others are left out (at most {MAX_IMAGES} images); it holds all "
            f"{len(rows)} rollouts"
        )


def picture_cells(
    examples: Sequence[Example], max_images: int = MAX_IMAGES
) -> dict[str, Image.Image | str]:
    """Return the thumbnail of each example by its id, or a note that it was left out."""
    cells: dict[str, Image.Image | str] = {}
    kept: set[bytes] = set()
    for example in examples:
        picture = side_by_side(example.images)
        picture.thumbnail((SIDE, SIDE))
        content = picture.tobytes()
        is_kept = content in kept or len(kept) < max_images
        kept |= {content} if is_kept else set()
        cells[example.id] = picture if is_kept else LEFT_OUT
    return cells


def rollout_rows(
    result: EvaluationResult, cells: Mapping[str, Image.Image | str]
) -> list[dict[str, Any]]:
    """Return one row per rollout: question, turns, answer, verdict and reason.

    `verdict` is `right` or `wrong`; for an adapter whose base was rolled out from the same start
    (example, sample, planted), it is `gained` or `lost` if exactly one of the two is right.
    `failures` counts failed turns by kind (`Turn.failure`). `cells` are of `picture_cells`.
    """
    examples = {example.id: example for example in result.examples}
    base: dict[tuple[str, int, bool], bool] = {}
    rows = []
    for label, evaluation in result.models.items():
        for rollout in _all_rollouts(evaluation):
            example = examples[rollout.example_id]
            start = (example.id, rollout.sample, rollout.planted)
            is_right = answers_match(rollout.answer, example)
            if label == "base":
                base[start] = is_right
            base_is_right = base.get(start) if label == "adapter" else None
            rows.append(
                {
                    "image": cells[example.id],
                    "model": label,
                    "verdict": verdict_of(is_right, base_is_right),
                    **_row(rollout, example, is_right),
                }
            )
    return rows


def _row(rollout: Rollout, example: Example, is_right: bool) -> Mapping[str, Any]:
    return {
        "why": "" if is_right else explain(rollout, example),
        "id": example.id,
        "sample": rollout.sample,
        "planted": rollout.planted,
        "difficulty": example.difficulty,
        "task": example.task,
        "sample_type": example.sample_type,
        "question": example.question,
        "truth": example.ground_truth,
        "answer": rollout.answer,
        "right": is_right,
        "outcome": rollout.outcome,
        "failures": ", ".join(f"{kind} {n}" for kind, n in sorted(rollout.failures.items())),
        "turns": "\n---\n".join(turn.text for turn in rollout.turns),
    }


def _all_rollouts(evaluation: Evaluation) -> Iterator[Rollout]:
    """Iterate over all samples by example, then over the rollouts after planted errors."""
    for samples in evaluation.samples:
        yield from samples
    yield from evaluation.planted
