"""One training from its configuration: what it leaves, and what it refuses."""

import json
import re
import shutil
import signal

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pixelis.curriculum import CurriculumConfig
from pixelis.data.cache import cache_folder
from pixelis.data.encode import Encoder, encode_example
from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import difficulty_file, from_row, load_split, write_rows
from pixelis.errors import CheckpointError, ConfigError, DataError, UserError
from pixelis.models.load import EMBEDDED_DIR, load_model, load_processor
from pixelis.models.lora import load_adapter
from pixelis.recorder import UNTRUSTED
from pixelis.training.checkpoint import ADAPTER_FILE
from tests.small_data import make_thin

pytestmark = pytest.mark.integration


def test_what_a_training_leaves(whole):
    names = {path.name for path in whole.output_dir.iterdir()}
    assert names == {"checkpoint-6", "checkpoint-8", "best", "final", "visits", "events.json"}
    for name in ("best", "final"):
        folder = whole.output_dir / name
        model = load_model("pixelis-nano", torch_dtype="float32")
        load_adapter(model, folder, model_name="pixelis-nano")
        # Nothing that names this machine.
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "pixelis-nano"


def test_the_result_says_what_was_done(train, advancing):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    result, recorder, _ = train(advancing, max_steps=4)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert [step for step, _ in result.evaluations] == [2, 4]
    assert result.losses == [(s, recorder.values["train/loss", s]) for s in (2, 3, 4)]
    last = CurriculumConfig.from_dict(advancing).stages[-1].difficulty_mix
    performances = {
        step: sum(part * strata[name] for name, part in last.items())
        for step, strata in result.evaluations
    }
    assert result.best["performance"] == pytest.approx(max(performances.values()))
    assert performances[result.best["step"]] == pytest.approx(max(performances.values()))
    assert not result.model.training
    assert recorder.events == [e.to_dict() for e in result.events]
    assert "Final stage: balanced" in result.statistics
    assert "Total samples used: 16" in result.statistics

    # Only the adapter has learned.
    before = load_model("pixelis-nano", torch_dtype="float32").state_dict()
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in result.model.state_dict().items()
        if "lora_" not in name
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    weights = load_file(result.final_dir / "adapter_model.safetensors")
    assert weights and all("lora_" in name for name in weights)
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)


def test_trusted_examples_decide_and_the_validation_split_is_only_recorded(
    train, advancing, data_dir, folder, tmp_path
):
    trusted, rows = tmp_path / "trusted.parquet", []
    for name in DIFFICULTIES:
        file = folder / difficulty_file(name)
        own = pq.read_table(file).to_pylist()
        rows += [row for row in own if row["split"] == "validation"]
        wrong = {"conclusion": "Who knows.", "answer": "unknown", "ground_truth": "unknown"}
        write_rows([row | wrong if row["split"] == "validation" else row for row in own], file)
    write_rows(rows, trusted)
    plain, told, _ = train(advancing, max_steps=5, eval_steps=3)
    result, recorder, _ = train(
        advancing,
        max_steps=5,
        eval_steps=3,
        data=folder,
        trusted=trusted,
        output_dir=tmp_path / "t",
    )
    assert [e.to_dict() for e in result.events] == [e.to_dict() for e in plain.events]
    assert (result.evaluations, result.best) == (plain.evaluations, plain.best)
    for name in ("final", "best"):
        files = [each.final_dir.with_name(name) / ADAPTER_FILE for each in (plain, result)]
        assert files[0].read_bytes() == files[1].read_bytes()
    untrusted = {key: v for key, v in recorder.values.items() if key[0].startswith(UNTRUSTED)}
    assert {key: v for key, v in recorder.values.items() if key not in untrusted} == told.values
    # At the scheduled evaluations and after the last step, not where an attempt is due.
    assert {step for step, _ in result.evaluations} > {step for _, step in untrusted} == {3, 5}
    names = {key.rpartition("/")[2] for key, _ in untrusted}
    assert names == {"loss", "token_accuracy"} and len(untrusted) == 2 * 3 * 2
    for (key, step), value in untrusted.items():
        measured = recorder.values[key.replace(UNTRUSTED, "eval/"), step]
        assert value > measured if key.endswith("/loss") else value <= measured


def test_the_whole_model_is_not_trained(train, advancing, tmp_path):
    expected = "model.use_lora must be true, got false (only the adapter is trained and saved)"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        train(advancing, model={"use_lora": False})
    assert not (tmp_path / "sft").exists()


def test_a_training_that_diverges_ends_and_says_so(train, advancing, tmp_path):
    with pytest.raises(UserError) as caught:
        train(advancing, learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30)
    assert str(caught.value) == (
        "training diverged: after step 2 the validation loss of simple is nan; "
        "lower training.learning_rate or training.max_grad_norm"
    )
    assert not (tmp_path / "sft" / "final").exists()


def test_a_training_that_diverges_where_examples_are_scored_says_so_too(train, advancing):
    paced = advancing | {"strategy": "self_paced"}
    with pytest.raises(UserError) as caught:
        train(paced, learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30)
    pattern = r"training diverged: after step 2 the loss of \w+ example \d+ is nan; lower .*"
    assert re.fullmatch(pattern, str(caught.value)), caught.value


def test_a_base_that_is_not_there(train, advancing, tmp_path):
    place = str(tmp_path / "no-model")
    with pytest.raises(CheckpointError, match=f"no model folder {place}; "):
        train(advancing, model={"model_name": place})


def test_a_base_without_a_pad_token_trains_as_one_that_has_it(train, advancing, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED_DIR, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": None}))
    adapters = []
    for number, name in enumerate(("pixelis-nano", str(folder))):
        place = tmp_path / str(number)
        result, _, _ = train(advancing, model={"model_name": name}, output_dir=place, max_steps=3)
        adapters.append(load_file(result.final_dir / ADAPTER_FILE))
    one, other = adapters
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def lengths(data_dir):
    """Tokens of each training example by difficulty."""
    encoder = Encoder(load_processor("pixelis-nano", max_pixels=12544))
    return {
        name: [len(encode_example(from_row(row), encoder)) for row in rows]
        for name, rows in load_split(data_dir, "train").items()
    }


def test_examples_that_are_too_long_are_left_out_and_counted(trained, advancing, lengths):
    limit = sorted(length for found in lengths.values() for length in found)[-4]
    fitting = {name: [n for n in found if n <= limit] for name, found in lengths.items()}
    left_out = {name: len(lengths[name]) - len(found) for name, found in fitting.items()}
    assert 0 < sum(left_out.values()) <= 3
    seen = trained(advancing | {"enabled": False}, max_length=limit, max_steps=4)
    (line,) = [line for line in seen.lines if "left out" in line]
    assert line.startswith(f"longer than training.max_length {limit} and left out: ")
    told = re.findall(r"(\d+) of train (\w+)", line)
    expected = {k: n for k, n in left_out.items() if n}
    assert {name: int(num) for num, name in told} == expected
    values = seen.recorder.values
    recorded = {name: values.get((f"data/train/{name}/left_out", 0)) for name in expected}
    assert recorded == expected
    # A pass over a difficulty is over those that are left.
    for keys in seen.keys.values():
        assert all(index < len(fitting[name]) for name, index in keys)


def test_where_all_of_a_difficulty_are_too_long_it_says_so(train, advancing, tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(advancing, max_length=20)
    assert str(caught.value) == (
        "Stage 'simple' takes 1 of its examples from difficulty 'simple', but the train split, "
        "without examples longer than training.max_length 20, has no example of it."
    )
    assert not (tmp_path / "sft" / "final").exists()


def test_what_is_left_out_does_not_make_data_of_one_difficulty(train, advancing, data_dir):
    rows = load_split(data_dir, "train")
    without = tuple(id for name in ("simple", "hard") for id in rows[name]["id"])
    pattern = r" and those of data\.exclude, has no example of it\.$"
    with pytest.raises(ConfigError, match=pattern):
        train(advancing | {"enabled": False}, exclude=without)


def test_with_the_curriculum_off_data_of_one_difficulty_are_trained_on_whole(
    trained, advancing, folder
):
    for name in ("simple", "hard"):
        path = folder / difficulty_file(name)
        write_rows([], path)
    seen = trained(advancing | {"enabled": False}, data=folder, max_steps=4)
    assert {name for keys in seen.keys.values() for name, _ in keys} == {"medium"}
    start, end = seen.result.events
    assert start.mix == end.mix == {"simple": 0.0, "medium": 1.0, "hard": 0.0}
    assert list(end.strata) == ["medium"] and end.perf_after == end.strata["medium"]


@pytest.mark.parametrize("in_step", [False, True])
def test_a_training_leaves_out_what_the_processor_refuses(trained, advancing, folder, in_step):
    path = folder / difficulty_file("simple")
    rows = pq.read_table(path).to_pylist()
    thin = [make_thin(row, in_step=in_step and bool(row["trajectory"])) for row in rows[::3]]
    write_rows(rows, path)
    seen = trained(advancing, data=folder, max_steps=3)
    num_train = sum(row["split"] == "train" for row in thin)
    assert seen.recorder.values["data/train/simple/left_out", 0] == num_train > 0
    assert any(f"left out: {num_train} of train simple" in line for line in seen.lines)
    num_left = sum(row["split"] == "train" for row in rows) - num_train
    drawn = {i for keys in seen.keys.values() for name, i in keys if name == "simple"}
    assert drawn and max(drawn) < num_left


def test_where_all_of_a_difficulty_are_refused_it_says_so(train, advancing, folder):
    path = folder / difficulty_file("simple")
    write_rows([make_thin(row) for row in pq.read_table(path).to_pylist()], path)
    with pytest.raises(ConfigError) as caught:
        train(advancing, data=folder)
    assert str(caught.value) == (
        "Stage 'simple' takes 1 of its examples from difficulty 'simple', but the train split, "
        "without examples longer than training.max_length 512 or refused by the model's processor, "
        "has no example of it."
    )


def break_images(folder):
    path = folder / difficulty_file("simple")
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        if row["split"] == "train":
            row["images"][0]["bytes"] = b"no image"
    write_rows(rows, path)


def test_a_broken_image_is_named_before_training_begins(train, advancing, folder, tmp_path):
    break_images(folder)
    pattern = r"^cota_simple\.parquet: example \S+: an image does not open \([^\n]*\)$"
    for _ in range(2):  # what was begun is not taken for whole
        with pytest.raises(DataError, match=pattern):
            train(advancing, data=folder)
    kept = [path for path in cache_folder(folder).iterdir() if path.suffix != ".lock"]
    assert kept == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_image_met_in_training_is_named(
    train, advancing, folder, tmp_path, capsys, monkeypatch, num_workers
):
    # As if it broke after its tokens were looked up: only one who looks at the pixels can notice.
    monkeypatch.setattr("pixelis.training.caches.file_digests", lambda folder: {})
    train(advancing, data=folder, output_dir=tmp_path / "before", max_steps=1, vision_cache="off")
    capsys.readouterr()
    break_images(folder)
    with pytest.raises(DataError, match=r"^example \S+: an image does not open \([^\n]*\)$"):
        train(advancing, data=folder, num_workers=num_workers, vision_cache="off")
    assert capsys.readouterr().err == "", "there is no bar without a terminal"
