"""The search for the largest batch size that fits into memory, before the first step.

A step's gradient is a sum over its supervised tokens, divided by the number of those tokens in the
step. How the step's examples are split into forward passes changes nothing but rounding.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from pixelis.data.dataset import Key
from pixelis.errors import ConfigError

logger = logging.getLogger(__name__)

# accelerate recognises torch's allocators; oneDNN and C++ report the same with other messages.
CPU_MESSAGES = ("could not create a primitive", "could not create a memory", "std::bad_alloc")


def halves(batch_size: int, share: int) -> Iterator[int]:
    """Yield a batch size, then smaller ones that divide the share too, each at most half the last.

    Args:
        batch_size: examples in one forward pass.
        share: examples of a process in a step.
    """
    limit = batch_size
    for size in range(batch_size, 0, -1):
        if size <= limit and share % size == 0:
            yield size
            limit = size // 2


def fit_batch_size(trainer: Any, difficulties: Collection[str], *, known: int | None) -> str:
    """Find the batch size of a training and set it, the same one in every process.

    Args:
        trainer: a CurriculumTrainer with the configured batch size, not yet training.
        difficulties: difficulties that training may draw from.
        known: the batch size of the training that is resumed; it replaces the search.

    Returns:
        The batch size and the number of forward passes in a step, such as `8 x 2`.

    Raises:
        ConfigError: when one example alone does not fit.
    """
    loader = trainer.loader
    configured = f"{loader.batch_size} x {loader.accumulation_steps}"
    if trainer.accelerator.distributed_type == DistributedType.FSDP:
        logger.info(
            "a batch size is not searched for where the model is sharded: all would have to fail"
        )
        return configured
    sizes = list(halves(loader.batch_size, loader.batch_size * loader.accumulation_steps))
    if known is None:
        known = min(trainer.processes.gather(find_batch_size(trainer, sizes, difficulties)))
    # A resume may have another batch size for the same step.
    size = next(size for size in sizes if size <= known)
    num_passes = loader.batch_size * loader.accumulation_steps // size
    fitting = f"{size} x {num_passes}"
    logger.info("batch size %s (configured: %s)", fitting, configured)
    loader.split_steps(size, num_passes)
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = size
    trainer.args.gradient_accumulation_steps = num_passes
    return fitting


def find_batch_size(trainer: Any, sizes: Sequence[int], difficulties: Collection[str]) -> int:
    """Return the first of some batch sizes, largest first, whose passes fit into memory.

    Each size is tried with the longest examples, all adapter gradients, and memory for the
    optimiser's two moments of each trained weight. Weights, gradients and random generators stay
    as they were.

    Raises:
        ConfigError: when one example alone does not fit, with what to change.
    """
    dataset = trainer.loader.dataset
    keys = [key for key in dataset.all_keys() if key[0] in difficulties]
    keys = sorted(keys, key=lambda key: (-dataset.length(key), key))[: sizes[0]]
    for size in sizes:
        if _fits(trainer, [keys[i % len(keys)] for i in range(size)]):
            return size
    raise ConfigError(
        f"training.batch_size: not even 1 example of {dataset.length(keys[0])} tokens fits into "
        "memory. Set model.gradient_checkpointing=true, lower model.max_pixels or "
        "training.max_length, or share the base among GPUs (configs/accelerate/fsdp.yaml); "
        "`python -m pixelis.cli.plan` says what each saves"
    )


def _fits(trainer: Any, keys: Sequence[Key]) -> bool:
    """Return whether a forward and backward pass as in training fits into memory."""
    clear_device_cache(garbage_collection=True)  # what the attempt before has left
    dataset = trainer.loader.dataset
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
    if trainer.args.activation_checkpointing:
        trainer.model.activation_checkpointing_enable()  # `train` would, a moment later
    try:
        with torch.random.fork_rng(devices=devices):  # dropout draws
            batch = dataset.collate([dataset[key] for key in keys])
            # Adam's two moments; several processes also need a buffer to exchange gradients.
            copies = 3 if trainer.processes.world_size > 1 else 2
            _moments = [torch.zeros_like(p) for p in trained for _ in range(copies)]
            with trainer.accelerator.autocast():  # as `train` does
                trainer.training_step(trainer.model, batch, num_items_in_batch=torch.tensor(1.0))
    except (MemoryError, RuntimeError) as error:
        is_full = isinstance(error, MemoryError) or str(error).startswith(CPU_MESSAGES)
        if not is_full and not should_reduce_batch_size(error):
            raise
        return False
    finally:
        trainer.model.zero_grad(set_to_none=True)
    return True
