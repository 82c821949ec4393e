"""The settings of every entry point, and how they are read."""

from pixelis.config.export import ExportConfig
from pixelis.config.plan import PlanFileConfig
from pixelis.config.schema import (
    CHANGING_INITS,
    EVA,
    FIRST_TUNING_SEED,
    INITS,
    AblateFileConfig,
    CompareConfig,
    DataPrepConfig,
    DifficultyConfig,
    EvaluateConfig,
    ModelConfig,
    ModelFileConfig,
    TrainingConfig,
    TrainingFileConfig,
    digest,
    flatten,
    to_yaml,
)
from pixelis.config.search_space import FIELDS, SECTION, flat_space, merge_space
from pixelis.config.settings import Setting, describe, load_config, unknown_key
from pixelis.config.strict_yaml import dump_yaml, parse_yaml, read_mapping
from pixelis.config.tune import FIRST_FINAL_SEED, TuneFileConfig

__all__ = [
    "AblateFileConfig",
    "CHANGING_INITS",
    "CompareConfig",
    "DataPrepConfig",
    "DifficultyConfig",
    "EVA",
    "EvaluateConfig",
    "ExportConfig",
    "FIELDS",
    "FIRST_FINAL_SEED",
    "FIRST_TUNING_SEED",
    "INITS",
    "ModelConfig",
    "ModelFileConfig",
    "PlanFileConfig",
    "SECTION",
    "Setting",
    "TrainingConfig",
    "TrainingFileConfig",
    "TuneFileConfig",
    "describe",
    "digest",
    "dump_yaml",
    "flat_space",
    "flatten",
    "load_config",
    "merge_space",
    "parse_yaml",
    "read_mapping",
    "to_yaml",
    "unknown_key",
]
