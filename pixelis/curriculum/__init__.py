"""The curriculum: stages, decisions, strategies and sampling, in the standard library alone."""

from pixelis.curriculum.config import CurriculumConfig, Stage, check_examples
from pixelis.curriculum.event import CurriculumEvent
from pixelis.curriculum.manager import CurriculumManager
from pixelis.curriculum.report import event_line, final_statistics
from pixelis.curriculum.sampling import MixtureSampler
from pixelis.curriculum.scoring import draw_scored
from pixelis.curriculum.visits import Visit, visits
from pixelis.errors import ConfigError

__all__ = [
    "ConfigError",
    "CurriculumConfig",
    "CurriculumEvent",
    "CurriculumManager",
    "MixtureSampler",
    "Stage",
    "Visit",
    "check_examples",
    "draw_scored",
    "event_line",
    "final_statistics",
    "visits",
]
