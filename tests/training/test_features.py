"""Trainings on cached features: of the images that there are, where the tower stays as it is."""

import hashlib
import io
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from pixelis.data.cache import cache_folder
from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import SUMMARY_FILE, difficulty_file, write_rows
from pixelis.errors import CheckpointError

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # real trainings: two minutes a file

STILL = {"model": {"lora_dropout": 0.0}, "logging_steps": 1, "max_steps": 2}


def invert_images(folder):
    """Other colours, the same sizes; the summary as data-prep would write it."""
    summary = json.loads((folder / SUMMARY_FILE).read_text())
    for name in map(difficulty_file, DIFFICULTIES):
        rows = pq.read_table(folder / name).to_pylist()
        for row in rows:
            for image in row["images"]:
                shown, file = Image.open(io.BytesIO(image["bytes"])).convert("RGB"), io.BytesIO()
                ImageOps.invert(shown).save(file, "PNG")
                image["bytes"] = file.getvalue()
        write_rows(rows, folder / name)
        summary["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / SUMMARY_FILE).write_text(json.dumps(summary))


def losses(train, curriculum, place, **words):
    result, _, _ = train(curriculum, output_dir=place, **STILL | words)
    return [loss for _, loss in result.losses]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_that_changes_changes_the_loss(train, advancing, folder, tmp_path, precision):
    words = {"data": folder, "precision": precision}
    before = losses(train, advancing, tmp_path / "before", **words)
    invert_images(folder)
    after = losses(train, advancing, tmp_path / "after", **words)
    assert len(list(cache_folder(folder).glob("vision-*"))) == 2
    seen = losses(train, advancing, tmp_path / "seen", **words, vision_cache="off")
    # In bf16, the tower is rounded where it is asked each time; where it is kept, what it says.
    assert after == pytest.approx(seen, rel={"fp32": 2e-3, "bf16": 1e-2}[precision])
    assert abs(after[0] - before[0]) > 10 * abs(after[0] - seen[0])


def test_a_tower_that_is_trained_is_asked_each_time(train, advancing, folder, tmp_path):
    for name in ("train_vision", "train_merger"):
        train(advancing, data=folder, output_dir=tmp_path / name, max_steps=1, model={name: True})
    assert not list(cache_folder(folder).glob("vision-*"))
    train(advancing, data=folder, output_dir=tmp_path / "off", max_steps=1, vision_cache="off")
    assert not list(cache_folder(folder).glob("vision-*"))
    train(advancing, data=folder, output_dir=tmp_path / "usual", max_steps=1)
    assert len(list(cache_folder(folder).glob("vision-*"))) == 1


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [("auto", "off", "was True, is False"), ("off", "auto", "was False, is True")],
)
def test_a_training_goes_on_with_the_same_choice_only(
    train, advancing, tmp_path, first, then, message
):
    train(advancing, max_steps=4, vision_cache=first)
    words = {"output_dir": tmp_path / "other", "resume_from": tmp_path / "sft" / "checkpoint-3"}
    with pytest.raises(CheckpointError, match=f"cached vision features {message}; go on where"):
        train(advancing, max_steps=4, vision_cache=then, **words)
