"""Forecast the GPU memory of a training, part by part, without loading weights.

There is no formula for the activations of a layer: the model's own code, with the adapter, the
checkpointing and the autocast of a training, runs one forward and backward pass on tensors without
contents (torch's FakeTensorMode) while the live bytes are counted.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText

from pixelis.config import ModelConfig
from pixelis.errors import ConfigError
from pixelis.models.load import DTYPES, NOT_QUANTISED
from pixelis.models.lora import add_lora
from pixelis.training.precision import BF16, halve_base, skip_input_casts, use_cpu_attention

ADAM_MOMENTS = 2
# NF4 with quantised scales: half a byte and 0.127 bits for each weight (Dettmers et al. 2023,
# section 3).
BYTES_IN_4BIT = 0.5 + 0.127 / 8


@dataclass(frozen=True)
class Shape:
    """The size of one forward pass."""

    batch_size: int
    length: int  # tokens of each example, with padding
    supervised: int  # predicted tokens in the batch
    image_tokens: int  # visual tokens in the batch
    # Whether the vision tower runs; otherwise its features come from a cache.
    runs_tower: bool = True


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the peak of a step, by part."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    inputs: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(vars(self).values())


class LiveBytes(TorchDispatchMode):
    """A counter of the bytes of tensors that are created inside it and still exist.

    A GPU's allocator calls this "allocated": without caching, fragmentation and context.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        """Start at zero; `known` are tensors that are not counted, nor are views of them."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0  # bytes now, and the most since `peak` was last set
        self._sizes = dict.fromkeys((each.untyped_storage()._cdata for each in known), 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages that it creates."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._sizes:
                    self._sizes[key] = storage.nbytes()
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._free, key)
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def build_fake_model(
    base: Any, model: ModelConfig, *, precision: str, as_on_cpu: bool = False
) -> PeftModel:
    """Build the adapted model of a base's configuration, with tensors that have no contents.

    With `as_on_cpu` it has the attention of bf16 trainings on a CPU, for a comparison with one.

    Raises:
        ConfigError: when the model has no layer to adapt.
    """
    dtype: Any = DTYPES.get(model.torch_dtype, base.dtype or torch.float32)
    kernel = model.attn_implementation
    kwargs = {} if kernel in ("auto", "flash_attention_2") else {"attn_implementation": kernel}
    try:
        with torch.device("meta"):
            built: Any = AutoModelForImageTextToText.from_config(base, dtype=dtype, **kwargs)
    except ValueError as error:
        raise ConfigError(f"{base.model_type} is no model of images and text") from error
    if precision == BF16:
        halve_base(built)
        if as_on_cpu:
            use_cpu_attention(built)
    rank = model.lora_auto_rank if model.lora_r == "auto" else model.lora_r
    adapted = add_lora(
        built,
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
        skip_input_casts(adapted)
    _fake_tensors(adapted)
    return adapted


def _fake_tensors(model: nn.Module) -> None:
    """Replace meta tensors, which no CPU operation takes, by fake ones; shared ones stay shared."""
    fakes: dict[torch.Tensor, torch.Tensor] = {}
    with FakeTensorMode():
        for module in model.modules():
            own: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for tensors in own:
                for name, tensor in tensors.items():
                    if tensor is None:
                        continue
                    if tensor not in fakes:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                        if isinstance(tensor, nn.Parameter):
                            fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                        fakes[tensor] = fake
                    tensors[name] = fakes[tensor]


def forecast_memory(adapted: PeftModel, shape: Shape, model: ModelConfig, *, bf16: bool) -> Memory:
    """Forecast the memory of a step with a model of `build_fake_model`.

    This is the peak of live tensors, without the CUDA context and the allocator's overhead.
    Attention is torch's SDPA with a fused kernel, which keeps no (T, T) matrix.
    """
    adapted.train()
    base: Any = adapted.get_base_model()
    if model.gradient_checkpointing:
        base.activation_checkpointing_enable()
    else:
        base.activation_checkpointing_disable()
    tensors = [*adapted.parameters(), *adapted.buffers()]
    trained = [p for p in adapted.parameters() if p.requires_grad]
    size = sum(_bytes(p) for p in trained)
    weights = sum(_bytes(tensor) for tensor in tensors) - size
    live = LiveBytes(known=tensors)
    with tensors[0].fake_mode, live:  # type: ignore[attr-defined]
        # In the last forward pass of a step the gradients of earlier passes and the moments exist.
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        moments = [torch.zeros_like(p) for p in trained for _ in range(ADAM_MOMENTS)]
        before = live.live
        inputs = _inputs(adapted, shape)
        start = live.peak = live.live
        after_layers = _run_step(adapted, inputs, shape, bf16=bf16, live=live)
        peak = live.peak
        for parameter in trained:
            parameter.grad = None
        del moments
    if model.load_in_4bit:
        saved, largest = _saved_by_4bit(adapted)
        weights, peak = weights - saved, peak + largest
    kept = min(after_layers, peak) - start
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
    """Return tensors of the shapes of a batch of `pixelis.data.encode.collate`."""
    size: tuple[int, int] = (shape.batch_size, shape.length)
    base: Any = adapted.get_base_model()
    vision, hidden = base.config.vision_config, base.config.text_config.hidden_size
    ids = ("input_ids", "labels", "kinds", "attention_mask", "mm_token_type_ids")
    inputs = {name: torch.empty(size, dtype=torch.long) for name in ids}
    inputs["position_ids"] = torch.empty((3, *size), dtype=torch.long)
    if shape.image_tokens and shape.runs_tower:
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        num_patches = shape.image_tokens * vision.spatial_merge_size**2
        inputs["pixel_values"] = torch.empty(num_patches, patch)
    elif shape.image_tokens:
        inputs["image_features"] = torch.empty(shape.image_tokens, hidden, dtype=torch.bfloat16)
    return inputs


def _run_step(
    adapted: PeftModel,
    inputs: dict[str, torch.Tensor],
    shape: Shape,
    *,
    bf16: bool,
    live: LiveBytes,
) -> int:
    """Run one forward and backward pass; return the live bytes after the last layer."""
    base: Any = adapted.get_base_model()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        embedded = base.get_input_embeddings()(inputs["input_ids"])
        features = inputs.get("image_features")
        if "pixel_values" in inputs:
            features = _run_tower(base, inputs.pop("pixel_values"))
        if features is not None:
            # Like `masked_scatter`: a mask as wide as the embeddings, and a new tensor.
            mask = torch.empty_like(embedded, dtype=torch.bool)
            embedded = embedded + features.to(embedded.dtype).sum()
            del mask
        del features
        hidden = base.model.language_model(
            inputs_embeds=embedded, position_ids=inputs["position_ids"], use_cache=False
        ).last_hidden_state
        del embedded
        after_layers = live.live
        rows = torch.empty(shape.supervised, dtype=torch.long)
        logits = base.get_output_embeddings()(hidden.flatten(0, 1)[rows])
        del hidden
        logits = logits.float()  # as accelerate converts the output of a model
    targets = torch.empty(shape.supervised, dtype=torch.long)
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum") / shape.supervised
    del logits, targets
    loss.backward()
    return after_layers


def _run_tower(base: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Run the blocks of the vision tower on patches, with all of them in one attention window."""
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
    """A list of sequence boundaries with the tensor arithmetic that attention uses."""

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        return _Bounds(value) if isinstance(key, slice) else value

    def __sub__(self, other: list[int]) -> "_Bounds":
        return _Bounds(a - b for a, b in zip(self, other, strict=True))

    def tolist(self) -> list[int]:
        return list(self)


def _saved_by_4bit(adapted: PeftModel) -> tuple[int, int]:
    """Return the bytes that 4 bits save, and the bytes of the largest layer when unpacked."""
    saved, largest = 0.0, 0
    for name, module in adapted.named_modules():
        plain = getattr(module, "base_layer", module)
        inside = name.endswith("base_layer")
        skipped = any(part in name for part in NOT_QUANTISED)
        if isinstance(plain, nn.Linear) and not inside and not skipped and "lora_" not in name:
            saved += _bytes(plain.weight) - plain.weight.numel() * BYTES_IN_4BIT
            largest = max(largest, _bytes(plain.weight))
    return int(saved), largest


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
