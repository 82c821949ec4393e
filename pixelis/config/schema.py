"""Every key of the YAML files: its default, its rule and its meaning.

The defaults are the guide's values for the 7B and stand here only; files and the command line
override them. The section `curriculum` is carried as it is: `pixelis.curriculum` knows its rules;
the keys of data_prep.yaml stand in `pixelis.config.data_prep`.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from pixelis.config.data_prep import MAX_SEED, DataPrepConfig, DifficultyConfig
from pixelis.config.settings import digest, flatten, load_config, open_section, setting, to_yaml
from pixelis.errors import ConfigError

__all__ = [
    "AblateFileConfig",
    "CompareConfig",
    "DataPrepConfig",
    "DifficultyConfig",
    "EvaluateConfig",
    "ModelFileConfig",
    "TrainingFileConfig",
    "digest",
    "flatten",
    "load_config",
    "to_yaml",
]

EVA = "eva"
# These take a part of the base's weights into the adapter, so that training moves that part.
CHANGING_INITS = ("olora", "pissa", "pissa_niter_4")
INITS = ("default", "gaussian", EVA, *CHANGING_INITS)
MAX_RANK = 1024  # of an adapter; beyond, training the layers themselves takes less memory
FIRST_TUNING_SEED = 1000  # beyond the first: far from the seeds that are compared


@dataclass(frozen=True)
class TrainingDataConfig:
    """Section `data` of training_params.yaml."""

    path: str = setting("data/cota", "folder that data-prep wrote; made where it is missing")
    prep: str = setting("configs/data_prep.yaml", "the file by which missing data is made")
    exclude: tuple[str, ...] = setting(
        (), "ids of examples that are left out; may change at a resume"
    )


@dataclass(frozen=True)
class TrainingConfig:
    """Section `training` of training_params.yaml."""

    output_dir: str = setting("outputs/sft", "folder for checkpoints, final/, best/, events.json")
    seed: int = setting(0, "seed of adapter, order and dropout", at_least=0, at_most=MAX_SEED)
    max_steps: int = setting(10000, "optimiser steps", at_least=1)
    batch_size: int = setting(4, "examples in one forward pass", at_least=1)
    gradient_accumulation_steps: int = setting(4, "forward passes in one step", at_least=1)
    auto_batch_size: bool = setting(False, "try batch_size first, halve it until it fits")
    learning_rate: float = setting(1e-4, "peak learning rate", above=0)
    warmup_steps: int = setting(100, "steps up to the peak", at_least=0)
    lr_scheduler_type: str = setting(
        "linear", "how the rate goes down after the peak", choices=("linear", "cosine", "constant")
    )
    weight_decay: float = setting(0.0, "decay of the adapter's weights", at_least=0)
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm", above=0)
    max_length: int = setting(4096, "longest example, in tokens", at_least=1)
    eval_steps: int = setting(500, "steps between evaluations of the strata", at_least=1)
    eval_batch_size: int = setting(8, "examples in one evaluation batch", at_least=1)
    save_steps: int = setting(500, "steps between checkpoints", at_least=1)
    save_total_limit: int = setting(2, "checkpoints kept, the newest", at_least=1)
    max_bad_steps: int = setting(
        3, "steps in a row without finite loss and gradient, until weights go back", at_least=1
    )
    logging_steps: int = setting(10, "steps between logged losses", at_least=1)
    num_workers: int = setting(0, "loader processes; 0: in the trainer's own", at_least=0)
    precision: str = setting(
        "auto", "of the forward pass; the adapter is fp32", choices=("auto", "fp32", "bf16")
    )
    vision_cache: str = setting(
        "auto", "features of the frozen vision tower, computed once", choices=("auto", "off")
    )
    vision_cache_gib: float = setting(8.0, "the largest size of that cache", above=0)
    operation_token_weight: float = setting(
        1.0, "of the tokens of a call in the loss; those around it have 1", above=0
    )
    torch_compile: bool = setting(False, "compile the model; for a GPU")
    use_liger_kernel: bool = setting(False, "liger's fused kernels; for a GPU, extra liger")


@dataclass(frozen=True)
class EvaluationConfig:
    """Section `evaluation` of training_params.yaml: the rollouts after the last step."""

    enabled: bool = setting(True, "evaluate base and adapter on the test split at the end")
    samples_per_difficulty: int = setting(40, "test examples of each difficulty", at_least=1)
    max_operations: int = setting(8, "operations before a rollout is cut off", at_least=1)
    compare_base: bool = setting(True, "roll out the base too, side by side")
    num_traces: int = setting(12, "rollouts kept as MLflow traces, worst first", at_least=0)
    num_reported: int = setting(60, "trajectories in the HTML report; 0: none", at_least=0)


@dataclass(frozen=True)
class TrainingFileConfig:
    """configs/training_params.yaml."""

    exp_name: str = setting("sft_curriculum", "experiment, and the run name's prefix")
    resume: str | None = setting(None, "checkpoint folder, or auto: the newest in output_dir")
    register: str | None = setting(None, "registered model that the final adapter is a version of")
    num_processes: int | None = setting(
        None, "processes of this machine that train together; null: one", at_least=1
    )
    accelerate_config: str | None = setting(
        None, "accelerate's file for them, such as configs/accelerate/fsdp.yaml; null: ddp"
    )
    data: TrainingDataConfig = TrainingDataConfig()
    training: TrainingConfig = TrainingConfig()
    curriculum: dict[str, Any] = open_section("stages, attempts and rollbacks")
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        """Check what MLflow would refuse after hours of training."""
        name = self.register
        if name is not None and not re.fullmatch(r"\w[\w .-]*", name):
            raise ConfigError(
                "register must be a name of letters, digits, spaces and the characters _ - . , "
                f"got {name!r}"
            )


@dataclass(frozen=True)
class AblateFileConfig:
    """configs/ablate.yaml: the sections of a training, and what is compared."""

    exp_name: str = setting("ablate", "experiment, and the run name's prefix")
    arms: tuple[str, ...] = setting(
        (
            *("uniform", "uniform_same_tokens", "staged", "schedule", "competence"),
            *("self_paced", "adaptive", "reverse"),
        ),
        "what is compared; the first is what the others are compared with",
    )
    seeds: int = setting(5, "trainings of each arm, with seeds from training.seed on", at_least=2)
    learning_rates: tuple[float, ...] = setting(
        (5e-5, 1e-4, 2e-4), "tried for the arm uniform, on the validation split", above=0
    )
    tuning_seeds: int = setting(2, "trainings at each of these, with other seeds", at_least=1)
    target_share: float = setting(
        0.95, "of the first arm's final performance: the target of steps_to_target", above=0
    )
    num_workers: int = setting(1, "trainings side by side, each on its share of cores", at_least=1)
    data: TrainingDataConfig = TrainingDataConfig()
    training: TrainingConfig = TrainingConfig(output_dir="outputs/ablate")
    curriculum: dict[str, Any] = open_section("stages, attempts and rollbacks")
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        """Check the rules that join several keys."""
        if len(set(self.arms)) < max(2, len(self.arms)):
            raise ConfigError(f"arms must name at least two, each once, got {list(self.arms)}")
        if not self.learning_rates:
            raise ConfigError("learning_rates must hold at least one, got []")
        if len({f"{rate:g}" for rate in self.learning_rates}) < len(self.learning_rates):
            raise ConfigError(
                f"learning_rates must differ in their first six digits, got {self.learning_rates}"
            )
        last = self.training.seed + max(self.seeds, FIRST_TUNING_SEED + self.tuning_seeds) - 1
        if last > MAX_SEED:
            raise ConfigError(
                f"training.seed must leave room for seeds and tuning_seeds up to {MAX_SEED}, got "
                f"{self.training.seed}: the last one would be {last}"
            )
        if not self.evaluation.enabled:
            raise ConfigError(
                "evaluation.enabled must be true, got false (arms are compared on the test split)"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Section `model` of model_arch.yaml."""

    model_name: str = setting("pixelis-nano", "pixelis-nano (embedded), a hub name or a folder")
    use_lora: bool = setting(True, "train a LoRA adapter; must be true for now")
    lora_r: int | Literal["auto"] = setting(
        32,
        "rank of the adapter; auto: each layer's own, from its inputs (EVA)",
        at_least=1,
        at_most=MAX_RANK,
    )
    lora_alpha: int = setting(64, "the adapter is scaled by alpha / r", at_least=1)
    lora_dropout: float = setting(0.1, "dropout before the adapter", at_least=0, below=1)
    lora_auto_rank: int = setting(16, "of lora_r auto: the layers' average rank", at_least=1)
    lora_auto_spread: float = setting(
        2.0, "of lora_r auto: the largest rank, in average ranks", at_least=1
    )
    lora_auto_examples: int = setting(64, "training examples that EVA looks at", at_least=1)
    init_lora_weights: str = setting("default", "how the adapter begins", choices=INITS)
    use_dora: bool = setting(False, "learn the weights' lengths apart (DoRA)")
    use_rslora: bool = setting(False, "scale by alpha / sqrt(r) instead (rsLoRA)")
    train_vision: bool = setting(False, "adapt the vision tower's linear layers too")
    train_merger: bool = setting(False, "adapt the layers from vision to language too")
    load_in_4bit: bool = setting(False, "keep the base's weights in 4 bits; needs CUDA")
    gradient_checkpointing: bool = setting(True, "less memory, about a third more time")
    torch_dtype: str = setting(
        "auto", "type of the base's weights", choices=("auto", "float32", "bfloat16", "float16")
    )
    attn_implementation: str = setting(
        "auto",
        "how attention is computed; auto: the model's own choice",
        choices=("auto", "sdpa", "eager", "flash_attention_2"),
    )
    min_pixels: int = setting(3136, "smaller images are enlarged to this area", at_least=1)
    max_pixels: int = setting(1003520, "larger images are reduced to this area", at_least=1)
    trust_remote_code: bool = setting(False, "run code that comes with a hub model")

    def __post_init__(self) -> None:
        """Check the rules that join several keys."""
        if self.min_pixels > self.max_pixels:
            got = f"{self.min_pixels} > {self.max_pixels}"
            raise ConfigError(f"model.min_pixels must be <= model.max_pixels, got {got}")
        init = self.init_lora_weights
        if self.lora_r == "auto" and init not in ("default", EVA):
            raise ConfigError(
                "model.init_lora_weights must be default or eva where model.lora_r is auto, got "
                f"{init} (EVA's ranks come with EVA's directions)"
            )
        if self.load_in_4bit and init in CHANGING_INITS:
            raise ConfigError(
                f"model.init_lora_weights must not be {init} where model.load_in_4bit is true "
                "(it changes the base's weights, and 4 bits would round the change away)"
            )


@dataclass(frozen=True)
class ModelFileConfig:
    """configs/model_arch.yaml."""

    model: ModelConfig = ModelConfig()


@dataclass(frozen=True)
class EvaluateDataConfig:
    """Section `data` of evaluate.yaml."""

    path: str = setting("data/cota", "folder that data-prep wrote")


@dataclass(frozen=True)
class EvaluateConfig:
    """configs/evaluate.yaml."""

    adapter: str | None = setting(None, "folder, runs:/ or models:/ address; null: newest sft run")
    against: str | None = setting(None, "a second adapter, compared on the same examples")
    experiment: str = setting("sft_curriculum", "experiment whose newest finished run is taken")
    data: EvaluateDataConfig = EvaluateDataConfig()
    split: str = setting("test", "split to roll out", choices=("train", "validation", "test"))
    input: str | None = setting(None, "file or folder of questions, evaluated instead of data.path")
    format: str | None = setting(
        None,
        "layout of input; null: detected, of data-prep's",
        choices=("cota", "messages", "conversations", "vstar", "infographicvqa", "tallyqa"),
    )
    image_folder: str | None = setting(None, "folder of input's images; null: the input's own")
    max_rejected: float = setting(
        0.05, "share of input's records that may be left out", at_least=0, at_most=1
    )
    samples_per_difficulty: int = setting(40, "examples of each difficulty", at_least=1)
    batch_size: int = setting(16, "rollouts side by side", at_least=1)
    max_operations: int = setting(8, "operations before a rollout is cut off", at_least=1)
    max_new_tokens: int = setting(96, "tokens the model may say in one turn", at_least=1)
    num_samples: int = setting(1, "rollouts of each example, for pass@k and majority", at_least=1)
    temperature: float = setting(0.0, "of drawn tokens; 0: the most likely each time", at_least=0)
    planted_errors: bool = setting(True, "roll out from after planted errors as well")
    teacher_forced: bool = setting(True, "measure accuracy with the right words given as well")
    seed: int = setting(0, "seed of samples, draws and intervals", at_least=0, at_most=MAX_SEED)
    compare_base: bool = setting(True, "roll out the base too, side by side")
    bootstrap_samples: int = setting(
        1000, "resamples behind each 95 % interval", at_least=1, at_most=100_000
    )
    num_traces: int = setting(12, "rollouts kept as MLflow traces, worst first", at_least=0)
    num_reported: int = setting(60, "trajectories in the HTML report; 0: none", at_least=0)
    resume: str = setting(
        "auto", "go on where the same evaluation was stopped, or never", choices=("auto", "never")
    )
    output_dir: str = setting("outputs/evaluate", "the report; finished rollouts until the end")

    def __post_init__(self) -> None:
        """Check the rules that join several keys."""
        for name in ("format", "image_folder"):
            if self.input is None and (value := getattr(self, name)) is not None:
                raise ConfigError(f"{name} is about input, which is not set; got {value!r}")


@dataclass(frozen=True)
class CompareConfig:
    """configs/compare.yaml."""

    runs: str | None = setting(
        None, "ids of runs, their first 8 letters or more, or names, with commas; null: the last"
    )
    last: int = setting(3, "finished sft runs that are taken, where runs is null", at_least=2)
    experiment: str = setting("sft_curriculum", "experiment whose last runs are taken")
