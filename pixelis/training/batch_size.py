"""The search for the largest batch size that fits into memory, before the first step.

A step's gradient is a sum over its supervised tokens, divided by the number of those tokens in the
step. How the step's examples are split into forward passes changes nothing but rounding.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils import DistributedType, find_executable_batch_size
from accelerate.utils.memory import clear_device_cache

from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.errors import ConfigError

logger = logging.getLogger(__name__)

# accelerate recognises the message of torch's allocator; oneDNN and C++ report the same failure
# with other messages.
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
OTHER_MESSAGES = ("could not create a primitive", "could not create a memory", "std::bad_alloc")


class Split(NamedTuple):
    """How a process's share of a step is split.

    Attributes:
        batch_size: examples in one forward pass.
        accumulation_steps: forward passes in one step.
    """

    batch_size: int
    accumulation_steps: int

    def __str__(self) -> str:
        """Return it as users write it, such as `8 x 2`."""
        return f"{self.batch_size} x {self.accumulation_steps}"


def smaller(split: Split) -> Split | None:
    """Return the next smaller batch size, at most half, for the same step; None at 1."""
    share = split.batch_size * split.accumulation_steps
    for size in range(split.batch_size // 2, 0, -1):
        if share % size == 0:
            return Split(size, share // size)
    return None


def longest(dataset: CurriculumDataset, difficulties: Iterable[str], number: int) -> list[Key]:
    """Return the keys of the longest examples, in tokens, longest first."""
    keys = [(name, index) for name in difficulties for index in range(dataset.sizes[name])]
    return sorted(keys, key=lambda key: (-dataset.length(key), key))[:number]


def find_batch_size(trainer: Any, split: Split, keys: Sequence[Key]) -> Split:
    """Return the largest batch size, halved from the given one, whose passes fit into memory.

    Each size is tried with the longest examples, all adapter gradients, and memory for the
    optimiser's two moments of each trained weight. Weights, gradients and random generators stay
    as they were.

    Args:
        trainer: a CurriculumTrainer, not yet training.
        split: the first split to try.
        keys: the longest examples (`longest`); if there are fewer than `split.batch_size`, they are
            repeated.

    Raises:
        ConfigError: when one example alone does not fit, with what to change.
    """
    tried = split

    def reduce() -> int:
        nonlocal tried
        tried = smaller(tried) or Split(0, 0)
        return tried.batch_size

    def attempt(batch_size: int) -> None:
        # Free the memory of the attempt before: accelerate clears the cache while it still holds
        # the error, whose frames keep the graph alive.
        clear_device_cache(garbage_collection=True)
        try:
            _probe(trainer, [keys[i % len(keys)] for i in range(batch_size)])
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or str(error).startswith(OTHER_MESSAGES):
                raise RuntimeError(f"{CPU_OUT_OF_MEMORY}: {error}") from error
            raise

    search: Callable[[], None] = find_executable_batch_size(
        attempt, starting_batch_size=split.batch_size, reduce_batch_size_fn=reduce
    )
    try:
        search()
    except RuntimeError as error:
        if tried.batch_size > 0:
            raise
        raise ConfigError(
            f"training.batch_size: not even 1 example of {trainer.loader.dataset.length(keys[0])} "
            "tokens fits into memory. Set model.gradient_checkpointing=true, lower "
            "model.max_pixels or training.max_length, or share the base among GPUs "
            "(configs/accelerate/fsdp.yaml); `python -m pixelis.cli.plan` says what each saves"
        ) from error
    return tried


def _probe(trainer: Any, keys: Sequence[Key]) -> None:
    """Make one forward and backward pass as in training; too little memory is an error."""
    dataset = trainer.loader.dataset
    batch = dataset.collate([dataset[key] for key in keys])
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
    if trainer.args.activation_checkpointing:
        trainer.model.activation_checkpointing_enable()  # `train` would, a moment later
    try:
        with torch.random.fork_rng(devices=devices):  # dropout draws
            # Adam's two moments; several processes also need a buffer to exchange gradients.
            copies = 3 if trainer.processes.world_size > 1 else 2
            moments = [torch.zeros_like(p) for p in trained for _ in range(copies)]
            with trainer.accelerator.autocast():  # as `train` does
                trainer.training_step(trainer.model, batch, num_items_in_batch=torch.tensor(1.0))
            del moments
    finally:
        trainer.model.zero_grad(set_to_none=True)


def fit_batch_size(trainer: Any, difficulties: Iterable[str], *, known: int | None) -> Split:
    """Find the batch size of a training and set it, the same one in every process.

    Args:
        trainer: a CurriculumTrainer with the configured batch size, not yet training.
        difficulties: difficulties that training may draw from.
        known: the batch size of the training that is resumed; it replaces the search.

    Raises:
        ConfigError: when one example alone does not fit.
    """
    loader = trainer.loader
    configured = Split(loader.batch_size, loader.accumulation_steps)
    if trainer.accelerator.distributed_type == DistributedType.FSDP:
        logger.info(
            "a batch size is not searched for where the model is sharded: all would have to fail"
        )
        return configured
    if known is not None:
        fitting = configured if known >= configured.batch_size else with_size(configured, known)
        logger.info("batch size %s, as before", fitting)
    else:
        keys = longest(loader.dataset, difficulties, configured.batch_size)
        own = find_batch_size(trainer, configured, keys)
        fitting = with_size(configured, min(trainer.processes.gather(own.batch_size)))
        verdict = "fits" if fitting == configured else f"fits, {configured} does not"
        length = loader.dataset.length(keys[0])
        logger.info("batch size %s %s (longest example: %d tokens)", fitting, verdict, length)
    loader.split_steps(fitting.batch_size, fitting.accumulation_steps)
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = fitting.batch_size
    trainer.args.gradient_accumulation_steps = fitting.accumulation_steps
    return fitting


def with_size(split: Split, batch_size: int) -> Split:
    """Return the split of the same step into forward passes of another size.

    Raises:
        ConfigError: when the step cannot be divided by this size.
    """
    share = split.batch_size * split.accumulation_steps
    if share % batch_size:
        raise ConfigError(
            f"training.batch_size: a step of {share} cannot be split into {batch_size} each"
        )
    return Split(batch_size, share // batch_size)
