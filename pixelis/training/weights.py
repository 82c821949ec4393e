"""The weights of a training: the adapter and its optimiser's moments, complete or sharded (FSDP).

Files and snapshots always hold complete tensors, so a checkpoint has the same layout either way.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from pixelis.curriculum import Visit
from pixelis.files import replace_folder
from pixelis.models.lora import convert_to_plain_lora, split_plain_lora
from pixelis.recorder import visit_name
from pixelis.training.checkpoint import ADAPTER_FILE, BEST
from pixelis.training.distributed import ALONE, Processes

SNAPSHOT_FILE = "trial_snapshot.safetensors"
VISITS = "visits"  # folder below output_dir with the adapter from the end of each stage's visit
# Prefixes of a snapshot's tensors.
ADAPTER, MOMENTS = "adapter/", "optimizer/"


class TrainedWeights:
    """The trained weights, with methods to snapshot, restore, save and load them.

    Every process has to call these methods, because all of them gather a sharded tensor together;
    only the main process writes.
    """

    def __init__(
        self,
        model: PeftModel,
        output_dir: Path,
        processes: Processes = ALONE,
        initial: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Set the adapted base, and the factors that were taken from it (`build_adapter`)."""
        self.model, self.output_dir, self.processes = model, output_dir, processes
        self.initial = initial
        self._snapshot: dict[str, torch.Tensor] | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds only a part of every weight (FSDP)."""
        return any(isinstance(parameter, DTensor) for parameter in self.model.parameters())

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trained parameters by name, sharded where the model is."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return a complete copy of each trained weight by its parameter's name."""
        return {name: gather_copy(parameter) for name, parameter in self.parameters.items()}

    @property
    def num_bytes(self) -> int:
        """The size of the trained weights."""
        return sum(p.numel() * p.element_size() for p in self.parameters.values())

    def are_finite(self) -> bool:
        """Return whether every trained weight is finite, in every process."""
        parts = (p.to_local() if isinstance(p, DTensor) else p for p in self.parameters.values())
        return not self.processes.any(not all(bool(part.isfinite().all()) for part in parts))

    def take_snapshot(self, optimizer: Any) -> None:
        """Remember adapter and moments at the beginning of a trial."""
        self._snapshot = {ADAPTER + name: tensor for name, tensor in self.tensors().items()}
        for index, moments in optimizer.state_dict()["state"].items():
            for name, moment in moments.items():
                self._snapshot[f"{MOMENTS}{index}.{name}"] = gather_copy(moment).contiguous()

    def restore_snapshot(self, optimizer: Any) -> None:
        """Restore adapter and moments, but not schedule, sampler, generators and counts."""
        assert self._snapshot is not None, "a rollback of weights needs the trial's snapshot"
        moments: dict[int, dict[str, torch.Tensor]] = {}
        weights = {}
        for key, tensor in self._snapshot.items():
            kind, _, name = key.partition("/")
            if kind + "/" == ADAPTER:
                weights[name] = tensor
            else:
                index, _, name = name.partition(".")
                moments.setdefault(int(index), {})[name] = tensor.clone()
        self._copy_in(weights)
        groups = optimizer.state_dict()["param_groups"]
        with complete_state(optimizer):
            optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def save_snapshot(self, folder: Path) -> None:
        """Write the snapshot, if there is one, into a checkpoint."""
        if self._snapshot is not None:
            save_file(self._snapshot, folder / SNAPSHOT_FILE)

    def load_snapshot(self, folder: Path) -> None:
        """Read the snapshot of a checkpoint that was saved during a trial."""
        if (folder / SNAPSHOT_FILE).is_file():
            self._snapshot = load_file(folder / SNAPSHOT_FILE)

    def save_best(self) -> None:
        """Save the adapter as the best so far."""
        self.save(self.output_dir / BEST)

    def save_visit(self, visit: Visit) -> Path:
        """Save the adapter at the end of a stage's visit; return its folder."""
        folder = self.output_dir / VISITS / visit_name(visit.index, visit.stage)
        self.save(folder)
        return folder

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's layout to a folder, completely or not at all."""
        staged = folder.with_name(f".{folder.name}.new")
        self.write(staged)
        if self.processes.is_main:
            replace_folder(staged, folder)

    def write(self, folder: Path) -> None:
        """Write the adapter's files into a folder; create it if necessary."""
        tensors = self.tensors() if self.is_sharded else None
        if not self.processes.is_main:
            return
        # The embeddings are never trained; to check them, peft would ask the hub for the base.
        self.model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=tensors)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty form of a model card
        if self.initial is not None:
            convert_to_plain_lora(folder, self.initial)

    def load(self, folder: Path) -> None:
        """Load a checkpoint's adapter into the model."""
        tensors = load_file(folder / ADAPTER_FILE)
        if self.initial is not None:
            tensors, _ = split_plain_lora(tensors)
        if self.is_sharded:
            saved = {name: name.replace(".default.", ".") for name in self.parameters}
            self._copy_in({name: tensors[saved[name]] for name in saved})
        else:
            set_peft_model_state_dict(self.model, tensors)

    @torch.no_grad()
    def _copy_in(self, tensors: Mapping[str, torch.Tensor]) -> None:
        parameters = self.parameters
        for name, value in tensors.items():
            parameters[name].copy_(shard_like(parameters[name], value.to(parameters[name].dtype)))


def gather_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a complete copy of a tensor; if it is sharded, every process has to call this."""
    complete = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return complete.detach().clone()


def shard_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a complete tensor, sharded as the parameter is; another shape stays as it is."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    # Every process has all of it: nothing needs to be sent.
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(value.to(parameter.device), mesh, placements, src_data_rank=None)


@contextmanager
def complete_state(optimizer: Any) -> Iterator[None]:
    """Make an optimiser of sharded weights use complete tensors to save and load its state.

    Args:
        optimizer: torch's, or accelerate's around it.
    """
    own = getattr(optimizer, "optimizer", optimizer)
    parameters = [parameter for group in own.param_groups for parameter in group["params"]]

    def convert(state: dict[str, Any], change: Any) -> dict[str, Any]:
        moments = state["state"].items()
        changed = {i: {name: change(i, x) for name, x in each.items()} for i, each in moments}
        return state | {"state": changed}

    hooks = (
        own.register_state_dict_post_hook(
            lambda _, state: convert(state, lambda _, value: gather_copy(value))
        ),
        own.register_load_state_dict_pre_hook(
            lambda _, state: convert(state, lambda i, value: shard_like(parameters[i], value))
        ),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
