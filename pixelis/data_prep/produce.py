"""What a worker does: a chunk of plans or of raw records -> scored rows, ready to be written."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pixelis.data.example import Example
from pixelis.data.store import SCHEMA, to_row
from pixelis.data_prep.difficulty import Scorer, build_scorer
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.importing import Record, Rejection, convert
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.sources import Source
from pixelis.data_prep.tasks import TASK_WEIGHTS
from pixelis.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Plan:
    """An example to make."""

    index: int
    task: str
    sample_type: str


class Meta(NamedTuple):
    """What is kept of an example beside its row.

    Attributes:
        key: 64 bits of its id's SHA-256: tells duplicates, and breaks ties.
        num_objects: things in its picture; breaks ties first.
        components: of the score, in the scorer's order.
    """

    key: int
    task: str
    sample_type: str
    split: str
    score: float
    components: Mapping[str, float]
    num_objects: int


@dataclass(frozen=True)
class Made:
    """A chunk's rows, what to keep of each, and what was refused."""

    batch: pa.RecordBatch
    metas: list[Meta]
    rejections: list[Rejection]


@dataclass(frozen=True)
class Finish:
    """From an example to its row: split, score, provenance.

    Attributes:
        fractions: shares of the validation and the test split.
        scorer: name of the scorer; `model` scores by `composite` here, and is corrected later.
        weights: of the composite score.
    """

    fractions: tuple[float, float]
    scorer: str
    weights: Mapping[str, float]

    def build_scorer(self) -> Scorer:
        """The scorer that needs no model."""
        name = "composite" if self.scorer == "model" else self.scorer
        return build_scorer(name, weights=self.weights, task_weights=TASK_WEIGHTS)

    def __call__(self, examples: Iterable[Example], rejections: Sequence[Rejection] = ()) -> Made:
        """Score examples and make them rows.

        Args:
            examples: taken one at a time, so that the pixels of one alone are in memory.
            rejections: looked at once the examples are through.
        """
        rows, metas = [], []
        scorer = self.build_scorer()
        for example in examples:
            (score,) = scorer([example])
            components = {name: round(part, 6) for name, part in score.components.items()}
            provenance = dict(example.provenance)
            split = split_of(provenance["image_digest"], *self.fractions)
            row = to_row(
                replace(
                    example,
                    split=split,
                    difficulty_score=score.value,
                    provenance=provenance | {"difficulty_components": components},
                )
            )
            rows.append(row)
            metas.append(
                Meta(
                    key=int(hashlib.sha256(example.id.encode()).hexdigest()[:16], 16),
                    task=example.task,
                    sample_type=example.sample_type,
                    split=split,
                    score=score.value,
                    components=components,
                    num_objects=len(provenance.get("objects", ())),
                )
            )
        batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
        return Made(batch, metas, list(rejections))


def split_of(digest: str, validation_fraction: float, test_fraction: float) -> str:
    """The split of an image, by its digest alone: equal images share a split."""
    position = int(hashlib.sha256(digest.encode()).hexdigest()[:12], 16) / 16**12
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


@dataclass(frozen=True)
class Generate:
    """Makes chunks of planned examples from a source."""

    seed: int
    source: Source
    finish: Finish

    def __call__(self, plans: Sequence[Plan], salt: int = 0) -> Made:
        """Make the examples of a chunk; another salt makes others."""
        return self.finish(
            generate_example(
                seed=self.seed,
                index=plan.index,
                task=plan.task,
                sample_type=plan.sample_type,
                source=self.source,
                salt=salt,
            )
            for plan in plans
        )


@dataclass(frozen=True)
class Import:
    """Makes examples of chunks of raw records.

    Attributes:
        folder: that the records' images are in.
        record_format: see `pixelis.data_prep.importing`.
        max_length: tokens of the longest example; None does not count them.
        count_tokens: counts them; needed where there is a max_length.
    """

    folder: Path
    record_format: str
    finish: Finish
    max_length: int | None = None
    count_tokens: Callable[[Example], int] | None = None

    def __call__(self, records: Sequence[Record]) -> Made:
        """Convert the records of a chunk."""
        rejections: list[Rejection] = []
        return self.finish(self._examples(records, rejections), rejections)

    def _examples(
        self, records: Sequence[Record], rejections: list[Rejection]
    ) -> Iterator[Example]:
        for record in records:
            found = convert(
                record,
                folder=self.folder,
                record_format=self.record_format,
                count_tokens=None if self.count_tokens is None else self._length,
                max_length=self.max_length,
            )
            if isinstance(found, Rejection):
                rejections.append(found)
            else:
                yield from found

    def _length(self, example: Example) -> int:
        assert self.count_tokens is not None
        try:
            return self.count_tokens(example)
        except CheckpointError:
            raise
        except ValueError as error:  # such as an image as thin as a line
            detail = f"the model's processor refuses it: {error}"
            raise RejectedError("unreadable_image", detail) from error
