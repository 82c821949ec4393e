"""One plan: what would be trained, how long, in how much memory, and what to change."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pixelis.config import ModelConfig, PlanFileConfig, TrainingFileConfig, read_mapping
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.models.published import model_config
from pixelis.planning.course import DEPENDS, StagePlan, drawn_in_all, plan_course
from pixelis.planning.data_facts import DataFacts, read_data_facts
from pixelis.planning.gpus import beside_tensors, gpu_bytes
from pixelis.planning.memory import Memory, Shape, build_on_meta, forecast_memory
from pixelis.training.precision import AUTO, BF16

# Without the data: shares of an example's tokens, on the side of too much.
SUPERVISED, IMAGES = 0.5, 0.8
LEAST_LENGTH = 512
GIB = 2**30


@dataclass(frozen=True)
class Setup:
    """What a forecast of memory depends on; advice changes one field after another.

    Attributes:
        model: section `model`.
        batch_size: examples in a forward pass of one process.
        length: tokens of the longest example.
        image_share: of its tokens.
        sharded: whether the base is shared out among the GPUs (FSDP, ZeRO-3).
    """

    model: ModelConfig
    batch_size: int
    length: int
    image_share: float
    sharded: bool


@dataclass(frozen=True)
class Advice:
    """A change, and the memory of one GPU with it and all changes before it."""

    change: str
    total: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """Everything that is printed; `as_json` for scripts."""

    model_name: str
    trainable: int
    parameters: int
    targets: dict[str, int]
    max_steps: int
    examples_per_step: int
    course: list[StagePlan] | None
    course_note: str
    data: DataFacts | None
    memory: Memory
    beside: int
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
        return self.memory.total + self.beside

    @property
    def fits(self) -> bool:
        """Whether that is there."""
        return self.total <= self.gpu_bytes

    def as_json(self) -> dict[str, Any]:
        """Plain values; difficulty scores left out."""
        plain = asdict(self)
        if plain["data"] is not None:
            del plain["data"]["scores"]
        return plain | {"total": self.total, "fits": self.fits}


def make_plan(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    plan: PlanFileConfig,
) -> Plan:
    """Plan a training without loading weights or asking the network.

    Raises:
        ConfigError: for a GPU that is not known, or a model that cannot be adapted.
        CheckpointError: when the model's configuration is not on this machine.
        DataError: when the data folder is there and cannot be read.
    """
    training = config.training
    available = gpu_bytes(plan.gpu, plan.gpu_memory_gib)
    num_gpus = plan.num_gpus or config.num_processes or 1
    if config.accelerate_config is not None and num_gpus < 2:
        raise ConfigError("accelerate_config is for several processes: set num_processes")
    data = read_data_facts(Path(config.data.path), model)
    share = data.images if data is not None and data.images is not None else IMAGES
    setup = Setup(model, training.batch_size, training.max_length, share, _is_sharded(config))
    forecaster = Forecaster(config, data, num_gpus)
    memory = forecaster.memory(setup)
    adapted = forecaster.adapted(setup.model)
    counts = [(p.numel(), p.requires_grad) for p in adapted.parameters()]
    examples = training.batch_size * training.gradient_accumulation_steps * num_gpus
    course = plan_course(
        curriculum,
        max_steps=training.max_steps,
        examples_per_step=examples,
        scores=data.scores if data is not None else None,
    )
    tokens = _mean_tokens(data, course)
    per_example = tokens or training.max_length
    all_tokens = per_example * examples * training.max_steps
    speed = plan.tokens_per_second
    found = Plan(
        model_name=model.model_name,
        trainable=sum(number for number, trained in counts if trained),
        parameters=sum(number for number, _ in counts),
        targets=_targets(adapted),
        max_steps=training.max_steps,
        examples_per_step=examples,
        course=course,
        course_note=DEPENDS[curriculum.strategy_label],
        data=data,
        memory=memory,
        beside=beside_tensors(memory.total),
        gpu_bytes=available,
        num_gpus=num_gpus,
        tokens_per_example=per_example,
        tokens_known=tokens is not None,
        hours=all_tokens / (speed * num_gpus) / 3600 if speed else None,
        setup=setup,
    )
    return found if found.fits else replace(found, advice=list(_advise(found, forecaster, config)))


class Forecaster:
    """Forecasts of one training's memory under changes; a base is built once for each kind."""

    def __init__(self, config: TrainingFileConfig, data: DataFacts | None, num_gpus: int) -> None:
        """Take what does not change."""
        self._config, self._data, self._num_gpus = config, data, num_gpus
        wanted = config.training.precision
        self._precision = BF16 if wanted == AUTO else wanted  # every GPU of the table has it
        self._built: tuple[ModelConfig, Any] | None = None

    def adapted(self, model: ModelConfig) -> Any:
        """The model without weights."""
        key = model.replace(gradient_checkpointing=False, load_in_4bit=False)
        if self._built is None or self._built[0] != key:
            base = model_config(model.model_name)
            self._built = key, build_on_meta(base, model, precision=self._precision)
        return self._built[1]

    def memory(self, setup: Setup) -> Memory:
        """Of one GPU."""
        adapted = self.adapted(setup.model)
        known = self._data.supervised if self._data is not None else None
        tokens = setup.batch_size * setup.length
        shape = Shape(
            setup.batch_size,
            setup.length,
            max(1, int(tokens * (known or SUPERVISED))),
            int(tokens * setup.image_share),
            runs_tower=self._runs_tower(setup, adapted),
        )
        found = forecast_memory(adapted, shape, setup.model, bf16=self._precision == BF16)
        if self._num_gpus == 1:
            return found
        if not setup.sharded:  # DDP's buckets hold the gradients once more
            return replace(found, gradients=2 * found.gradients)
        # A part of every weight, and two whole layers: one in use, one on its way.
        layers = [
            sum(p.numel() * p.element_size() for p in layer.parameters())
            for layer in adapted.get_base_model().model.language_model.layers
        ]
        part = self._num_gpus
        return replace(
            found,
            weights=found.weights // part + 2 * max(layers),
            adapter=found.adapter // part,
            gradients=found.gradients // part,
            optimizer=found.optimizer // part,
        )

    def _runs_tower(self, setup: Setup, adapted: Any) -> bool:
        """Whether images are looked at in training: not where their features are on disk."""
        training, data = self._config.training, self._data
        off = training.vision_cache == "off" or setup.model.train_vision or setup.model.train_merger
        config = adapted.get_base_model().config
        if off or config.model_type != "qwen2_5_vl" or data is None or data.tokens is None:
            return True
        tokens = sum(data.tokens.get(name, 0) * size for name, size in data.sizes.items())
        size = 2 * config.text_config.hidden_size * tokens * setup.image_share
        return bool(size > training.vision_cache_gib * GIB)


def _advise(plan: Plan, forecaster: Forecaster, config: TrainingFileConfig) -> Iterator[Advice]:
    """Changes in the order of what they cost, each on top of those before, until it fits."""
    setup = plan.setup
    for change, changed in _changes(setup, config, plan.num_gpus):
        memory = forecaster.memory(changed)
        total = memory.total + beside_tensors(memory.total)
        fits = total <= plan.gpu_bytes
        yield Advice(change, total, fits)
        if fits:
            return


def _changes(
    setup: Setup, config: TrainingFileConfig, num_gpus: int
) -> Iterator[tuple[str, Setup]]:
    training = config.training
    share = setup.batch_size * training.gradient_accumulation_steps
    if not setup.model.gradient_checkpointing:
        setup = replace(setup, model=setup.model.replace(gradient_checkpointing=True))
        yield "model.gradient_checkpointing=true (a third more time)", setup
    while setup.batch_size > 1:
        size = next(n for n in range(setup.batch_size // 2, 0, -1) if share % n == 0)
        setup = replace(setup, batch_size=size)
        yield (
            f"training.batch_size={size} training.gradient_accumulation_steps={share // size} "
            "(the same steps)",
            setup,
        )
    if num_gpus > 1 and not setup.sharded:
        setup = replace(setup, sharded=True)
        yield "accelerate_config=configs/accelerate/fsdp.yaml (more traffic between GPUs)", setup
    if setup.image_share > 0.1:
        length = math.ceil(setup.length * (1 - setup.image_share / 2))
        pixels = max(setup.model.min_pixels, setup.model.max_pixels // 2)
        rest = (1 - setup.image_share) * setup.length
        setup = replace(
            setup,
            model=setup.model.replace(max_pixels=pixels),
            length=length,
            image_share=1 - rest / length,
        )
        yield (
            f"model.max_pixels={pixels} (smaller images) and training.max_length={length}",
            setup,
        )
    if setup.length > LEAST_LENGTH:
        length = max(LEAST_LENGTH, setup.length // 2)
        setup = replace(setup, length=length)
        yield f"training.max_length={length} (longer examples are left out, and counted)", setup
    if not setup.model.load_in_4bit and not setup.sharded:
        setup = replace(setup, model=setup.model.replace(load_in_4bit=True))
        yield "model.load_in_4bit=true (slower; the extra quantization)", setup


def _is_sharded(config: TrainingFileConfig) -> bool:
    if config.accelerate_config is None:
        return False
    kind = read_mapping(Path(config.accelerate_config)).get("distributed_type")
    return kind in ("FSDP", "DEEPSPEED")


def _targets(adapted: Any) -> dict[str, int]:
    """How often each kind of layer is adapted, as in `self_attn.q_proj`."""
    found: dict[str, int] = {}
    for name, _ in adapted.named_modules():
        if name.endswith(".lora_A.default"):
            kind = ".".join(name.removesuffix(".lora_A.default").split(".")[-2:])
            found[kind] = found.get(kind, 0) + 1
    return found


def _mean_tokens(data: DataFacts | None, course: list[StagePlan] | None) -> float | None:
    """Tokens of an example over the training, in the course's mix where it is known."""
    if data is None or not data.tokens:
        return None
    weights = drawn_in_all(course) if course else data.sizes
    known = {name: weights.get(name, 0) for name in data.tokens}
    if sum(known.values()) == 0:
        return None
    tokens = data.tokens
    return sum(tokens[n] * w for n, w in known.items()) / sum(known.values())
