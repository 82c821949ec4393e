"""GPUs by name, and what of their memory is there for tensors."""

from pixelis.errors import ConfigError

GIB = 2**30
# In GiB, as torch's messages of memory that is out give the capacity: less than what is sold.
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
# Not measured: a CUDA context with its libraries' kernels, and what torch's allocator keeps or
# loses between blocks, as a share of what tensors take.
CONTEXT_GIB = 0.8
FRAGMENTED = 0.06


def gpu_bytes(name: str, memory_gib: float | None) -> int:
    """The memory of a GPU: `memory_gib` where it is given, else by its name.

    Raises:
        ConfigError: for a name that is not in the table.
    """
    if memory_gib is None and name not in GPUS:
        raise ConfigError(
            f"gpu must be one of {', '.join(GPUS)}, got {name!r}; for another one set "
            "gpu_memory_gib"
        )
    return int((GPUS[name] if memory_gib is None else memory_gib) * GIB)


def beside_tensors(tensor_bytes: int) -> int:
    """Context and the allocator's loss, for so many bytes of tensors."""
    return int(CONTEXT_GIB * GIB + FRAGMENTED * tensor_bytes)
