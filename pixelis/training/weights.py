"""The weights of a training: the adapter and its optimiser's moments, complete or sharded (FSDP).

Files and snapshots always hold complete tensors, so a checkpoint has the same layout either way.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from pixelis.curriculum import Visit
from pixelis.files import replace_folder
from pixelis.models.pissa import convert_to_plain_lora, split_plain_lora
from pixelis.recorder import visit_name
from pixelis.training.checkpoint import ADAPTER_FILE
from pixelis.training.distributed import ALONE, Processes

SNAPSHOT_FILE = "trial_snapshot.safetensors"
BEST = "best"
VISITS = "visits"  # folder below output_dir with the adapter from the end of each stage's visit


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
        """Set the adapted base and the folder of its adapters.

        Args:
            model: the adapted base.
            output_dir: the training's folder; `best` and `visits` are below it.
            processes: the processes of this training.
            initial: the factors that were taken from the base (`pixelis.training.adapter`).
        """
        self.model, self.output_dir, self.processes = model, output_dir, processes
        self.initial = initial
        self._snapshot: dict[str, torch.Tensor] | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds only a part of every weight (FSDP)."""
        return any(isinstance(parameter, DTensor) for parameter in self.model.parameters())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return a complete copy of each trained weight by its parameter's name."""
        return {name: whole(parameter) for name, parameter in self._trained()}

    @property
    def num_bytes(self) -> int:
        """The size of the trained weights."""
        return sum(p.numel() * p.element_size() for _, p in self._trained())

    def are_finite(self) -> bool:
        """Return whether every trained weight is finite, in every process."""
        return not self.processes.any(not all_finite(p for _, p in self._trained()))

    def take_snapshot(self, optimizer: Any) -> None:
        """Remember adapter and moments at the beginning of a trial."""
        moments = optimizer_tensors(optimizer)
        self._snapshot = {f"adapter/{k}": v for k, v in self.tensors().items()}
        self._snapshot |= {f"optimizer/{k}": v for k, v in moments.items()}

    def restore_snapshot(self, optimizer: Any) -> None:
        """Restore adapter and moments, but not schedule, sampler, generators and counts."""
        assert self._snapshot is not None, "a rollback of weights needs the trial's snapshot"
        self._copy_in(_below("adapter/", self._snapshot))
        restore_optimizer(optimizer, _below("optimizer/", self._snapshot))

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
            names = {name: name.replace(".default.", ".") for name, _ in self._trained()}
            self._copy_in({name: tensors[saved] for name, saved in names.items()})
        else:
            set_peft_model_state_dict(self.model, tensors)

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)

    def _copy_in(self, tensors: Mapping[str, torch.Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in tensors.items():
                parameter = parameters[name]
                parameter.copy_(laid_out(value.to(parameter.dtype), parameter))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a complete copy of a tensor; if it is sharded, every process has to call this."""
    if isinstance(tensor, DTensor):
        whole_tensor: torch.Tensor = tensor.full_tensor()
        return whole_tensor.detach().clone()
    return tensor.detach().clone()


def laid_out(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a complete tensor, sharded in the same way as the other one."""
    if not isinstance(like, DTensor):
        return tensor
    # Every process has all of it: nothing needs to be sent.
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether all numbers are finite; of a sharded tensor, those of this process's part."""
    parts = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    return all(bool(torch.isfinite(part).all()) for part in parts)


def optimizer_tensors(optimizer: Any) -> dict[str, torch.Tensor]:
    """Return complete copies of the moments as `<parameter index>.<name>` -> tensor."""
    return {
        f"{index}.{name}": whole(value).contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore moments (of `optimizer_tensors`); learning rates stay as they are."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    with whole_state(optimizer):
        optimizer.load_state_dict({"state": state, "param_groups": groups})


@contextmanager
def whole_state(optimizer: Any) -> Iterator[None]:
    """Make an optimiser of sharded weights use complete tensors to save and load its state.

    Args:
        optimizer: torch's, or accelerate's around it.
    """
    own = getattr(optimizer, "optimizer", optimizer)
    parameters = [parameter for group in own.param_groups for parameter in group["params"]]

    def gather(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        moments = state["state"].items()
        return state | {"state": {i: {n: _whole(v) for n, v in by.items()} for i, by in moments}}

    def scatter(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        moments = {
            index: {
                # Moments have the weight's shape and are sharded; the count of steps is not.
                name: laid_out(value, parameters[index])
                if value.shape == parameters[index].shape
                else value
                for name, value in values.items()
            }
            for index, values in state["state"].items()
        }
        return state | {"state": moments}

    hooks = (
        own.register_state_dict_post_hook(gather),
        own.register_load_state_dict_pre_hook(scatter),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _whole(value: torch.Tensor) -> torch.Tensor:
    return whole(value) if isinstance(value, DTensor) else value


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
