"""The curriculum: stages, decisions, strategies and the sampler; no torch, no MLflow."""

from pixelis.curriculum.config import CurriculumConfig, Stage, check_examples
from pixelis.curriculum.event import (
    TRIAL_KINDS,
    CurriculumEvent,
    Visit,
    event_line,
    final_statistics,
    visits,
)
from pixelis.curriculum.manager import CurriculumManager
from pixelis.curriculum.sampler import MixtureSampler, draw_scored
from pixelis.errors import ConfigError

__all__ = [
    "ConfigError",
    "CurriculumConfig",
    "CurriculumEvent",
    "CurriculumManager",
    "MixtureSampler",
    "Stage",
    "TRIAL_KINDS",
    "Visit",
    "check_examples",
    "draw_scored",
    "event_line",
    "final_statistics",
    "visits",
]
