"""Every key of the YAML files except data_prep.yaml: its default, its rule and its meaning.

The defaults, the guide's values for the 7B, are defined only here; files and the command line
override them. The section `curriculum` is not checked here, but by `pixelis.curriculum`.
"""

import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from pixelis.config.data_prep import MAX_SEED, DataPrepConfig
from pixelis.config.section import Many, OpenSection, Section, Text, key
from pixelis.errors import ConfigError

# These keys hide methods of pydantic's models of the same name, which are not used here.
for _name in ("json", "register"):
    warnings.filterwarnings("ignore", f'Field name "{_name}"', UserWarning)

EVA = "eva"
# These move a part of the base's weights into the adapter, so that training changes that part.
CHANGING_INITS = ("olora", "pissa", "pissa_niter_4")
Init = Literal["default", "gaussian", "eva", "olora", "pissa", "pissa_niter_4"]
INITS = get_args(Init)
MAX_RANK = 1024  # of an adapter; above it, training the layers themselves needs less memory
FIRST_TUNING_SEED = 1000  # beyond the first: far from the seeds that are compared
PART_ENDINGS = (" baselines", " final")
FIRST_FINAL_SEED = 2000  # beyond training.seed: far from those of the search
# Keys of a training that change neither weights nor results: names, places, and how often something
# is written. The content of data is compared instead of its place.
WITHOUT_EFFECT = (
    *("exp_name", "register", "data.path", "data.prep", "data.trusted"),
    *("training.logging_steps", "training.save_steps", "training.save_total_limit"),
    *("training.num_workers", "training.vision_cache_gib"),
    *("evaluation.num_traces", "evaluation.num_reported"),
)


class TrainingDataConfig(Section):
    """Section `data` of training_params.yaml."""

    path: Text = key("data/cota", "folder that data-prep wrote; made where it is missing")
    prep: Text | None = key(
        "configs/data_prep.yaml", "the file by which missing data is made; null: an error"
    )
    trusted: Text | None = key(None, "data-prep's file or folder that strata are measured on")
    exclude: Many[Text] = key((), "ids of examples that are left out")

    @property
    def trusted_path(self) -> Path | None:
        """The path of `trusted`, or None."""
        return None if self.trusted is None else Path(self.trusted)


class TrainingConfig(Section):
    """Section `training` of training_params.yaml."""

    output_dir: Text = key(
        "outputs/sft", "folder for checkpoints, final/, best/, events.json, timeline.png"
    )
    seed: int = key(0, "seed of adapter, order and dropout", ge=0, le=MAX_SEED)
    max_steps: int = key(10000, "optimiser steps", ge=1)
    batch_size: int = key(4, "examples in one forward pass", ge=1)
    gradient_accumulation_steps: int = key(4, "forward passes in one step", ge=1)
    auto_batch_size: bool = key(False, "try batch_size first, halve it until it fits")
    learning_rate: float = key(0.0001, "peak learning rate", gt=0)
    warmup_steps: int = key(100, "steps up to the peak", ge=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = key(
        "linear", "how the rate goes down after the peak"
    )
    weight_decay: float = key(0.0, "decay of the adapter's weights", ge=0)
    max_grad_norm: float = key(1.0, "gradients are clipped to this norm", gt=0)
    max_length: int = key(4096, "longest example, in tokens", ge=1)
    eval_steps: int = key(500, "steps between evaluations of the strata", ge=1)
    eval_batch_size: int = key(8, "examples in one evaluation batch", ge=1)
    save_steps: int = key(500, "steps between checkpoints", ge=1)
    save_total_limit: int = key(2, "checkpoints kept, the newest", ge=1)
    max_bad_steps: int = key(3, "steps in a row without finite loss that stop training", ge=1)
    logging_steps: int = key(10, "steps between logged losses", ge=1)
    num_workers: int = key(0, "loader processes; 0: in the trainer's own", ge=0)
    precision: Literal["auto", "fp32", "bf16"] = key("auto", "of the forward pass; adapter: fp32")
    vision_cache: Literal["auto", "off"] = key("auto", "of the frozen vision tower's features")
    vision_cache_gib: float = key(8.0, "the largest size of that cache", gt=0)
    operation_token_weight: float = key(1.0, "weight of a call's tokens in the loss", gt=0)
    torch_compile: bool = key(False, "compile the model; for a GPU")
    use_liger_kernel: bool = key(False, "liger's fused kernels; for a GPU, extra liger")


class EvaluationConfig(Section):
    """Section `evaluation` of training_params.yaml: the rollouts after the last step."""

    enabled: bool = key(True, "evaluate base and adapter on the test split at the end")
    samples_per_difficulty: int = key(40, "test examples of each difficulty", ge=1)
    max_operations: int = key(8, "operations before a rollout is cut off", ge=1)
    compare_base: bool = key(True, "roll out the base too, side by side")
    num_traces: int = key(12, "rollouts kept as traces, of every difficulty and verdict", ge=0)
    num_reported: int = key(60, "trajectories in the HTML report; 0: none", ge=0)


class TrainingFileConfig(Section):
    """A training, as `sft` and `plan` read it."""

    exp_name: Text = key("sft_curriculum", "experiment, and the run name's prefix")
    resume: Text | None = key(None, "checkpoint folder, or auto: the newest in output_dir")
    register: Text | None = key(None, "registered model that the final adapter is a version of")
    data: TrainingDataConfig = TrainingDataConfig()
    training: TrainingConfig = TrainingConfig()
    curriculum: OpenSection = key({}, "stages, attempts and rollbacks")
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse values that MLflow would refuse only after hours of training."""
        name = self.register
        if name is not None and not re.fullmatch(r"\w[\w .-]*", name):
            raise ConfigError(
                "register must be a name of letters, digits, spaces and the characters _ - . , "
                f"got {name!r}"
            )
        return self


class ArmConfig(Section):
    """An entry of `arms` in ablate.yaml: what the arm changes in the shared settings."""

    curriculum: OpenSection = key({}, "keys of the section curriculum that differ")


class AblateFileConfig(Section):
    """A comparison of curricula (`ablate`): the sections of a training, and what is compared."""

    exp_name: Text = key("ablate", "experiment, and the run name's prefix")
    arms: Many[Text] | dict[Text, ArmConfig] = key(
        (
            *("uniform", "uniform_same_tokens", "staged", "schedule", "competence"),
            *("self_paced", "adaptive", "reverse"),
        ),
        "known names, or any names, each with the settings that it changes; the first is what "
        "the others are compared with",
    )
    seeds: int = key(5, "trainings of each arm, with seeds from training.seed on", ge=1)
    learning_rates: Many[Annotated[float, Field(gt=0)]] = key(
        (5e-05, 0.0001, 0.0002), "tried for the arm uniform, on the validation split"
    )
    tuning_seeds: int = key(2, "trainings at each of these, with other seeds", ge=1)
    target_share: float = key(
        0.95, "of the first arm's final performance: steps_to_target's target", gt=0
    )
    num_workers: int = key(1, "trainings side by side, each on its share of cores", ge=1)
    data: TrainingDataConfig = TrainingDataConfig()
    training: TrainingConfig = TrainingConfig(output_dir="outputs/ablate")
    curriculum: OpenSection = key({}, "stages, attempts and rollbacks")
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def arm_changes(self) -> dict[str, dict[str, Any]]:
        """Name of each arm, in order -> what it changes in the section `curriculum`."""
        if isinstance(self.arms, dict):
            return {name: arm.curriculum for name, arm in self.arms.items()}
        return {name: {} for name in self.arms}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
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
        return self


class ModelConfig(Section):
    """Section `model` of model_arch.yaml."""

    model_name: Text = key("pixelis-nano", "pixelis-nano (embedded), a hub name or a folder")
    use_lora: bool = key(True, "train a LoRA adapter; must be true for now")
    lora_r: Annotated[int, Field(ge=1, le=MAX_RANK)] | Literal["auto"] = key(
        32, "rank of the adapter; auto: each layer's own, from its inputs (EVA)"
    )
    lora_alpha: int = key(64, "the adapter is scaled by alpha / r", ge=1)
    lora_dropout: float = key(0.1, "dropout before the adapter", ge=0, lt=1)
    lora_auto_rank: int = key(16, "of lora_r auto: the layers' average rank", ge=1)
    lora_auto_spread: float = key(2.0, "of lora_r auto: the largest rank, in average ranks", ge=1)
    lora_auto_examples: int = key(64, "training examples that EVA looks at", ge=1)
    init_lora_weights: Init = key("default", "how the adapter begins")
    use_dora: bool = key(False, "learn the weights' lengths apart (DoRA)")
    use_rslora: bool = key(False, "scale by alpha / sqrt(r) instead (rsLoRA)")
    train_vision: bool = key(False, "adapt the vision tower's linear layers too")
    train_merger: bool = key(False, "adapt the layers from vision to language too")
    load_in_4bit: bool = key(False, "keep the base's weights in 4 bits; needs CUDA")
    gradient_checkpointing: bool = key(True, "less memory, about a third more time")
    torch_dtype: Literal["auto", "float32", "bfloat16", "float16"] = key(
        "auto", "type of the weights"
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = key(
        "auto", "how attention is computed; auto: the model's own choice"
    )
    min_pixels: int = key(3136, "smaller images are enlarged to this area", ge=1)
    max_pixels: int = key(1003520, "larger images are reduced to this area", ge=1)
    trust_remote_code: bool = key(False, "run code that comes with a hub model")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
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
        return self


class ModelFileConfig(Section):
    """The base model and its adapter, for every entry point that loads one."""

    model: ModelConfig = ModelConfig()


class FolderConfig(Section):
    """Section `data` of an entry point that reads data and makes none."""

    path: Text = key("data/cota", "folder that data-prep wrote")


class ChampionConfig(Section):
    """Section `champion` of evaluate.yaml: when a registered version gets the alias `champion`."""

    p_value: float = key(0.05, "McNemar's exact p of its gain must be below this", gt=0, le=1)
    min_examples: int = key(100, "test examples that the comparison must have", ge=1)


class EvaluateConfig(Section):
    """Rollouts of an adapter on a split or on questions (`evaluate`)."""

    adapter: Text | None = key(None, "folder, runs:/ or models:/ address; null: newest sft run")
    against: Text | None = key(None, "a second adapter, compared on the same examples")
    experiment: Text = key("sft_curriculum", "experiment whose newest finished run is taken")
    data: FolderConfig = FolderConfig()
    split: Literal["train", "validation", "test"] = key("test", "split to roll out")
    input: Text | None = key(None, "file or folder of questions, evaluated instead of data.path")
    format: (
        Literal["cota", "messages", "conversations", "vstar", "infographicvqa", "tallyqa"] | None
    ) = key(None, "layout of input; null: detected, of data-prep's")
    image_folder: Text | None = key(None, "folder of input's images; null: the input's own")
    max_rejected: float = key(0.05, "share of input's records that may be left out", ge=0, le=1)
    samples_per_difficulty: int = key(40, "examples of each difficulty", ge=1)
    batch_size: int = key(16, "rollouts side by side", ge=1)
    max_operations: int = key(8, "operations before a rollout is cut off", ge=1)
    max_new_tokens: int = key(96, "tokens the model may say in one turn", ge=1)
    num_samples: int = key(1, "rollouts of each example, for pass@k and majority", ge=1)
    temperature: float = key(0.0, "of drawn tokens; 0: the most likely each time", ge=0)
    planted_errors: bool = key(True, "roll out from after planted errors as well")
    teacher_forced: bool = key(True, "measure accuracy with the right words given as well")
    seed: int = key(0, "seed of samples and drawn tokens", ge=0, le=MAX_SEED)
    compare_base: bool = key(True, "roll out the base too, side by side")
    champion: ChampionConfig = ChampionConfig()
    num_traces: int = key(12, "rollouts kept as traces, of every difficulty and verdict", ge=0)
    num_reported: int = key(60, "trajectories in the HTML report; 0: none", ge=0)
    resume: Literal["auto", "never"] = key("auto", "go on where it was stopped, or never")
    output_dir: Text = key("outputs/evaluate", "the report; finished rollouts until the end")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check the rules that join several keys."""
        for name in ("format", "image_folder"):
            if self.input is None and (value := getattr(self, name)) is not None:
                raise ConfigError(f"{name} is about input, which is not set; got {value!r}")
        return self


class CompareConfig(Section):
    """The selection of finished trainings that `compare` reads."""

    runs: Text | None = key(
        None, "ids (or 8 letters of them) or names, with commas; null: the last"
    )
    last: int = key(3, "finished sft runs that are taken, where runs is null", ge=2)
    experiment: Text = key("sft_curriculum", "experiment whose last runs are taken")


class TuneFileConfig(Section):
    """A search over the settings of a training (`tune`)."""

    exp_name: Text = key("tune", "experiment, and the run name's prefix")
    study: Text = key("curriculum", "the study's name; a second start goes on with it")
    storage: Text | None = key(None, "URL of the study's database; null: sqlite:///optuna.db")
    num_trials: int = key(24, "trials, those that were stopped early included", ge=1)
    num_workers: int = key(1, "processes that run trials side by side", ge=1)
    seeds_per_trial: int = key(1, "trainings that a trial's value is the mean of", ge=1)
    final_seeds: int = key(3, "fresh seeds of the verdict; 0: no verdict", ge=0)
    target: float | None = key(
        None, "second objective: examples until here; null: none", gt=0, le=1
    )
    sampler: Literal["tpe", "gp", "random"] = key("tpe", "what chooses the next values")
    pruner: Literal["median", "hyperband", "none"] = key("median", "what stops a trial early")
    prune_after: float = key(0.4, "share of a training in which no trial stops", ge=0, le=1)
    best_config: Text = key("configs/best.yaml", "where the best settings are written")
    space: OpenSection = key({}, "what is searched: a range or choices for each key")
    baselines: OpenSection = key({}, "settings that are tried first, by name")
    data: TrainingDataConfig = TrainingDataConfig()
    training: TrainingConfig = TrainingConfig(output_dir="outputs/tune")
    curriculum: OpenSection = key({}, "stages, attempts and rollbacks")
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check the rules that join several keys."""
        last = self.training.seed + FIRST_FINAL_SEED + self.final_seeds
        if max(last, self.training.seed + self.seeds_per_trial) > MAX_SEED:
            raise ConfigError(
                f"training.seed must leave room for seeds up to {MAX_SEED}, got "
                f"{self.training.seed}: the last one would be {last}"
            )
        if self.target is not None and self.pruner != "none":
            raise ConfigError(
                f"pruner must be none where target is set, got {self.pruner!r} (two objectives "
                "have no one value by which a trial could be stopped)"
            )
        if "/" in self.study or self.study.startswith("."):
            raise ConfigError(f"study must be a name, not a path, got {self.study!r}")
        if self.study.endswith(PART_ENDINGS):
            endings = " or ".join(repr(ending) for ending in PART_ENDINGS)
            raise ConfigError(
                f"study must not end in {endings}, got {self.study!r}: its parts are so named"
            )
        return self


class PlanFileConfig(Section):
    """The GPUs on which a training would run (`plan`)."""

    gpu: Text = key("A100-40", "name of a GPU, such as A10G; see configs/plan.yaml")
    gpu_memory_gib: float | None = key(None, "memory of another GPU", gt=0)
    num_gpus: int | None = key(None, "GPUs in all; null: 1", ge=1)
    sharded: bool = key(False, "the GPUs share the base (FSDP)")
    tokens_per_second: float | None = key(None, "that one GPU trains on; null: no hours", gt=0)
    json: Text | None = key(  # type: ignore[assignment]
        None, "file that the plan is written to as well"
    )


class ExportConfig(Section):
    """An adapter merged into its base (`export`)."""

    adapter: Text | None = key(None, "folder, runs:/ or models:/ address; null: newest sft run")
    experiment: Text = key("sft_curriculum", "experiment whose newest finished run is taken")
    output_dir: Text = key("outputs/export", "folder that is made; must not be there yet")
    save_dtype: Literal["float32", "bfloat16", "float16", "base"] = key(
        "float32",
        "type of the saved weights; half as large ones are rounded; base: as the base's are saved",
    )
    tolerance: float = key(0.001, "largest difference of a logit before and after", gt=0)
    data: FolderConfig = FolderConfig()


# Default path of an entry point's file -> its class.
CONFIG_FILES: dict[str, type[Section]] = {
    "configs/training_params.yaml": TrainingFileConfig,
    "configs/model_arch.yaml": ModelFileConfig,
    "configs/data_prep.yaml": DataPrepConfig,
    "configs/evaluate.yaml": EvaluateConfig,
    "configs/tune.yaml": TuneFileConfig,
    "configs/ablate.yaml": AblateFileConfig,
    "configs/compare.yaml": CompareConfig,
    "configs/plan.yaml": PlanFileConfig,
    "configs/export.yaml": ExportConfig,
}
