from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from pixelis.config import ModelConfig
from pixelis.data.encode import Encoder
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.tasks import TASKS
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import add_lora
from recipes.nano.architecture import build_config

NANO = "pixelis-nano"


def build_lively(encoder):
    """Build a random model of the base's shape that generates another token in every context.

    Freshly initialised weights are too small for that: such a model repeats one token.
    """
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(build_config(encoder.tokenizer))
    model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    nn.init.normal_(model.get_input_embeddings().weight)
    # Turns are to end by themselves as well, in both ways.
    ends = [encoder.end_of_turn_id, encoder.tokenizer.pad_token_id]
    model.lm_head.weight.data[ends] *= 1.4
    return model.eval()


@pytest.fixture(scope="session")
def encoder():
    return Encoder(load_processor(NANO))


@pytest.fixture(scope="session")
def nano():
    """The embedded base in fp32."""
    return load_model(NANO, torch_dtype="float32")


@pytest.fixture(scope="session")
def lively(encoder):
    """A random model that puts decoding to the test."""
    return build_lively(encoder)


@pytest.fixture(scope="session")
def adapted(encoder):
    """A model with an adapter that changes what it generates."""
    base = build_lively(encoder)
    model = add_lora(
        base, ModelConfig(model_name=NANO, lora_r=4, lora_alpha=8, lora_dropout=0.1), seed=0
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="session")
def examples():
    """Ten examples: each task as a plain example and as a judgement of a flawed solution."""
    types = ("positive", "outcome_negative")
    return [
        replace(
            generate_example(seed=7, index=i, task=task, sample_type=types[i % 2]),
            difficulty=("simple", "medium", "hard")[i % 3],
            split="test",
        )
        for i, task in enumerate([*TASKS, *TASKS])
    ]
