"""An exported folder is the base with its adapter: the same logits and the same rollouts."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pixelis.config import ModelConfig
from pixelis.data.chat import example_messages
from pixelis.data.encode import Encoder, collate
from pixelis.data_prep.generate import generate_example
from pixelis.errors import CheckpointError, ConfigError
from pixelis.evaluation.rollout import Conversation, RolloutSettings, roll_out
from pixelis.models import export as export_module
from pixelis.models.export import REPORT_FILE, base_dtype, export_merged
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import add_lora, load_adapter

pytestmark = pytest.mark.integration

NANO = "pixelis-nano"
EXAMPLES = [
    generate_example(seed=5, index=i, task=task, sample_type="positive")
    for i, task in enumerate(("spatial_reasoning", "text_extraction", "temporal_tracking"))
]


def save_adapter(folder, **changed):
    settings = {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "seed": 0} | changed
    model = add_lora(load_model(NANO, torch_dtype="float32"), model_name=NANO, **settings)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("export") / "adapter")


def export(adapter, folder, **changed):
    model = ModelConfig(model_name=NANO, max_pixels=12544)
    return export_merged(adapter, folder, EXAMPLES[0], model=model, source="here", **changed)


@pytest.fixture(scope="module")
def exported(adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "merged"
    return folder, export(adapter, folder, save_dtype="float32")


def logits(model, example, encoder):
    batch = collate([encoder.encode(example_messages(example))], encoder)
    with torch.no_grad():
        return model.eval()(**{k: v for k, v in batch.items() if k != "kinds"}).logits


def dtypes(folder):
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118


def test_the_merged_model_says_what_base_and_adapter_say(adapter, exported):
    folder, about = exported
    encoder = Encoder(load_processor(str(folder)))
    base = load_model(NANO, torch_dtype="float32")
    plain = [logits(base, example, encoder) for example in EXAMPLES]
    both = load_adapter(base, adapter, model_name=NANO)
    merged = load_model(str(folder), torch_dtype="auto")
    assert dtypes(folder) == {torch.float32}
    for example, before in zip(EXAMPLES, plain, strict=True):
        expected = logits(both, example, encoder)
        assert (expected - before).abs().max() > 0.1
        torch.testing.assert_close(logits(merged, example, encoder), expected, atol=1e-3, rtol=0)
    assert about.merging < 1e-4 and about.reading == 0 and about.rounding < 1e-4
    assert about.same_token == 1


def test_the_rollouts_are_the_same(adapter, exported):
    folder, _ = exported
    encoder = Encoder(load_processor(str(folder)))
    both = load_adapter(load_model(NANO, torch_dtype="float32"), adapter, model_name=NANO)
    merged = load_model(str(folder), torch_dtype="auto")
    settings = RolloutSettings(max_operations=3, max_new_tokens=48, batch_size=3)
    talks = [Conversation(example) for example in EXAMPLES]
    first, second = (roll_out(model, encoder, talks, settings) for model in (both, merged))
    assert [[turn.text for turn in r.turns] for r in first] == [
        [turn.text for turn in r.turns] for r in second
    ]
    assert any(r.num_operations for r in first)


def test_processor_template_and_limits_come_along(exported):
    folder, about = exported
    limits = {"min_pixels": ModelConfig().min_pixels, "max_pixels": 12544}
    saved, own = load_processor(str(folder)), load_processor(NANO, **limits)
    assert saved.chat_template == own.chat_template
    assert dict(saved.image_processor.size) == dict(own.image_processor.size)
    names = {path.name for path in folder.iterdir()}
    assert names == {*about.sha256, REPORT_FILE}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    told = json.loads((folder / REPORT_FILE).read_text())
    assert (told["base_model"], told["adapter"], told["dtype"]) == (NANO, "here", "float32")
    assert not list(folder.parent.glob(".merged*"))


def test_saved_in_the_bases_type_when_asked(adapter, tmp_path):
    assert base_dtype(NANO) == "bfloat16"
    about = export(adapter, tmp_path / "merged", save_dtype="base")
    assert dtypes(tmp_path / "merged") == {torch.bfloat16}
    # What is saved is the merged weights, rounded once; that alone moves the logits.
    assert about.merging < 1e-4 and about.reading == 0
    assert 1e-3 < about.rounding < 1
    assert about.same_token > 0.95


@pytest.mark.parametrize(
    "kind",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"train_vision": True, "train_merger": True},
    ],
    ids=str,
)
def test_every_kind_of_adapter(kind, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", **kind)
    about = export(adapter, tmp_path / "merged", save_dtype="float32")
    assert about.merging < 1e-3


# Whole or not at all


def nothing_below(folder):
    return list(folder.iterdir()) == []


def test_nothing_is_written_over(adapter, tmp_path):
    with pytest.raises(ConfigError, match="^output_dir must not be there yet, got .*; name anoth"):
        export(adapter, tmp_path)


def test_over_the_tolerance_nothing_is_written(adapter, tmp_path):
    with pytest.raises(CheckpointError, match="more than tolerance 1e-12; nothing was written$"):
        export(adapter, tmp_path / "merged", tolerance=1e-12)
    assert nothing_below(tmp_path)


def test_what_is_read_back_is_compared_too(adapter, tmp_path, monkeypatch):
    def load_harmed(name, **words):
        if name == NANO:
            return load_model(name, **words)
        path = next((tmp_path / ".merged.new").glob("*.safetensors"))
        tensors = load_file(path)
        tensors["model.norm.weight"] *= 2  # before the head
        save_file(tensors, path, metadata={"format": "pt"})
        return load_model(name, **words)

    monkeypatch.setattr(export_module, "load_model", load_harmed)
    with pytest.raises(CheckpointError, match="^what was saved, read back, says something else: "):
        export(adapter, tmp_path / "merged")
    assert nothing_below(tmp_path)


def test_an_interrupted_export_leaves_nothing(adapter, tmp_path, monkeypatch):
    def interrupt(*_):
        assert (tmp_path / ".merged.new" / "model.safetensors").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "file_sha256", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(adapter, tmp_path / "merged")
    assert nothing_below(tmp_path)
