"""Plan a training: its trained parameters, steps, time and memory, and advice for less memory."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from pixelis.config import ModelConfig, PlanFileConfig, TrainingFileConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.models.load import load_model_config_offline
from pixelis.models.vision import FEATURES_MODEL
from pixelis.planning.data import (
    RELIABILITY,
    DataStatistics,
    PlannedStage,
    plan_stages,
    read_statistics,
    sum_examples,
)
from pixelis.planning.memory import Memory, Shape, build_fake_model, forecast_memory
from pixelis.training.precision import AUTO, BF16

GIB = 2**30
# Capacity in GiB from torch's out-of-memory messages, which is less than the advertised one.
GPUS = {
    "RTX-4090": 23.6,
    "RTX-5090": 31.3,
    "L4": 22.0,
    "A10G": 22.0,
    "L40S": 44.4,
    "A100-40": 39.4,
    "A100-80": 79.1,
    "H100-80": 79.1,
    "H200-141": 139.7,
    "B200-180": 178.3,
}
# Assumed, not measured: the CUDA context with the kernels of its libraries, and the allocator's
# cache and fragmentation as a share of the tensors.
CONTEXT_GIB = 0.8
FRAGMENTATION = 0.06
# Assumed shares of supervised and of visual tokens without data, chosen rather too large.
SUPERVISED_SHARE, IMAGE_SHARE = 0.5, 0.8
MIN_ADVISED_LENGTH = 512


@dataclass(frozen=True)
class Setup:
    """The inputs of a memory forecast; each piece of advice changes one field."""

    model: ModelConfig
    batch_size: int  # examples in a forward pass of one process
    length: int  # tokens of the longest example
    image_share: float  # visual share of its tokens
    sharded: bool  # whether the weights are sharded between the GPUs (FSDP)


@dataclass(frozen=True)
class Advice:
    """A change, and the bytes of one GPU after it and all earlier changes."""

    change: str
    total: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """The complete plan; `as_json` for scripts."""

    model_name: str
    trainable: int
    parameters: int
    targets: dict[str, int]
    max_steps: int
    examples_per_step: int
    stages: list[PlannedStage] | None
    stages_note: str
    data: DataStatistics | None
    memory: Memory
    overhead: int
    gpu_bytes: int
    num_gpus: int
    tokens_per_example: float
    tokens_known: bool
    hours: float | None
    setup: Setup
    advice: list[Advice] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Bytes of one GPU."""
        return self.memory.total + self.overhead

    @property
    def fits(self) -> bool:
        """Whether the forecast fits into the GPU."""
        return self.total <= self.gpu_bytes

    def as_json(self) -> dict[str, Any]:
        """Return plain values, without the difficulty scores."""
        plain = asdict(self)
        plain["setup"]["model"] = dict(self.setup.model)
        # The old names, which scripts use.
        plain["course"], plain["course_note"] = plain.pop("stages"), plain.pop("stages_note")
        plain["beside"] = plain.pop("overhead")
        if plain["data"] is not None:
            del plain["data"]["scores"]
        return plain | {"total": self.total, "fits": self.fits}


def make_plan(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    plan: PlanFileConfig,
) -> Plan:
    """Plan a training without loading weights or using the network.

    Raises:
        ConfigError: for an unknown GPU, or a model that cannot be adapted.
        CheckpointError: when the model's configuration is not on this machine.
        DataError: when the data folder exists and cannot be read.
    """
    training = config.training
    available = gpu_bytes(plan.gpu, plan.gpu_memory_gib)
    num_gpus = plan.num_gpus or 1
    if plan.sharded and num_gpus < 2:
        raise ConfigError("sharded is for several GPUs: set num_gpus")
    data = read_statistics(Path(config.data.path), model)
    share = data.images if data is not None and data.images is not None else IMAGE_SHARE
    setup = Setup(model, training.batch_size, training.max_length, share, plan.sharded)
    precision = BF16 if training.precision == AUTO else training.precision
    adapted = build_fake_model(
        load_model_config_offline(model.model_name), model, precision=precision
    )
    memory = _forecast(setup, adapted, config, data, num_gpus)
    examples = training.batch_size * training.gradient_accumulation_steps * num_gpus
    stages = plan_stages(
        curriculum,
        max_steps=training.max_steps,
        examples_per_step=examples,
        scores=data.scores if data is not None else None,
    )
    mean_tokens = _mean_tokens(data, stages)
    tokens = mean_tokens or training.max_length
    hours = None
    if plan.tokens_per_second:
        speed = plan.tokens_per_second * num_gpus
        hours = tokens * examples * training.max_steps / speed / 3600
    result = Plan(
        model_name=model.model_name,
        trainable=sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        parameters=sum(p.numel() for p in adapted.parameters()),
        targets=_count_targets(adapted),
        max_steps=training.max_steps,
        examples_per_step=examples,
        stages=stages,
        stages_note=RELIABILITY[curriculum.strategy_label],
        data=data,
        memory=memory,
        overhead=overhead_bytes(memory.total),
        gpu_bytes=available,
        num_gpus=num_gpus,
        tokens_per_example=tokens,
        tokens_known=mean_tokens is not None,
        hours=hours,
        setup=setup,
    )
    total = result.total
    # The cheapest change first, each added to the earlier ones, until it fits.
    for change, changed in _changes(setup, config, num_gpus):
        if total <= available:
            break
        tensors = _forecast(changed, adapted, config, data, num_gpus).total
        total = tensors + overhead_bytes(tensors)
        result.advice.append(Advice(change, total, fits=total <= available))
    return result


def gpu_bytes(name: str, memory_gib: float | None) -> int:
    """Return the memory of a GPU: `memory_gib` if it is set, else by name.

    Raises:
        ConfigError: for a name that is not in the table.
    """
    if memory_gib is None and name not in GPUS:
        raise ConfigError(
            f"gpu must be one of {', '.join(GPUS)}, got {name!r}; for another one set "
            "gpu_memory_gib"
        )
    return int((GPUS[name] if memory_gib is None else memory_gib) * GIB)


def overhead_bytes(tensor_bytes: int) -> int:
    """Return the bytes of the CUDA context and the allocator, given the bytes of tensors."""
    return int(CONTEXT_GIB * GIB + FRAGMENTATION * tensor_bytes)


def _forecast(
    setup: Setup,
    adapted: PeftModel,
    config: TrainingFileConfig,
    data: DataStatistics | None,
    num_gpus: int,
) -> Memory:
    """Forecast the memory of one GPU; a change of the setup does not change the adapted model."""
    supervised = data.supervised if data is not None else None
    tokens = setup.batch_size * setup.length
    base: Any = adapted.get_base_model()
    shape = Shape(
        setup.batch_size,
        setup.length,
        max(1, int(tokens * (supervised or SUPERVISED_SHARE))),
        int(tokens * setup.image_share),
        runs_tower=_runs_tower(setup, base.config, config, data),
    )
    bf16 = config.training.precision in (AUTO, BF16)  # the table's GPUs support it
    memory = forecast_memory(adapted, shape, setup.model, bf16=bf16)
    if num_gpus == 1:
        return memory
    if not setup.sharded:  # DDP's buckets are a second copy of the gradients
        return replace(memory, gradients=2 * memory.gradients)
    # A shard of everything, and two complete layers: the current one and the prefetched next one.
    layers = [
        sum(p.numel() * p.element_size() for p in layer.parameters())
        for layer in base.model.language_model.layers
    ]
    return replace(
        memory,
        weights=memory.weights // num_gpus + 2 * max(layers),
        adapter=memory.adapter // num_gpus,
        gradients=memory.gradients // num_gpus,
        optimizer=memory.optimizer // num_gpus,
    )


def _runs_tower(
    setup: Setup, base: Any, config: TrainingFileConfig, data: DataStatistics | None
) -> bool:
    """Return whether training runs the vision tower instead of reading cached features."""
    off = config.training.vision_cache == "off"
    off |= setup.model.train_vision or setup.model.train_merger
    if off or base.model_type != FEATURES_MODEL or data is None or data.tokens is None:
        return True
    tokens = sum(data.tokens.get(name, 0) * size for name, size in data.sizes.items())
    size = 2 * base.text_config.hidden_size * tokens * setup.image_share
    return bool(size > config.training.vision_cache_gib * GIB)


def _changes(
    setup: Setup, config: TrainingFileConfig, num_gpus: int
) -> Iterator[tuple[str, Setup]]:
    examples = setup.batch_size * config.training.gradient_accumulation_steps
    if not setup.model.gradient_checkpointing:
        setup = replace(setup, model=setup.model.replace(gradient_checkpointing=True))
        yield "model.gradient_checkpointing=true (a third more time)", setup
    while setup.batch_size > 1:
        size = next(n for n in range(setup.batch_size // 2, 0, -1) if examples % n == 0)
        setup = replace(setup, batch_size=size)
        steps = f"training.gradient_accumulation_steps={examples // size}"
        yield f"training.batch_size={size} {steps} (the same steps)", setup
    if num_gpus > 1 and not setup.sharded:
        setup = replace(setup, sharded=True)
        command = "accelerate launch --config_file configs/accelerate/fsdp.yaml"
        yield f"{command} (more traffic between GPUs)", setup
    if setup.image_share > 0.1:
        length = math.ceil(setup.length * (1 - setup.image_share / 2))
        pixels = max(setup.model.min_pixels, setup.model.max_pixels // 2)
        share = 1 - (1 - setup.image_share) * setup.length / length
        smaller = setup.model.replace(max_pixels=pixels)
        setup = replace(setup, model=smaller, length=length, image_share=share)
        change = f"model.max_pixels={pixels} (smaller images) and training.max_length={length}"
        yield change, setup
    if setup.length > MIN_ADVISED_LENGTH:
        length = max(MIN_ADVISED_LENGTH, setup.length // 2)
        setup = replace(setup, length=length)
        yield f"training.max_length={length} (longer examples are left out, and counted)", setup
    if not setup.model.load_in_4bit and not setup.sharded:
        setup = replace(setup, model=setup.model.replace(load_in_4bit=True))
        yield "model.load_in_4bit=true (slower; the extra quantization)", setup


def _count_targets(adapted: Any) -> dict[str, int]:
    """Count the adapted layers of each kind, such as `self_attn.q_proj`."""
    suffix = ".lora_A.default"
    paths = [name.removesuffix(suffix) for name, _ in adapted.named_modules() if suffix in name]
    return dict(Counter(".".join(path.split(".")[-2:]) for path in paths))


def _mean_tokens(data: DataStatistics | None, stages: list[PlannedStage] | None) -> float | None:
    """Return the mean tokens of an example over the training, weighted by its mix if known."""
    if data is None or not data.tokens:
        return None
    weights = sum_examples(stages) if stages else data.sizes
    total = sum(weights.get(name, 0) for name in data.tokens)
    if total == 0:
        return None
    return sum(tokens * weights.get(name, 0) for name, tokens in data.tokens.items()) / total
