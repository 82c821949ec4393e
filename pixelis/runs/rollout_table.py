"""The table of all rollouts of all models, with verdict, reason and picture."""

import hashlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
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
FOLDER = f"table_images/{NAME}"  # MLflow's folder for the images of this table
SIDE = 128  # pixels
MAX_BYTES = 4_000_000  # of all images together
MAX_IMAGES = 1000  # files, which a server receives one by one
LEFT_OUT = "left out: the table's images are full"

logger = logging.getLogger(__name__)


class Thumbnails:
    """Thumbnails of examples without duplicates, up to `MAX_BYTES` and `MAX_IMAGES`."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_images: int = MAX_IMAGES) -> None:
        """Start without pictures."""
        self.files: dict[str, bytes] = {}
        self.left_out: set[str] = set()
        self._free_bytes = max_bytes
        self._max_images = max_images

    def cell(self, example: Example) -> dict[str, str] | str:
        """Return the cell of an image in MLflow's tables, or a note that it was left out."""
        picture = side_by_side(example.images)
        picture.thumbnail((SIDE, SIDE))
        content = _encode(picture)
        digest = hashlib.sha256(content).hexdigest()[:32]
        if digest not in self.files:
            if len(content) > self._free_bytes or len(self.files) >= self._max_images:
                self.left_out.add(digest)
                return LEFT_OUT
            self._free_bytes -= len(content)
            self.files[digest] = content
        path = f"{FOLDER}/{digest}.webp"
        return {"type": "image", "filepath": path, "compressed_filepath": path}


def record_rollout_table(recorder: MlflowRecorder, result: EvaluationResult) -> None:
    """Record `evaluation/rollouts.json`, and log how many images were left out."""
    thumbnails = Thumbnails()
    rows = rollout_rows(result, thumbnails)
    if thumbnails.files:
        with tempfile.TemporaryDirectory() as folder:
            for digest, content in thumbnails.files.items():
                Path(folder, f"{digest}.webp").write_bytes(content)
            recorder.artifact(Path(folder), FOLDER)
    recorder.table(rows, f"{NAME}.json")
    if thumbnails.left_out:
        num = len(thumbnails.files)
        logger.info(
            f"{NAME}.json shows {num} of {num + len(thumbnails.left_out)} images, the others are "
            f"left out (at most {MAX_IMAGES} images and {MAX_BYTES:,} bytes); it holds all "
            f"{len(rows)} rollouts"
        )


def rollout_rows(result: EvaluationResult, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Return one row per rollout: question, turns, answer, verdict and reason.

    `verdict` is `right` or `wrong`; for an adapter whose base was rolled out from the same start
    (example, sample, planted), it is `gained` or `lost` if exactly one of the two is right.
    `failures` counts failed turns by kind (`Turn.failure`).
    """
    examples = {example.id: example for example in result.examples}
    cells = {name: thumbnails.cell(example) for name, example in examples.items()}
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


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
