"""The strategies by name. To add one: a subclass of `Strategy` in its own file, and a line here."""

from pixelis.curriculum.strategies.adaptive import Adaptive
from pixelis.curriculum.strategies.base import Decision, Strategy
from pixelis.curriculum.strategies.competence import Competence
from pixelis.curriculum.strategies.schedule import Schedule
from pixelis.curriculum.strategies.self_paced import SelfPaced
from pixelis.curriculum.strategies.staged import Staged

__all__ = ["STRATEGIES", "Decision", "Strategy"]

STRATEGIES: dict[str, type[Strategy]] = {
    "staged": Staged,
    "schedule": Schedule,
    "competence": Competence,
    "self_paced": SelfPaced,
    "adaptive": Adaptive,
}
