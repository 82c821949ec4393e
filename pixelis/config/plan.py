"""Every key of plan.yaml: on which GPUs a training would run."""

from dataclasses import dataclass

from pixelis.config.settings import setting


@dataclass(frozen=True)
class PlanFileConfig:
    """configs/plan.yaml."""

    gpu: str = setting("A100-40", "name of a GPU, such as A10G; see configs/plan.yaml")
    gpu_memory_gib: float | None = setting(None, "memory of another GPU", above=0)
    num_gpus: int | None = setting(None, "GPUs in all; null: num_processes, else 1", at_least=1)
    tokens_per_second: float | None = setting(
        None, "that one GPU trains on; null: no hours are told", above=0
    )
    json: str | None = setting(None, "file that the plan is written to as well")
