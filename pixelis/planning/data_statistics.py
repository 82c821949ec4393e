"""What a data folder tells of the examples that a training would draw, where it is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelis.config import ModelConfig
from pixelis.data.encode import IGNORE_INDEX, Encoder, encode_example
from pixelis.data.store import from_row, load_split
from pixelis.errors import CheckpointError
from pixelis.models.load import load_processor

LOOKED_AT = 48  # examples of each difficulty, spread over the split


@dataclass(frozen=True)
class DataFacts:
    """Of the training split.

    Attributes:
        sizes: examples of each difficulty.
        scores: their difficulty scores.
        tokens: mean tokens of an example, by difficulty; None without the model's processor.
        supervised: share of the tokens that are predicted, at most, of those looked at.
        images: share of the tokens that are visual, on average.
    """

    sizes: Mapping[str, int]
    scores: Mapping[str, Sequence[float]]
    tokens: Mapping[str, float] | None = None
    supervised: float | None = None
    images: float | None = None


def read_data_facts(folder: Path, model: ModelConfig) -> DataFacts | None:
    """Read a data folder; None where there is none.

    Raises:
        DataError: when it cannot be read.
    """
    if not folder.exists():
        return None
    rows = load_split(folder, "train")
    sizes = {name: len(found) for name, found in rows.items()}
    scores = {name: list(found["difficulty_score"]) for name, found in rows.items()}
    try:
        processor = load_processor(
            model.model_name,
            min_pixels=model.min_pixels,
            max_pixels=model.max_pixels,
            trust_remote_code=model.trust_remote_code,
        )
    except CheckpointError:  # a hub's model that is not on this machine
        return DataFacts(sizes, scores)
    encoder = Encoder(processor)
    tokens, shares, images, total = {}, [0.0], 0, 0
    for name, found in rows.items():
        step = max(1, len(found) // LOOKED_AT)
        lengths = []
        for index in range(0, len(found), step):
            encoded = encode_example(from_row(found[index]), encoder)
            predicted = sum(label != IGNORE_INDEX for label in encoded.labels)
            lengths.append(len(encoded))
            shares.append(predicted / len(encoded))
            images += encoded.input_ids.count(encoder.image_token_id)
        total += sum(lengths)
        if lengths:
            tokens[name] = sum(lengths) / len(lengths)
    return DataFacts(sizes, scores, tokens, max(shares), images / max(1, total))
