"""Settings that are tried before the search begins: what they may set to be judged beside it."""

from collections.abc import Callable, Iterator, Mapping
from math import gcd
from typing import Any

from pixelis.config import TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.experiments.tune.space import why_fixed

STAGES = "curriculum.stages"  # a baseline may have others: it is measured on the search's last mix


def flat(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def read_baseline(
    name: str,
    section: Any,
    *,
    known: Mapping[str, Any],
    fixed: Mapping[str, str],
    build: Callable[[Mapping[str, Any]], tuple[TrainingConfig, CurriculumConfig]],
    measured: frozenset[str],
    examples: int,
    interval: int,
) -> dict[str, Any]:
    """The dotted keys and values of a baseline that can be trained and measured as trials are.

    Args:
        name: its own.
        section: what the file says of it, nested.
        known: every key that there is.
        fixed: keys that no trial may have another value of, and why.
        build: gives the training of some values.
        measured: difficulties of the mix that trials are measured on.
        examples: of a whole training.
        interval: examples between two evaluations.

    Raises:
        ConfigError: naming the key, the rule and the value.
    """
    if not isinstance(section, Mapping):
        raise ConfigError(f"baselines.{name} must be a section, got {section!r}")
    found = dict(flat("", section))
    for key in found:
        if key not in known:
            raise ConfigError(
                f"baselines.{name}.{key} must be a key of training, curriculum, model"
            )
        why = why_fixed(key, fixed)
        if why is not None and key != STAGES:
            raise ConfigError(f"baselines.{name}.{key} cannot be set: {why}")
    try:
        training, curriculum = build(found)
    except ConfigError as error:
        raise ConfigError(f"baselines.{name}: {error}") from error
    if lacking := sorted(measured - set(curriculum.required_difficulties)):
        raise ConfigError(
            f"baselines.{name} must have every difficulty that trials are measured on in its last "
            f"stage's mix, {', '.join(lacking)} is not"
        )
    batch = training.batch_size * training.gradient_accumulation_steps
    if gcd(examples, interval) % batch:
        raise ConfigError(
            f"baselines.{name} must have steps that divide the {examples} examples of a training "
            f"and the {interval} between evaluations, got {batch} examples a step"
        )
    return found
