"""The settings of every entry point: their classes, and how to load them."""

from pixelis.config.data_prep import DataPrepConfig, DifficultyConfig
from pixelis.config.files import copy_configs, find_config, packaged_configs
from pixelis.config.kinds import walk_fields
from pixelis.config.load import flatten, load_config, to_yaml
from pixelis.config.schema import (
    CHANGING_INITS,
    CONFIG_FILES,
    EVA,
    FIRST_FINAL_SEED,
    FIRST_TUNING_SEED,
    INITS,
    AblateFileConfig,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    ModelConfig,
    ModelFileConfig,
    PlanFileConfig,
    TrainingConfig,
    TrainingFileConfig,
    TuneFileConfig,
)
from pixelis.config.section import Section, key, unknown_key, validate
from pixelis.config.space import FIELDS, SECTION, flat_space, merge_space
from pixelis.config.yaml_text import dump_yaml, parse_yaml, read_mapping

__all__ = [
    "AblateFileConfig",
    "CHANGING_INITS",
    "CONFIG_FILES",
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
    "Section",
    "TrainingConfig",
    "TrainingFileConfig",
    "TuneFileConfig",
    "copy_configs",
    "dump_yaml",
    "find_config",
    "flat_space",
    "flatten",
    "key",
    "load_config",
    "merge_space",
    "packaged_configs",
    "parse_yaml",
    "read_mapping",
    "to_yaml",
    "unknown_key",
    "validate",
    "walk_fields",
]
