"""Files through data-prep's import, and what must hold of whatever comes out."""

import json
import re
import shutil
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


def read_input(config, out):
    """Read an input as data-prep does, in this process, into an empty folder.

    Gives the examples, the rejections and the number of records, or what the whole input is refused
    for.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        stream = open_stream(config, None)
        examples = [from_row(row) for part in stream.read(out) for row in part.batch.to_pylist()]
    except UserError as error:
        return one_line(error), [], 0
    file = out / "rejected.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rejections = [json.loads(line) for line in lines]
    for rejection in rejections:
        is_line = type(rejection.get("line")) is int and rejection["line"] >= 1
        assert is_line is not ("id" in rejection)  # a record of COCO has an id instead
        assert rejection["file"] and Path(rejection["file"]).name == rejection["file"]
        assert 0 < len(rejection["detail"]) <= 300 and "\n" not in rejection["detail"]
    return examples, rejections, stream.num_records


def take(path, out, encoder=None):
    """Read the user's own records; see `read_input`."""
    config = DataPrepConfig(input=str(path), num_workers=1)
    examples, rejections, num_records = read_input(config, out)
    if isinstance(examples, str):
        return examples, rejections
    assert {rejection["reason"] for rejection in rejections} <= REASONS
    for example in examples:
        assert example.question and example.answer == example.ground_truth and example.images
        if encoder is not None:
            check_encoded(example, encoder)
    used = {(e.provenance["file"], e.provenance["line"]) for e in examples}
    assert len(used) + len(rejections) == num_records
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
