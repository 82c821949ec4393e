"""Tokens and features from disk are what would have been computed; long examples are left out."""

import hashlib
import io
import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps

from pixelis.config import ModelConfig
from pixelis.data.cache import cache_folder
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import IGNORE_INDEX, PAD_TO, Encoder
from pixelis.data.example import DIFFICULTIES, SPLITS
from pixelis.data.store import SUMMARY_FILE, difficulty_file, load_split, write_rows
from pixelis.errors import CheckpointError
from pixelis.models.load import load_model, load_processor
from pixelis.models.vision import vision_digest
from pixelis.training import caches as caches_module
from pixelis.training.caches import left_out, use_token_cache, use_vision_cache
from tests.small_data import make_thin
from tests.training.conftest import logged_lines

pytestmark = pytest.mark.integration

NANO = "pixelis-nano"
MODEL = ModelConfig(torch_dtype="float32", max_pixels=12544)


@pytest.fixture(scope="module")
def base():
    return load_model(NANO, torch_dtype="float32")


@pytest.fixture
def open_splits(folder, base):
    """The splits behind the caches, and the console's lines."""

    def open_them(*, max_length=None, vision=False, limit_gib=8.0, where=folder):
        encoder = Encoder(load_processor(NANO, max_pixels=12544), max_length=max_length)
        splits = ("train", "validation")
        found = {s: CurriculumDataset(load_split(where, s), encoder) for s in splits}
        with logged_lines() as lines:
            use_token_cache(found, encoder, where, MODEL)
            if vision:
                use_vision_cache(found, base, encoder, where, limit_gib=limit_gib)
        return found, lines

    return open_them


@pytest.fixture
def encoded(folder):
    """The same splits without any cache."""
    encoder = Encoder(load_processor(NANO, max_pixels=12544))
    return CurriculumDataset(load_split(folder, "train"), encoder)


def test_tokens_are_those_that_encoding_gives(open_splits, encoded, base):
    dataset, lines = open_splits()[0]["train"], open_splits()[1]
    assert lines == []
    assert dataset.sizes == encoded.sizes
    for key in dataset.all_keys():
        cached, fresh = dataset[key], encoded[key]
        assert cached.input_ids.tolist() == list(fresh.input_ids)
        assert cached.labels.tolist() == list(fresh.labels)
        assert cached.kinds.tolist() == list(fresh.kinds)
        assert cached.answer_start == fresh.answer_start
        assert dataset.length(key) == len(fresh)
        # By the real model's rule, on the example alone.
        batch = encoded.collate([fresh])
        expected, _ = base.model.get_rope_index(
            batch["input_ids"],
            batch["mm_token_type_ids"],
            batch["image_grid_thw"],
            attention_mask=batch["attention_mask"],
        )
        assert torch.equal(cached.positions, expected[:, 0])


def test_a_batch_from_the_cache_is_a_batch_that_was_encoded(open_splits, encoded):
    dataset = open_splits()[0]["train"]
    keys = list(dataset.all_keys())[:5]
    cached = dataset.collate([dataset[key] for key in keys])
    fresh = encoded.collate([encoded[key] for key in keys])
    assert set(cached) - set(fresh) == {"position_ids"}
    rows, width = fresh["input_ids"].shape
    for name, expected in fresh.items():
        wider = expected.shape == (rows, width)
        assert torch.equal(cached[name][:, :width] if wider else cached[name], expected), name
    # Few widths: what is beyond is padding without labels.
    assert cached["input_ids"].shape[1] == -(-width // PAD_TO) * PAD_TO
    assert not cached["attention_mask"][:, width:].any()
    assert (cached["labels"][:, width:] == IGNORE_INDEX).all()


def test_features_are_the_tower_s_rounded_to_bf16_and_no_image_is_decoded(
    open_splits, encoded, base, monkeypatch
):
    dataset = open_splits(vision=True)[0]["train"]
    shown = list(dataset.all_keys())[::5]
    pairs = [(dataset[key].features, encoded.collate([encoded[key]])) for key in shown]
    for features, batch in pairs:
        with torch.inference_mode():
            found = base.model.get_image_features(
                batch["pixel_values"], batch["image_grid_thw"], return_dict=True
            )
        expected = torch.cat(list(found.pooler_output))
        assert features.dtype == torch.bfloat16
        assert features.shape == expected.shape
        # The rounding of bf16 is 1/256; on top of it come sums of other shapes.
        torch.testing.assert_close(features.float(), expected, rtol=1 / 128, atol=1e-3)
    monkeypatch.setattr(dataset, "example", None)
    batch = dataset.collate([dataset[key] for key in shown])
    assert "image_features" in batch and "pixel_values" not in batch


def test_an_image_that_comes_again_is_looked_at_once(open_splits):
    splits, _ = open_splits(vision=True)
    digests = [
        d for data in splits.values() for key in data.all_keys() for d in data.image_digests(key)
    ]
    assert len(splits["train"].features) == len(set(digests))


def test_the_second_training_computes_nothing_again(open_splits, monkeypatch):
    first = open_splits(vision=True)[0]["train"]
    monkeypatch.setattr("pixelis.data.cache.encode_example", None)
    monkeypatch.setattr(caches_module, "compute_features", None)
    again = open_splits(vision=True)[0]["train"]
    for key in again.all_keys():
        assert torch.equal(again[key].features, first[key].features)


def test_the_caches_go_by_content_not_by_place(open_splits, folder, tmp_path):
    """Other data in the same place has other caches, equal data the same ones."""
    open_splits(vision=True)
    names = {path.name for path in cache_folder(folder).iterdir() if path.is_dir()}
    shutil.copytree(folder, tmp_path / "copy")
    open_splits(vision=True, where=tmp_path / "copy")
    assert {p.name for p in cache_folder(tmp_path / "copy").iterdir() if p.is_dir()} == names
    other = Encoder(load_processor(NANO, max_pixels=6272))
    data = {"train": CurriculumDataset(load_split(folder, "train"), other)}
    use_token_cache(data, other, folder, MODEL)
    added = {p.name for p in cache_folder(folder).iterdir() if p.is_dir()} - names
    assert len(added) == 1  # smaller images take fewer tokens


def test_as_many_other_images_have_other_features(open_splits, base, folder):
    """Which examples are left out for their length depends on the tokenizer; all are looked at."""
    kept = {}
    for name, shift in (("first", 0), ("second", 1)):
        splits, _ = open_splits()
        train = splits["train"]
        size = train.sizes["hard"] - 1
        rows, tokens = train.rows["hard"], train._tokens["hard"]
        chosen = range(shift, shift + size)
        train.rows["hard"] = rows.select(chosen)
        train._tokens["hard"] = tokens.select(chosen)
        use_vision_cache(splits, base, train.encoder, folder, limit_gib=8.0)
        kept[name] = [train[key].features for key in train.all_keys()]
    assert all(features is not None for found in kept.values() for features in found)
    assert len(kept["first"]) == len(kept["second"])


def test_a_tower_with_other_settings_has_another_digest(base):
    config = base.model.visual.config
    before, blocks = vision_digest(base), config.fullatt_block_indexes
    config.fullatt_block_indexes = [*blocks, 99]
    try:
        assert vision_digest(base) != before
    finally:
        config.fullatt_block_indexes = blocks
    assert vision_digest(base) == before


# Examples that are too long


def test_what_is_longer_than_max_length_is_left_out_and_counted(open_splits, encoded):
    lengths = {key: len(encoded[key]) for key in encoded.all_keys()}
    limit = sorted(lengths.values())[len(lengths) // 2]
    splits, lines = open_splits(max_length=limit, vision=True)
    dataset = splits["train"]
    kept = [key for key, length in lengths.items() if length <= limit]
    assert 0 < len(kept) < len(lengths)
    assert len(dataset) == len(kept)
    assert max(dataset.length(key) for key in dataset.all_keys()) == limit
    # In the old order, and their rows with them.
    ids = {name: [encoded.rows[d][i]["id"] for d, i in kept if d == name] for name in dataset.rows}
    assert {name: list(rows["id"]) for name, rows in dataset.rows.items()} == ids
    for new, old in zip(dataset.all_keys(), kept, strict=True):
        assert dataset[new].input_ids.tolist() == list(encoded[old].input_ids)
    numbers = left_out(splits)
    of_train = sum(n for (split, _), n in numbers.items() if split == "train")
    assert of_train == len(lengths) - len(kept)
    assert len(lines) == 1
    assert lines[0].startswith(f"longer than training.max_length {limit} and left out: ")
    assert all(f"{n} of {' '.join(name)}" in lines[0] for name, n in numbers.items())


# Examples with an image that the processor refuses


@pytest.fixture
def thin(folder):
    """Thin images in every fourth example of `simple`, in the question or in a step; their ids."""
    path = folder / difficulty_file("simple")
    rows = pq.read_table(path).to_pylist()
    for number, row in enumerate(rows[::4]):
        make_thin(row, in_step=bool(number % 2 and row["trajectory"]))
    write_rows(rows, path)
    return {split: [r["id"] for r in rows[::4] if r["split"] == split] for split in SPLITS}


def test_what_the_processor_refuses_is_left_out_and_counted_with_example_and_reason(
    open_splits, encoded, thin
):
    for _ in range(2):  # tokenised, and from the cache
        splits, lines = open_splits(vision=True)
        dataset = splits["train"]
        expected = [id for id in encoded.rows["simple"]["id"] if id not in thin["train"]]
        assert 0 < len(expected) < len(encoded.rows["simple"])
        assert list(dataset.rows["simple"]["id"]) == expected
        assert [dataset.example(("simple", i)).id for i in range(len(expected))] == expected
        counts = {split: len(thin[split]) for split in splits}
        assert left_out(splits) == {(s, "simple"): n for s, n in counts.items() if n}
        (line,) = lines
        listed = ", ".join(f"{n} of {split} simple" for split, n in counts.items() if n)
        assert line.startswith(f"refused by the model's processor and left out: {listed} (")
        reason = "the model's processor refuses an image of 900 x 4 pixels: absolute aspect ratio"
        shown = [*thin["train"], *thin["validation"]]
        for example_id in shown[:3]:
            assert f"example {example_id}: {reason}" in line
        assert line.endswith(f"; and {len(shown) - 3} more)") == (len(shown) > 3)
        assert line.isprintable()
    for key in dataset.all_keys():
        assert len(dataset[key]) == dataset.length(key) > 0
    dataset.collate([dataset[key] for key in dataset.all_keys()])


def test_long_examples_and_refused_ones_are_told_apart(open_splits, encoded, thin):
    lengths = [len(encoded[key]) for key in encoded.all_keys() if key[0] == "hard"]
    splits, lines = open_splits(max_length=max(lengths) - 1)
    too_long, refused = lines
    assert too_long.startswith(f"longer than training.max_length {max(lengths) - 1} and left out: ")
    assert refused.startswith("refused by the model's processor and left out: ")
    assert f"{len(thin['train'])} of train simple" in refused
    assert max(splits["train"].length(key) for key in splits["train"].all_keys()) < max(lengths)


# Where it cannot be


@pytest.fixture
def users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "pixelis"


def test_where_nothing_can_be_written_beside_the_data_the_user_s_folder_is_taken(
    open_splits, folder, users
):
    cache_folder(folder).write_text("in the way")
    splits, lines = open_splits(vision=True)
    assert splits["train"].features is not None
    assert len(list(users.glob("tokens-*"))) == 2 and len(list(users.glob("vision-*"))) == 1
    assert [line.split(", since ")[0] for line in lines] == [
        f"tokens: kept in {users}",
        f"tokens: kept in {users}",
        f"vision features: kept in {users}",
    ]


def test_where_nothing_at_all_can_be_written_tokens_pass_and_features_are_computed_each_time(
    open_splits, folder, users
):
    cache_folder(folder).write_text("in the way")
    users.parent.write_text("in the way")
    splits, lines = open_splits(vision=True)
    assert splits["train"].features is None
    assert len(splits["train"].collate([splits["train"]["simple", 0]])["pixel_values"])
    assert lines[-1].startswith("vision features are not cached: ")


def test_features_that_would_be_too_large_are_not_kept(open_splits, folder):
    splits, lines = open_splits(vision=True, limit_gib=1e-6)
    assert splits["train"].features is None
    assert lines == [
        "vision features are not cached: they take up to 0.0 GiB, more than "
        "training.vision_cache_gib 1e-06"
    ]
    assert not list(cache_folder(folder).glob("vision-*"))


# Exactness


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_cold_cache_and_a_warm_one_train_to_the_same_bits(
    train, advancing, folder, tmp_path, precision
):
    def adapter(name):
        words = {"output_dir": tmp_path / name, "max_steps": 3, "precision": precision}
        result, _, _ = train(advancing, data=folder, **words)
        return (result.final_dir / "adapter_model.safetensors").read_bytes()

    cold = adapter("cold")
    assert cache_folder(folder).is_dir()
    assert adapter("warm") == cold
    shutil.rmtree(cache_folder(folder))
    assert adapter("cold-again") == cold


def test_workers_read_the_caches_to_the_same_bits(train, advancing, folder, tmp_path):
    def adapter(number):
        place = tmp_path / str(number)
        result, _, _ = train(
            advancing, data=folder, output_dir=place, max_steps=3, num_workers=number
        )
        return (result.final_dir / "adapter_model.safetensors").read_bytes()

    assert adapter(2) == adapter(0)


# Trainings on cached features


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_tower_that_is_trained_is_asked_each_time(train, advancing, folder, tmp_path):
    for name in ("train_vision", "train_merger"):
        train(advancing, data=folder, output_dir=tmp_path / name, max_steps=1, model={name: True})
    assert not list(cache_folder(folder).glob("vision-*"))
    train(advancing, data=folder, output_dir=tmp_path / "off", max_steps=1, vision_cache="off")
    assert not list(cache_folder(folder).glob("vision-*"))
    train(advancing, data=folder, output_dir=tmp_path / "usual", max_steps=1)
    assert len(list(cache_folder(folder).glob("vision-*"))) == 1


@pytest.mark.slow
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
