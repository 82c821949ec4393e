"""Rows in the making: examples become rows, and the facts of the rows become one table."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa

from pixelis.data.example import Example, chance_level
from pixelis.data.images import open_header
from pixelis.data.store import SCHEMA, to_row
from pixelis.data_prep.difficulty import build_scorer
from pixelis.data_prep.importing import Ids, Rejection
from pixelis.data_prep.tasks import TASK_WEIGHTS

# Prefix of the columns of a facts table that hold the components of the score.
COMPONENT = "component:"
# Why the base's processor refuses images of a size (width, height); empty if it takes them.
ExplainRefusal = Callable[[tuple[int, int]], str]
# Characters by which answers are told apart.
MAX_ANSWER = 100


class Chunk(NamedTuple):
    """Rows, and the records that were rejected on the way."""

    batch: pa.RecordBatch
    rejections: list[Rejection]
    contents: Sequence[str] = ()  # of imported rows, the digest of each one's content


@dataclass(frozen=True)
class RowBuilder:
    """Builds rows from examples."""

    fractions: tuple[float, float]  # shares of the validation and the test split
    scorer: str  # name of the scorer; for `model`, composite scores are replaced later
    weights: Mapping[str, float]  # weights of the composite score

    def build(self, examples: Iterable[Example]) -> pa.RecordBatch:
        """Score examples and convert them into rows; one example's pixels are in memory."""
        name = "composite" if self.scorer == "model" else self.scorer
        scorer = build_scorer(name, weights=self.weights, task_weights=TASK_WEIGHTS)
        rows = []
        for example in examples:
            (score,) = scorer([example])
            components = {name: round(part, 6) for name, part in score.components.items()}
            finished = replace(
                example,
                split=split_of(example.provenance["image_digest"], *self.fractions),
                difficulty_score=score.value,
                provenance={**example.provenance, "difficulty_components": components},
            )
            rows.append(to_row(finished))
        return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def without_refused(chunk: Chunk, explain_refusal: ExplainRefusal | None) -> Chunk:
    """Reject the records with an image of a size that the base's processor refuses."""
    if explain_refusal is None:
        return chunk
    kept: list[int] = []
    rejections: dict[tuple[str, int], Rejection] = {}
    rows = chunk.batch.select(["images", "trajectory"]).to_pylist()
    for position, (row, place) in enumerate(zip(rows, _places(chunk.batch), strict=True)):
        steps = [step["image"] for step in row["trajectory"] if step["image"]]
        sizes = [open_header(image["bytes"]).size for image in (*row["images"], *steps)]
        reason = next(filter(None, map(explain_refusal, sizes)), "")
        if reason:
            rejections.setdefault(place, Rejection(*place, "unreadable_image", reason))
        else:
            kept.append(position)
    if not rejections:
        return chunk
    batch = chunk.batch.take(pa.array(kept, pa.int64()))
    contents = [chunk.contents[position] for position in kept]
    return Chunk(batch, [*chunk.rejections, *rejections.values()], contents)


def settle_ids(chunk: Chunk, ids: Ids) -> tuple[Chunk, list[Rejection]]:
    """Return a chunk whose ids are free, and a rejection of each record that came before."""
    places = _places(chunk.batch)
    given = chunk.batch.column("id").to_pylist()
    taken = [ids.take(*each) for each in zip(given, chunk.contents, strict=True)]
    kept = [position for position, name in enumerate(taken) if name is not None]
    batch = with_column(chunk.batch, "id", [name or "" for name in taken])
    if len(kept) < len(taken):
        batch = batch.take(pa.array(kept, pa.int64()))
    used = {places[position] for position in kept}
    rejections = {
        place: Rejection(*place, "duplicate_id", f"the id {own!r:.80} and its content came before")
        for place, own in zip(places, given, strict=True)
        if place not in used
    }
    return chunk._replace(batch=batch), [*rejections.values()]


def _places(batch: pa.RecordBatch) -> list[tuple[str, int]]:
    """Return file and line of the record of each imported row."""
    provenance = map(json.loads, batch.column("provenance").to_pylist())
    return [(str(each["file"]), int(each["line"])) for each in provenance]


def split_of(digest: str, validation_fraction: float, test_fraction: float) -> str:
    """Return the split of an image, computed from its digest: equal images share a split."""
    position = int(hashlib.sha256(digest.encode()).hexdigest()[:12], 16) / 16**12
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


def with_column(batch: pa.RecordBatch, name: str, values: Sequence[Any]) -> pa.RecordBatch:
    """Return rows with other values in one column."""
    index = SCHEMA.get_field_index(name)
    column = pa.array(values, SCHEMA.field(index).type)
    return batch.set_column(index, SCHEMA.field(index), column)


def facts_of(batch: pa.RecordBatch) -> pd.DataFrame:
    """Return the facts of rows that stay in memory, about a hundred bytes each.

    Returns:
        Columns `task`, `sample_type`, `split`, `score`; `answer`, its first MAX_ANSWER characters;
        `chance`, the chance level (NaN if it is not known); `iou`, the least IoU of an annotated
        mask with what an operation measures (NaN without one); `num_objects` of the image and `key`
        (64 bits of the SHA-256 of the id), which order examples of equal scores; `image`, 64 bits
        of the images' digest; and the components of the score under COMPONENT and their name.
    """
    provenance = [json.loads(text) for text in batch.column("provenance").to_pylist()]
    names = provenance[0]["difficulty_components"]
    return pd.DataFrame(
        {
            **{name: batch.column(name).to_pylist() for name in ("task", "sample_type", "split")},
            "score": batch.column("difficulty_score").to_numpy(),
            "answer": [each[:MAX_ANSWER] for each in batch.column("answer").to_pylist()],
            "chance": np.array([chance_level(each) for each in provenance], dtype=np.float64),
            "iou": np.array([each.get("iou", np.nan) for each in provenance], dtype=np.float64),
            "num_objects": [len(each.get("objects", ())) for each in provenance],
            # With its type: in a small chunk all keys could fit int64, and a mix becomes float64.
            "key": np.array(
                [
                    int(hashlib.sha256(each.encode()).hexdigest()[:16], 16)
                    for each in batch.column("id").to_pylist()
                ],
                dtype=np.uint64,
            ),
            "image": np.array(
                [int(each["image_digest"][:16], 16) for each in provenance], dtype=np.uint64
            ),
            **{
                f"{COMPONENT}{name}": [each["difficulty_components"][name] for each in provenance]
                for name in names
            },
        }
    )
