"""What a training takes of a GPU's memory, part by part, without weights.

No formula of ours for what a layer keeps: the model's own code, with the adapter, checkpointing
and autocast of a training, makes one forward and backward pass on tensors that have shapes and no
contents (torch's FakeTensorMode), and the bytes that live are counted. So it follows every change
of that code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForImageTextToText

from pixelis.config import ModelConfig
from pixelis.errors import ConfigError
from pixelis.models.load import DTYPES
from pixelis.models.lora import add_lora
from pixelis.models.quantization import SKIPPED
from pixelis.planning.live_bytes import LiveBytes
from pixelis.training.precision import BF16, attend_as_on_cpu, halve_base, spare_casts

ADAM_MOMENTS = 2
# NF4 with its scales quantised as well: half a byte a weight, and 0.127 bits of scales
# (Dettmers et al. 2023, section 3).
BYTES_IN_4BIT = 0.5 + 0.127 / 8


@dataclass(frozen=True)
class Shape:
    """One forward pass.

    Attributes:
        batch_size: examples.
        length: tokens of each, padding included.
        supervised: tokens that are predicted, in all.
        image_tokens: visual tokens, in all.
        runs_tower: whether the vision tower looks at the images in it.
    """

    batch_size: int
    length: int
    supervised: int
    image_tokens: int
    runs_tower: bool = True


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the peak of a step."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    inputs: int
    activations: int
    working: int

    @property
    def above_base(self) -> int:
        """What training adds to the base's weights."""
        return self.total - self.weights

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


def build_on_meta(
    base: Any, model: ModelConfig, *, precision: str, as_on_cpu: bool = False
) -> PeftModel:
    """The adapted model of a configuration, without weights.

    Args:
        base: its configuration (`pixelis.models.load.load_model_config_offline`).
        model: section `model`.
        precision: fp32 or bf16.
        as_on_cpu: with the attention that bf16 has on CPUs, to compare with trainings there.

    Raises:
        ConfigError: when the model has no layer to adapt.
    """
    dtype: Any = DTYPES.get(model.torch_dtype, base.dtype or torch.float32)
    kernel = model.attn_implementation
    words = {} if kernel in ("auto", "flash_attention_2") else {"attn_implementation": kernel}
    try:
        with torch.device("meta"):
            made: Any = AutoModelForImageTextToText.from_config(base, dtype=dtype, **words)
    except ValueError as error:
        raise ConfigError(f"{base.model_type} is no model of images and text") from error
    if precision == BF16:
        halve_base(made)
        if as_on_cpu:
            attend_as_on_cpu(made)
    rank = model.lora_auto_rank if model.lora_r == "auto" else model.lora_r
    adapted = add_lora(
        made,
        model_name=model.model_name,
        lora_r=rank,
        lora_alpha=model.lora_alpha,
        lora_dropout=model.lora_dropout,
        seed=0,
        use_dora=model.use_dora,
        use_rslora=model.use_rslora,
        train_vision=model.train_vision,
        train_merger=model.train_merger,
    )
    if precision == BF16 and as_on_cpu:
        spare_casts(adapted)
    return adapted


def forecast_memory(adapted: PeftModel, shape: Shape, model: ModelConfig, *, bf16: bool) -> Memory:
    """The memory of a step by parts; `adapted` is of `build_on_meta` and stays as it was.

    The peak of live tensors: not a CUDA context, nor what an allocator keeps or loses between
    blocks. Attention is torch's SDPA with a fused kernel, which keeps no (T, T) matrix.
    """
    adapted.train()
    base: Any = adapted.get_base_model()
    if model.gradient_checkpointing:
        base.activation_checkpointing_enable()
    else:
        base.activation_checkpointing_disable()
    live = LiveBytes()
    with FakeTensorMode(), live, _contents_free(adapted):
        trained = [p for p in adapted.parameters() if p.requires_grad]
        size = sum(_bytes(p) for p in trained)
        weights = live.live - size
        # There before a step's last forward pass: gradients of the first ones, and the moments.
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        moments = [torch.zeros_like(p) for p in trained for _ in range(ADAM_MOMENTS)]
        before = live.live
        inputs = _inputs(adapted, shape)
        start = live.live
        live.peak = start
        found = SimpleNamespace(kept=start)
        _step(adapted, inputs, shape, bf16=bf16, live=live, found=found)
        peak = live.peak
        for parameter in trained:
            parameter.grad = None
        del moments
    if model.load_in_4bit:
        saved, largest = _saved_by_4bit(adapted)
        weights, peak = weights - saved, peak + largest
    kept = min(found.kept, peak) - start
    return Memory(
        weights=weights,
        adapter=size,
        gradients=size,
        optimizer=ADAM_MOMENTS * size,
        inputs=start - before,
        activations=kept,
        working=peak - start - kept,
    )


def _inputs(adapted: PeftModel, shape: Shape) -> dict[str, torch.Tensor]:
    """What a collated batch brings; see `pixelis.data.encode.collate`."""
    size: tuple[int, int] = (shape.batch_size, shape.length)
    base: Any = adapted.get_base_model()
    vision, hidden = base.config.vision_config, base.config.text_config.hidden_size
    ids = ("input_ids", "labels", "kinds", "attention_mask", "mm_token_type_ids")
    made = {name: torch.empty(size, dtype=torch.long) for name in ids}
    made["position_ids"] = torch.empty((3, *size), dtype=torch.long)
    if shape.image_tokens and shape.runs_tower:
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        num_patches = shape.image_tokens * vision.spatial_merge_size**2
        made["pixel_values"] = torch.empty(num_patches, patch)
    elif shape.image_tokens:
        made["image_features"] = torch.empty(shape.image_tokens, hidden, dtype=torch.bfloat16)
    return made


def _step(
    adapted: PeftModel,
    inputs: dict[str, torch.Tensor],
    shape: Shape,
    *,
    bf16: bool,
    live: LiveBytes,
    found: SimpleNamespace,
) -> None:
    """One forward and backward pass; notes what lives when the layers have been gone through."""
    base: Any = adapted.get_base_model()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        embedded = base.get_input_embeddings()(inputs["input_ids"])
        features: torch.Tensor | None
        if "pixel_values" in inputs:
            features = _look(base, inputs.pop("pixel_values"))
        else:
            features = inputs.get("image_features")
        if features is not None:
            # As `masked_scatter` does: a mask as wide as the embeddings, and a new tensor.
            mask = torch.empty_like(embedded, dtype=torch.bool)
            embedded = embedded + features.to(embedded.dtype).sum()
            del mask
        del features
        hidden = base.model.language_model(
            inputs_embeds=embedded, position_ids=inputs["position_ids"], use_cache=False
        ).last_hidden_state
        del embedded
        found.kept = live.live
        places = torch.empty(shape.supervised, dtype=torch.long)
        logits = base.get_output_embeddings()(hidden.flatten(0, 1)[places])
        del hidden
        logits = logits.float()  # accelerate's own, of whatever a model gives
    targets = torch.empty(shape.supervised, dtype=torch.long)
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum") / shape.supervised
    del logits, targets
    loss.backward()


def _look(base: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What the vision tower makes of patches; its blocks in turn, each window being one image."""
    visual = base.model.visual
    config = visual.config
    trained = any(p.requires_grad for p in visual.parameters())
    with torch.set_grad_enabled(trained):
        hidden = visual.patch_embed(pixels)
        width = config.hidden_size // config.num_heads
        angles = tuple(torch.empty(len(hidden), width) for _ in range(2))
        bounds = _Bounds([0, len(hidden)])
        for block in visual.blocks:
            hidden = block(hidden, cu_seqlens=bounds, position_embeddings=angles)
        features: torch.Tensor = visual.merger(hidden)
    return features


class _Bounds(list[int]):
    """Where sequences begin and end, with the little arithmetic that attention does with it."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Bounds(found) if isinstance(key, slice) else found

    def __sub__(self, other: list[int]) -> "_Bounds":
        return _Bounds(a - b for a, b in zip(self, other, strict=True))

    def tolist(self) -> list[int]:
        return list(self)


def _saved_by_4bit(adapted: PeftModel) -> tuple[int, int]:
    """Bytes that a base in 4 bits does not take, and those of its largest layer, unpacked."""
    saved, largest = 0.0, 0
    for name, module in adapted.named_modules():
        plain = getattr(module, "base_layer", module)
        inside = name.endswith("base_layer")
        skipped = any(part in name for part in SKIPPED)
        if isinstance(plain, nn.Linear) and not inside and not skipped and "lora_" not in name:
            saved += _bytes(plain.weight) - plain.weight.numel() * BYTES_IN_4BIT
            largest = max(largest, _bytes(plain.weight))
    return int(saved), largest


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _contents_free(model: nn.Module) -> Iterator[None]:
    """Put tensors that look as if they were on a device in the place of a model's meta tensors."""
    kept: list[tuple[Any, dict[str, torch.Tensor | None]]] = [
        (tensors, dict(tensors))
        for module in model.modules()
        for tensors in (module._parameters, module._buffers)
    ]
    made: dict[int, Any] = {}

    def stand_in(tensor: torch.Tensor) -> Any:
        if id(tensor) not in made:
            free = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            if isinstance(tensor, nn.Parameter):
                free = nn.Parameter(free, requires_grad=tensor.requires_grad)
            made[id(tensor)] = free
        return made[id(tensor)]

    try:
        for tensors, before in kept:
            for name, tensor in before.items():
                if tensor is not None:
                    tensors[name] = stand_in(tensor)
        yield
    finally:
        for tensors, before in kept:
            tensors.update(before)
