"""Convert examples into rows: score, split and provenance of each, in chunks."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa

from pixelis.data.example import Example
from pixelis.data.store import SCHEMA, to_row
from pixelis.data_prep.difficulty import build_scorer
from pixelis.data_prep.importing import Rejection
from pixelis.data_prep.tasks import TASK_WEIGHTS


class RowInfo(NamedTuple):
    """The facts of a row that stay in memory.

    Attributes:
        key: 64 bits of the SHA-256 of the id: to find duplicates and to break ties.
        num_objects: number of objects in the image; breaks ties before `key`.
        components: the components of the score, in the scorer's order.
    """

    key: int
    task: str
    sample_type: str
    split: str
    score: float
    components: Mapping[str, float]
    num_objects: int


@dataclass(frozen=True)
class Chunk:
    """Rows, their facts for memory, and the rejected records."""

    batch: pa.RecordBatch
    infos: list[RowInfo]
    rejections: list[Rejection]

    def take(self, positions: Sequence[int]) -> "Chunk":
        """Return a chunk with only the rows at some positions."""
        batch = self.batch.take(pa.array(positions, pa.int64()))
        return Chunk(batch, [self.infos[i] for i in positions], self.rejections)


@dataclass(frozen=True)
class RowBuilder:
    """Builds rows from examples.

    Attributes:
        fractions: shares of the validation and the test split.
        scorer: name of the scorer; for `model`, composite scores are replaced later.
        weights: weights of the composite score.
    """

    fractions: tuple[float, float]
    scorer: str
    weights: Mapping[str, float]

    def build(self, examples: Iterable[Example], rejections: list[Rejection]) -> Chunk:
        """Score examples and convert them into rows.

        Args:
            examples: read one at a time, so that only one example's pixels are in memory.
            rejections: stored in the chunk after all examples were read, which may append to it.
        """
        name = "composite" if self.scorer == "model" else self.scorer
        scorer = build_scorer(name, weights=self.weights, task_weights=TASK_WEIGHTS)
        rows, infos = [], []
        for example in examples:
            (score,) = scorer([example])
            components = {name: round(part, 6) for name, part in score.components.items()}
            provenance = dict(example.provenance)
            split = split_of(provenance["image_digest"], *self.fractions)
            finished = replace(
                example,
                split=split,
                difficulty_score=score.value,
                provenance=provenance | {"difficulty_components": components},
            )
            rows.append(to_row(finished))
            infos.append(
                RowInfo(
                    key=int(hashlib.sha256(example.id.encode()).hexdigest()[:16], 16),
                    task=example.task,
                    sample_type=example.sample_type,
                    split=split,
                    score=score.value,
                    components=components,
                    num_objects=len(provenance.get("objects", ())),
                )
            )
        return Chunk(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), infos, rejections)


def split_of(digest: str, validation_fraction: float, test_fraction: float) -> str:
    """Return the split of an image, computed from its digest: equal images share a split."""
    position = int(hashlib.sha256(digest.encode()).hexdigest()[:12], 16) / 16**12
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"
