"""Every key of data_prep.yaml: its default, its rule and its meaning."""

from dataclasses import dataclass

from pixelis.config.settings import setting
from pixelis.errors import ConfigError

MAX_SEED = 2**32 - 1  # numpy takes no larger one
MAX_SAMPLES = 5_000_000  # planned in memory: within 2 GiB
MAX_WORKERS = 256


@dataclass(frozen=True)
class DifficultyConfig:
    """Section `difficulty` of data_prep.yaml: the parts of the difficulty score."""

    trajectory: float = setting(0.30, "weight of the number of steps", at_least=0)
    operations: float = setting(0.25, "weight of the kinds of operations used", at_least=0)
    reasoning: float = setting(0.20, "weight of the length of the thoughts", at_least=0)
    errors: float = setting(0.15, "weight of mistakes and corrections", at_least=0)
    task: float = setting(0.10, "weight of the task's own hardness", at_least=0)
    percentiles: tuple[float, ...] = setting(
        (33.0, 66.0),
        "where simple ends and hard begins, in % of examples",
        above=0,
        below=100,
    )
    scorer: str = setting(
        "composite", "what the score is made from", choices=("composite", "model", "multi")
    )
    method: str = setting(
        "percentiles", "how scores become categories", choices=("percentiles", "thresholds")
    )
    thresholds: tuple[float, ...] = setting(
        (0.4, 0.6), "where medium and hard begin, for method thresholds", at_least=0, at_most=1
    )
    correlation_samples: int = setting(
        300,
        "examples on which the score is compared with the base model's error; 0: none",
        at_least=0,
        at_most=300,
    )
    model_name: str = setting(
        "pixelis-nano", "the base model of that comparison, of scorer model and of max_length"
    )

    def __post_init__(self) -> None:
        """Check the rules that join several keys."""
        names = ("trajectory", "operations", "reasoning", "errors", "task")
        total = sum(getattr(self, name) for name in names)
        if abs(total - 1) > 1e-6:
            raise ConfigError(f"difficulty: {', '.join(names)} must sum to 1, got {total:g}")
        if len(self.percentiles) != 2 or self.percentiles[0] >= self.percentiles[1]:
            got = list(self.percentiles)
            raise ConfigError(f"difficulty.percentiles must be two rising numbers, got {got}")
        if len(self.thresholds) != 2 or self.thresholds[0] >= self.thresholds[1]:
            got = list(self.thresholds)
            raise ConfigError(f"difficulty.thresholds must be two rising numbers, got {got}")


@dataclass(frozen=True)
class DataPrepConfig:
    """configs/data_prep.yaml."""

    num_samples: int = setting(
        8000, "examples to make; an import takes all", at_least=1, at_most=MAX_SAMPLES
    )
    seed: int = setting(0, "seed of every random choice", at_least=0, at_most=MAX_SEED)
    output_dir: str = setting("data/cota", "folder for the parquet files and summary.json")
    source: str = setting("scenes", "where images and truth come from", choices=("scenes", "coco"))
    input: str | None = setting(
        None, "file or folder: of source coco its JSON, else data to import instead of making any"
    )
    input_format: str | None = setting(
        None,
        "format of the records in input; null: detected by content",
        choices=("cota", "messages", "conversations"),
    )
    image_folder: str | None = setting(None, "folder of input's images; null: the input's own")
    max_rejected: float = setting(
        0.05, "share of the input's records that may be rejected", at_least=0, at_most=1
    )
    max_length: int | None = setting(
        None, "longest imported example, in tokens; null: not asked", at_least=1
    )
    tasks: tuple[str, ...] | None = setting(
        None, "tasks to make, in equal shares; null: all that the source can be asked"
    )
    include_negatives: bool = setting(False, "add examples that judge a wrong trajectory")
    include_traps: bool = setting(False, "add examples that judge a misleading trajectory")
    negative_ratio: float = setting(0.1, "share of negatives, if included", at_least=0, at_most=1)
    trap_ratio: float = setting(0.2, "share of traps, if included", at_least=0, at_most=1)
    self_correction_ratio: float = setting(
        0.1, "share of trajectories that mend a wrong step", at_least=0, at_most=1
    )
    split_by_category: bool = setting(True, "split into simple, medium and hard by score")
    num_workers: int = setting(
        2, "processes that draw and check examples", at_least=1, at_most=MAX_WORKERS
    )
    validation_fraction: float = setting(0.12, "share of the validation split", above=0, below=1)
    test_fraction: float = setting(0.12, "share of the test split", above=0, below=1)
    difficulty: DifficultyConfig = DifficultyConfig()

    def __post_init__(self) -> None:
        """Check the rules that join several keys."""
        named = self.tasks
        if named is not None and (not named or len(set(named)) < len(named)):
            raise ConfigError(f"tasks must name each task once, got {list(named)}")
        negatives = self.negative_ratio if self.include_negatives else 0.0
        traps = self.trap_ratio if self.include_traps else 0.0
        if (total := negatives + traps + self.self_correction_ratio) >= 1:
            raise ConfigError(
                "negative_ratio, trap_ratio (where included) and self_correction_ratio must sum"
                f" to less than 1, got {total:g}"
            )
        if (total := self.validation_fraction + self.test_fraction) >= 1:
            raise ConfigError(
                f"validation_fraction + test_fraction must be less than 1, got {total:g}"
            )
