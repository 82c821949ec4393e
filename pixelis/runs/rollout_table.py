"""The table of all rollouts: every model, sample and planted start, with verdict and picture."""

import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.example import Example
from pixelis.data_prep.figures import side_by_side
from pixelis.evaluation.cases import verdict_of
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.matching import answers_match
from pixelis.evaluation.measures_report import evaluated_models
from pixelis.evaluation.reasons import explain
from pixelis.evaluation.summary import Evaluation
from pixelis.evaluation.turns import Rollout
from pixelis.tracking import MlflowRecorder

NAME = "evaluation/rollouts"
FOLDER = f"table_images/{NAME}"  # where MLflow keeps the images of a table of this name
SIDE = 128  # pixels
MAX_BYTES = 4_000_000  # of all images together
MAX_IMAGES = 1000  # files, which a server takes one by one
LEFT_OUT = "left out: the table's images are full"


class Thumbnails:
    """Small pictures of examples, equal ones once, within `MAX_BYTES` and `MAX_IMAGES`."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_images: int = MAX_IMAGES) -> None:
        """Begin with none."""
        self.files: dict[str, bytes] = {}
        self.left_out: set[str] = set()
        self._room = max_bytes
        self._max_images = max_images

    def cell(self, example: Example) -> dict[str, str] | str:
        """What MLflow's tables hold for an image, or that it was left out."""
        picture = side_by_side(example.images)
        picture.thumbnail((SIDE, SIDE))
        content = _encode(picture)
        digest = hashlib.sha256(content).hexdigest()[:32]
        if digest not in self.files:
            if len(content) > self._room or len(self.files) >= self._max_images:
                self.left_out.add(digest)
                return LEFT_OUT
            self._room -= len(content)
            self.files[digest] = content
        path = f"{FOLDER}/{digest}.webp"
        return {"type": "image", "filepath": path, "compressed_filepath": path}


def record_rollouts(recorder: MlflowRecorder, result: EvaluationResult) -> None:
    """Keep the table as `evaluation/rollouts.json`, and say how many images it has no room for."""
    thumbnails = Thumbnails()
    rows = rollout_rows(result, thumbnails)
    if thumbnails.files:
        with tempfile.TemporaryDirectory() as folder:
            for digest, content in thumbnails.files.items():
                Path(folder, f"{digest}.webp").write_bytes(content)
            recorder.artifact(Path(folder), FOLDER)
    recorder.table(rows, f"{NAME}.json")
    if thumbnails.left_out:
        total = len(thumbnails.files) + len(thumbnails.left_out)
        print(
            f"{NAME}.json shows {len(thumbnails.files)} of {total} images, the others are left out "
            f"(at most {MAX_IMAGES} images and {MAX_BYTES:,} bytes); it holds all "
            f"{len(rows)} rollouts",
            flush=True,
        )


def rollout_rows(result: EvaluationResult, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """One row a rollout: what was asked, said, done, whether it was right, and why it was not.

    `verdict` is `right` or `wrong`; of the adapter, beside the same start of the base (example,
    sample, planted), `gained` or `lost` where just one of the two is right. `failures` counts the
    turns that failed by kind (`Turn.failure`).
    """
    examples = {example.id: example for example in result.examples}
    cells = {name: thumbnails.cell(example) for name, example in examples.items()}
    base: dict[tuple[str, int, bool], bool] = {}
    rows = []
    for label, evaluation in evaluated_models(result).items():
        for rollout in _all(evaluation):
            example = examples[rollout.example_id]
            start = (example.id, rollout.sample, rollout.planted)
            is_right = answers_match(rollout.answer, example)
            if label == "base":
                base[start] = is_right
            beside = base.get(start) if label == "adapter" else None
            rows.append(
                {
                    "image": cells[example.id],
                    "model": label,
                    "verdict": verdict_of(is_right, beside),
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


def _all(evaluation: Evaluation) -> Iterator[Rollout]:
    """All samples by example, then those with a planted start."""
    if evaluation.samples:
        for samples in evaluation.samples:
            yield from samples
    else:
        yield from evaluation.rollouts
    yield from evaluation.planted


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
