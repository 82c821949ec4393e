"""Qwen2.5-VL, Qwen3-VL and the embedded base go the same way: loaded, encoded, trained, rolled out.

The first two are random models of a few thousand parameters in their families' own classes, with
the embedded base's tokenizer, in folders as `save_pretrained` writes them.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.data.chat import Message, example_messages
from pixelis.data.encode import IGNORE_INDEX, Encoded, Encoder, collate
from pixelis.data_prep.generate import generate_example
from pixelis.evaluation.rollout import Conversation, RolloutSettings, roll_out
from pixelis.evaluation.turns import OUTCOMES
from pixelis.models.export import export_merged
from pixelis.models.load import EMBEDDED_DIR, load_model, load_processor
from pixelis.models.lora import load_adapter
from pixelis.recorder import NullRecorder
from pixelis.training.sft import TrainingSettings, run_training

pytestmark = pytest.mark.integration

FAMILIES = ("embedded", "Qwen2.5-VL", "Qwen3-VL")
CLASSES = {
    "embedded": Qwen2_5_VLForConditionalGeneration,
    "Qwen2.5-VL": Qwen2_5_VLForConditionalGeneration,
    "Qwen3-VL": Qwen3VLForConditionalGeneration,
}
SIDE = {"embedded": 28, "Qwen2.5-VL": 28, "Qwen3-VL": 32}  # pixels of a visual token
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}
VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}


def _ids(tokenizer):
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}


def _write(family, folder):
    processor = AutoProcessor.from_pretrained(str(EMBEDDED_DIR))
    ids = _ids(processor.tokenizer)
    text = TEXT | {"vocab_size": len(processor.tokenizer)}
    if family == "Qwen2.5-VL":
        vision = VISION | {"out_hidden_size": 32, "fullatt_block_indexes": [1]}
        text["rope_parameters"] = text["rope_parameters"] | {"mrope_interleaved": False}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    else:
        processor = Qwen3VLProcessor(
            Qwen2VLImageProcessor(patch_size=16),
            processor.tokenizer,
            Qwen3VLVideoProcessor(),
            chat_template=processor.chat_template,
        )
        vision = VISION | {
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 64,
        }
        config = Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    torch.manual_seed(0)
    model = CLASSES[family](config)
    for parameter in model.parameters():  # freshly initialised weights are too small to see much
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="session")
def names(tmp_path_factory):
    """Family -> what model.model_name is set to."""
    found = {"embedded": "pixelis-nano"}
    for family in FAMILIES[1:]:
        folder = tmp_path_factory.mktemp("families") / family
        _write(family, folder)
        found[family] = str(folder)
    return found


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def name(family, names):
    return names[family]


@pytest.fixture
def encoder(name):
    return Encoder(load_processor(name, min_pixels=3136, max_pixels=200 * 200))


@pytest.fixture(scope="module")
def example():
    return generate_example(seed=3, index=0, task="text_extraction", sample_type="positive")


def with_images(item, images):
    return Encoded(item.input_ids, item.labels, item.answer_start, tuple(images))


def test_the_class_and_the_processor(family, name):
    model = load_model(name, torch_dtype="float32")
    assert type(model) is CLASSES[family]
    processor = load_processor(name)
    side = processor.image_processor.patch_size * processor.image_processor.merge_size
    assert side == SIDE[family]


@pytest.mark.parametrize("size", [(112, 112), (200, 90), (64, 131)])
def test_inputs_are_those_of_the_models_own_processor(encoder, size):
    images = [Image.new("RGB", size, "red"), Image.new("RGB", (112, 112), "blue")]
    content = [{"type": "image"}, {"type": "text", "text": "what is it"}, {"type": "image"}]
    chat = [{"role": "user", "content": content}]
    text = encoder.processor.apply_chat_template(chat, tokenize=False)
    own = encoder.processor(
        text=text, images=images, return_tensors="pt", return_mm_token_type_ids=True
    )
    message = Message("user", (images[0], "what is it", images[1]))
    batch = collate([encoder.encode([message])], encoder)
    for key in ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw"):
        assert torch.equal(batch[key], own[key]), key
    torch.testing.assert_close(batch["pixel_values"], own["pixel_values"])
    tokens = batch["image_grid_thw"].prod(-1) // 4
    assert batch["mm_token_type_ids"].sum() == tokens.sum()


def test_positions_have_three_dimensions_where_there_is_an_image(name, encoder, example):
    batch = collate([encoder.encode(example_messages(example))], encoder)
    model = load_model(name, torch_dtype="float32")
    keys = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    positions, _ = model.model.get_rope_index(**{key: batch[key] for key in keys})
    time, down, across = positions[:, 0]
    is_image = batch["mm_token_type_ids"][0].bool()
    assert torch.equal(time[~is_image], down[~is_image])
    assert torch.equal(time[~is_image], across[~is_image])
    _, height, width = (batch["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist()
    first = is_image.nonzero()[0, 0]
    block = slice(first, first + height * width)
    assert down[block].unique().numel() == height
    assert across[block].unique().numel() == width


def test_the_loss_changes_with_the_image(name, encoder, example):
    item = encoder.encode(example_messages(example))
    model = load_model(name, torch_dtype="float32")

    def loss(images):
        batch = collate([with_images(item, images)], encoder)
        with torch.no_grad():
            return model(**batch).loss.item()

    other = [image.transpose(Image.Transpose.ROTATE_180) for image in item.images]
    assert loss(item.images) == loss(item.images) != loss(other)


TEMPLATES = {"Qwen2.5-VL": "qwen2_5_vl", "Qwen3-VL": "qwen3_vl"}


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl has the templates")
@pytest.mark.parametrize("family", TEMPLATES, indirect=True)
def test_the_published_chat_templates_say_the_same(family, encoder, example):
    own = encoder.encode(example_messages(example))
    spec = importlib.util.find_spec("trl")
    folder = Path(spec.submodule_search_locations[0]) / "chat_templates"
    template = (folder / f"{TEMPLATES[family]}.jinja").read_text(encoding="utf-8")
    encoder.processor.chat_template = template
    published = encoder.encode(example_messages(example))
    assert published.input_ids == own.input_ids
    assert published.labels == own.labels


# A training through the project's own loader and trainer, and what comes after it


def test_a_training_and_its_adapter(name, encoder, example, made_data, tmp_path):
    training = TrainingConfig(
        output_dir=str(tmp_path / "sft"),
        max_steps=3,
        batch_size=2,
        gradient_accumulation_steps=1,
        learning_rate=5e-3,
        warmup_steps=0,
        max_length=1024,
    )
    curriculum = {"advancement_interval": 2, "eval_samples_per_difficulty": 2}
    model = ModelConfig(
        model_name=name, lora_r=4, torch_dtype="float32", max_pixels=12544, lora_dropout=0.0
    )
    settings = TrainingSettings(training, model, CurriculumConfig.from_dict(curriculum), made_data)
    result = run_training(settings, NullRecorder())
    batch = collate([encoder.encode(example_messages(example))], encoder)
    with torch.no_grad():
        trained = result.model(**batch).logits
        with result.model.disable_adapter():
            assert not torch.allclose(result.model(**batch).logits, trained, atol=1e-4)
        base = load_model(name, torch_dtype="float32")
        loaded = load_adapter(base, result.final_dir, model_name=name).eval()
        assert torch.equal(loaded(**batch).logits, trained)
    assert (batch["labels"] != IGNORE_INDEX).any()
    settings = RolloutSettings(max_operations=1, max_new_tokens=8, batch_size=1)
    [rollout] = roll_out(loaded, encoder, [Conversation(example)], settings)
    assert rollout.outcome in OUTCOMES
    assert rollout.turns[0].num_new_tokens > 0
    about = export_merged(
        result.final_dir,
        tmp_path / "merged",
        example,
        model=ModelConfig(model_name=name),
        source="final",
        save_dtype="float32",
    )
    assert about.merging < 1e-3 and about.reading < 1e-3
    assert type(load_model(str(tmp_path / "merged"))) is type(base)
