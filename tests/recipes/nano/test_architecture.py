import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from pixelis.data.chat import Message
from pixelis.data.encode import collate
from pixelis.data_prep.scenes import CELLS, SIDE
from recipes.nano.architecture import build_config


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).eval()


def test_it_is_qwen2_5_vl_at_two_to_six_million_parameters(model):
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert 2e6 < sum(p.numel() for p in model.parameters()) < 6e6
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_configuration_knows_the_tokenizer(model, tokenizer):
    config = model.config
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert config.video_token_id == tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert config.vision_start_token_id == tokenizer.convert_tokens_to_ids("<|vision_start|>")
    assert config.text_config.vocab_size == len(tokenizer)
    assert config.text_config.eos_token_id == tokenizer.eos_token_id
    head = config.text_config.hidden_size // config.text_config.num_attention_heads
    assert sum(config.text_config.rope_parameters["mrope_section"]) * 2 == head


def test_one_visual_token_sees_one_cell_of_a_scene(processor):
    inputs = processor.image_processor(images=[Image.new("RGB", (SIDE, SIDE))], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert len(inputs["pixel_values"]) // processor.image_processor.merge_size**2 == len(CELLS)


@pytest.mark.parametrize(("given", "grid"), [((20, 20), (2, 2)), ((448, 448), (16, 16))])
def test_images_are_resized_into_its_limits(processor, given, grid):
    inputs = processor.image_processor(images=[Image.new("RGB", given)], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, *grid]]


def test_it_answers_a_padded_batch_as_it_answers_each_alone(model, encoder):
    conversations = [
        [Message("user", (Image.new("RGB", (SIDE, SIDE), (200, 20, 20)), "What is this?"))],
        [Message("user", ("Hello.",))],
    ]
    encoded = [encoder.encode(conversation) for conversation in conversations]

    @torch.inference_mode()
    def logits(items):
        batch = collate(items, encoder)
        batch.pop("labels")
        return model(**batch).logits

    together = logits(encoded)
    assert together.shape == (2, len(encoded[0]), model.config.text_config.vocab_size)
    for row, item in enumerate(encoded):
        alone = logits([item])[0]
        torch.testing.assert_close(together[row, : len(item)], alone, atol=1e-4, rtol=1e-4)


def test_it_sees_the_image(model, encoder):
    @torch.inference_mode()
    def last_logits(colour):
        image = Image.new("RGB", (56, 56), colour)
        batch = collate([encoder.encode([Message("user", (image, "What?"))])], encoder)
        batch.pop("labels")
        return model(**batch).logits[0, -1]

    assert torch.equal(last_logits("red"), last_logits("red"))
    assert not torch.equal(last_logits("red"), last_logits("blue"))
