"""A model that is sharded among processes on a CPU, as it is on GPUs."""

import os
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin


def shard_on_cpu(state: Any) -> bool:
    """Let FSDP be what it is on a GPU on a CPU too: accelerate would quietly use DDP there.

    Args:
        state: accelerate's, of this process; changed where FSDP was asked for on a CPU.

    Returns:
        whether it was.
    """
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not wanted or state.distributed_type != DistributedType.MULTI_CPU:
        return False
    # In both: accelerate copies the one into the other whenever it is asked for its state.
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin()
    return True
