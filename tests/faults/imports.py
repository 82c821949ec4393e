"""Files through data-prep's import, and what must hold of whatever comes out."""

import json
import re
from pathlib import Path

from pixelis.config import DataPrepConfig
from pixelis.data.encode import IGNORE_INDEX, encode_example
from pixelis.data.store import from_row
from pixelis.data_prep.streams import open_stream
from pixelis.errors import UserError
from tests.faults.hostile import one_line

PAGE = Path(__file__).parents[2] / "docs/data-formats.md"
# The reasons that the page explains.
REASONS = set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE.read_text("utf-8"), re.MULTILINE))


def take(path, out, encoder=None):
    """Read an input as data-prep does, in this process.

    Gives the examples and the rejections, or what the whole input is refused for.
    """
    config = DataPrepConfig(input=str(path), num_workers=1)
    out.mkdir(exist_ok=True)
    try:
        stream = open_stream(config, None)
        made = list(stream.read(out))
    except UserError as error:
        return one_line(error), []
    examples = [from_row(row) for part in made for row in part.batch.to_pylist()]
    lines = (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    rejections = [json.loads(line) for line in lines]
    for rejection in rejections:
        assert rejection["reason"] in REASONS and rejection["line"] >= 1
        assert rejection["file"] and Path(rejection["file"]).name == rejection["file"]
        assert 0 < len(rejection["detail"]) <= 300 and "\n" not in rejection["detail"]
    for example in examples:
        assert example.question and example.answer == example.ground_truth and example.images
        if encoder is not None:
            check_encoded(example, encoder)
    used = {(e.provenance["file"], e.provenance["line"]) for e in examples}
    assert len(used) + len(rejections) == stream.num_records
    return examples, rejections


def check_encoded(example, encoder):
    """The supervised tokens are the assistant's words and nothing besides."""
    encoded = encode_example(example, encoder)
    learnt = [label for label in encoded.labels if label != IGNORE_INDEX]
    ends = encoder.end_of_turn_id
    supervised = [step for step in example.trajectory if step.supervised]
    assert learnt.count(ends) == len(supervised) + 1
    assert list(encoded.input_ids).count(encoder.image_token_id) == sum(
        map(encoder.num_image_tokens, encoded.images)
    )
    return encoded
