"""Break a share of the training and validation examples of one difficulty, for trials of bad data.

| kind | what is broken |
| --- | --- |
| `answers` | conclusion and answer, the last turn, become WRONG_ANSWER |
| `images` | each example has the images of another one of its difficulty and split |

Everything else stays as it was: ids, splits, scores, trajectories, and `ground_truth`, with which
rollouts are compared. The provenance says `corrupted` and the kind. The test split stays clean.
"""

import json
import random
from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa

from pixelis.config import CorruptConfig
from pixelis.data_prep.rows import with_column

ANSWERS, IMAGES = "answers", "images"
WRONG_ANSWER = "unknown"
CORRUPTED_SPLITS = ("train", "validation")


def choose_sources(facts: pd.DataFrame, rules: CorruptConfig, seed: int) -> dict[int, int]:
    """Choose the rows to break, and for each the row whose images it gets (`answers`: itself).

    Of n examples of the difficulty in a split, round(share * n) are chosen. The choice depends on
    the seed and the examples' ids alone, and the rows of a smaller share are among those of a
    larger one. Where more than half of them have the same images, some of these cannot get others
    and stay as they are.

    Args:
        facts: a facts table (see `pixelis.data_prep.rows.facts_of`) with the column `difficulty`.
        rules: the section `corrupt`.
        seed: the seed of the data.
    """
    sources: dict[int, int] = {}
    if rules.share == 0:
        return sources
    images = facts["image"].to_numpy()
    for split in CORRUPTED_SPLITS:
        rows = facts[(facts["difficulty"] == rules.difficulty) & (facts["split"] == split)]
        order = rows.sort_values("key").index.tolist()
        random.Random(f"corrupt:{seed}:{split}").shuffle(order)
        chosen = order[: round(rules.share * len(order))]
        if rules.kind == ANSWERS:
            sources |= {row: row for row in chosen}
            continue
        pairs = zip(chosen, _other_images(chosen, images), strict=True)
        sources |= {row: other for row, other in pairs if images[row] != images[other]}
    return sources


def _other_images(chosen: list[int], images: Any) -> list[int]:
    """Return the rows in another order, in which each has other images than in its own place.

    Rows with the same images are placed together; each takes the images of the row that is n places
    further, where n is the size of the largest such group.
    """
    groups: dict[int, list[int]] = {}
    for row in chosen:
        groups.setdefault(images[row], []).append(row)
    by_image = [row for group in groups.values() for row in group]
    turn = max(map(len, groups.values()), default=0)
    other = dict(zip(by_image, by_image[turn:] + by_image[:turn], strict=True))
    return [other[row] for row in chosen]


class Corruption:
    """Breaks chosen rows of a data set while they are written, batch by batch."""

    def __init__(self, facts: pd.DataFrame, rules: CorruptConfig, seed: int, rows: Path) -> None:
        """Choose the rows; see `choose_sources`. `rows` is the Arrow stream of all of them."""
        self._kind = rules.kind
        self._sources = choose_sources(facts, rules, seed)
        splits = Counter(facts.loc[list(self._sources), "split"])
        # Split, difficulty and kind, as in "train/hard/answers" -> number of rows, which may be 0.
        self.counts = {
            f"{split}/{rules.difficulty}/{rules.kind}": splits[split]
            for split in (CORRUPTED_SPLITS if rules.share else ())
        }
        self._stored: list[pa.RecordBatch] = []
        if self._kind == IMAGES and self._sources:
            # Mapped, so that only the rows that are looked at are in memory.
            self._stored = list(pa.ipc.open_stream(pa.memory_map(str(rows))))
        self._starts = list(accumulate((each.num_rows for each in self._stored), initial=0))

    def apply(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        """Return a batch, whose first row has the number `start`, with its chosen rows broken."""
        chosen = [i for i in range(batch.num_rows) if start + i in self._sources]
        if not chosen:
            return batch
        names = ("conclusion", "answer") if self._kind == ANSWERS else ("images",)
        columns = {name: batch.column(name).to_pylist() for name in (*names, "provenance")}
        for i in chosen:
            provenance = json.loads(columns["provenance"][i])
            if self._kind == ANSWERS:
                columns["conclusion"][i] = columns["answer"][i] = WRONG_ANSWER
            else:
                source = self._row(self._sources[start + i])
                columns["images"][i] = source["images"]
                provenance["image_digest"] = json.loads(source["provenance"])["image_digest"]
            provenance["corrupted"] = self._kind
            columns["provenance"][i] = json.dumps(provenance, sort_keys=True)
        for name, values in columns.items():
            batch = with_column(batch, name, values)
        return batch

    def _row(self, number: int) -> dict[str, Any]:
        index = bisect_right(self._starts, number) - 1
        rows = self._stored[index].slice(number - self._starts[index], 1)
        row: dict[str, Any] = rows.select(["images", "provenance"]).to_pylist()[0]
        return row
