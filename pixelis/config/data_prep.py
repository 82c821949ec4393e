"""Every key of data_prep.yaml: its default, its rule and its meaning."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, create_model, field_validator, model_validator

from pixelis.config.section import NULL_WORDS, Many, OpenSection, Section, Text, key, suggest
from pixelis.config.tool_profiles import PROFILES
from pixelis.errors import ConfigError

MAX_SEED = 2**32 - 1  # numpy's largest seed
MAX_SAMPLES = 5_000_000  # the plan is kept in memory and must stay under 2 GiB
MAX_WORKERS = 256


class DifficultyConfig(Section):
    """Section `difficulty` of data_prep.yaml: the parts of the difficulty score."""

    trajectory: float = key(0.3, "weight of the number of steps", ge=0)
    operations: float = key(0.25, "weight of the kinds of operations used", ge=0)
    reasoning: float = key(0.2, "weight of the length of the thoughts", ge=0)
    errors: float = key(0.15, "weight of mistakes and corrections", ge=0)
    task: float = key(0.1, "weight of the task's own hardness", ge=0)
    percentiles: Many[Annotated[float, Field(gt=0, lt=100)]] = key(
        (33.0, 66.0), "where simple ends and hard begins, in % of examples"
    )
    scorer: Literal["composite", "model", "multi"] = key("composite", "what the score is made from")
    method: Literal["percentiles", "thresholds"] = key("percentiles", "from score to category")
    thresholds: Many[Annotated[float, Field(ge=0, le=1)]] = key(
        (0.4, 0.6), "where medium and hard begin, for method thresholds"
    )
    correlation_samples: int = key(
        300,
        "examples on which the score is compared with the base model's error; 0: none",
        ge=0,
        le=300,
    )
    model_name: Text = key("pixelis-nano", "base model of comparison, scorer model and max_length")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check the rules that join several keys."""
        names = ("trajectory", "operations", "reasoning", "errors", "task")
        total = sum(getattr(self, name) for name in names)
        if abs(total - 1) > 1e-6:
            raise ConfigError(f"difficulty: {', '.join(names)} must sum to 1, got {total:g}")
        for name in ("percentiles", "thresholds"):
            cuts = getattr(self, name)
            if len(cuts) != 2 or cuts[0] >= cuts[1]:
                rule = f"must be two rising numbers, got {list(cuts)}"
                raise ConfigError(f"difficulty.{name} {rule}")
        return self


class CorruptConfig(Section):
    """Section `corrupt` of data_prep.yaml: examples that are broken on purpose."""

    share: float = key(
        0.0,
        "share of the difficulty's train and validation examples that is broken; 0: none",
        ge=0,
        le=1,
    )
    difficulty: Literal["simple", "medium", "hard"] = key("hard", "difficulty that is broken")
    kind: Literal["answers", "images"] = key(
        "answers", "answers: all become unknown; images: those of other questions"
    )


class ToolConfig(Section):
    """An entry of `import.tools`: what a tool of the input is here."""

    operation: Text = key(..., "the operation that its calls become")
    arguments: dict[Text, Text | int | None] = key(
        {}, "its argument -> ours; null: left out; a number: left out, and must have this value"
    )
    fixed: OpenSection = key({}, "arguments of ours that every call gets, such as factor: 1")
    unit: Literal["pixels", "fractions", "thousandths"] = key(
        "pixels", "unit of its coordinates: pixels, [0, 1] or [0, 1000] of the image"
    )


class ImportConfig(Section):
    """Section `import` of data_prep.yaml: how the records of `input` are read."""

    tools: dict[Text, ToolConfig] | None = key(
        None, f"what its tools are here, or a profile: {', '.join(PROFILES)}; null: as ours"
    )

    @field_validator("tools", mode="before")
    @classmethod
    def _open_profile(cls, value: Any) -> Any:
        """Replace the name of a profile by its tools."""
        if not isinstance(value, str) or value.lower() in NULL_WORDS:
            return value
        if value not in PROFILES:
            choices = ", ".join(PROFILES)
            raise ValueError(
                f"must be a section of tools or one of {choices}, got {value!r}"
                f"{suggest(value, PROFILES)}"
            )
        return PROFILES[value]


if TYPE_CHECKING:
    _WithImport = Section
else:  # no class body can hold a key named `import`, a word of Python
    _WithImport = create_model(
        "_WithImport", __base__=Section, **{"import": (ImportConfig, ImportConfig())}
    )


class DataPrepConfig(_WithImport):
    """Generated or imported data (`data-prep`)."""

    num_samples: int = key(8000, "examples to make; an import takes all", ge=1, le=MAX_SAMPLES)
    seed: int = key(0, "seed of every random choice", ge=0, le=MAX_SEED)
    output_dir: Text = key("data/cota", "folder for the parquet files and summary.json")
    source: Literal["scenes", "coco"] = key("scenes", "where images and truth come from")
    input: Text | None = key(None, "source coco: its JSON or folder; else data to import")
    input_format: Literal["cota", "messages", "conversations"] | None = key(
        None, "format of the records in input; null: detected by content"
    )
    image_folder: Text | None = key(None, "folder of input's images; null: the input's own")
    max_rejected: float = key(0.05, "share of the input's records that may be rejected", ge=0, le=1)
    max_length: int | None = key(None, "longest imported example, in tokens; null: not asked", ge=1)
    tasks: Many[Text] | None = key(None, "tasks to make, in equal shares; null: all of the source")
    include_negatives: bool = key(False, "add examples that judge a wrong trajectory")
    include_traps: bool = key(False, "add examples that judge a misleading trajectory")
    negative_ratio: float = key(0.1, "share of negatives, if included", ge=0, le=1)
    trap_ratio: float = key(0.2, "share of traps, if included", ge=0, le=1)
    self_correction_ratio: float = key(0.1, "share that mends a wrong step", ge=0, le=1)
    split_by_category: bool = key(True, "split into simple, medium and hard by score")
    num_workers: int = key(2, "processes that draw and check examples", ge=1, le=MAX_WORKERS)
    validation_fraction: float = key(0.12, "share of the validation split", gt=0, lt=1)
    test_fraction: float = key(0.12, "share of the test split", gt=0, lt=1)
    difficulty: DifficultyConfig = DifficultyConfig()
    corrupt: CorruptConfig = CorruptConfig()

    @property
    def tools(self) -> dict[str, ToolConfig]:
        """The tools of the input by name, as `import.tools` maps them."""
        section: ImportConfig = getattr(self, "import")
        return section.tools or {}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
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
        return self
