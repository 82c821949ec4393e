"""Searched batch sizes: every trial sees the same examples and is measured after the same ones."""

from collections.abc import Iterable, Sequence
from math import gcd

from optuna.distributions import CategoricalDistribution, IntDistribution

from pixelis.config import SECTION, TrainingConfig
from pixelis.errors import ConfigError
from pixelis.experiments.tune.space import Parameter

KEYS = ("training.batch_size", "training.gradient_accumulation_steps")


def check_batches(
    space: Sequence[Parameter], training: TrainingConfig, examples: int, interval: int
) -> None:
    """Refuse sizes of a step that do not divide the examples evenly.

    Args:
        space: what is searched.
        training: with the sizes that are not.
        examples: of a whole training.
        interval: examples between two evaluations.

    Raises:
        ConfigError: naming the key, the size and those that divide.
    """
    searched = {each.name: _values(each) for each in space if each.name in KEYS}
    shared = gcd(examples, interval)
    given: list[Iterable[int]] = [(training.batch_size,), (training.gradient_accumulation_steps,)]
    sizes, steps = (searched.get(key, value) for key, value in zip(KEYS, given, strict=True))
    for name in searched:
        own, others = (sizes, steps) if name == KEYS[0] else (steps, sizes)
        for other in others:
            for value in own:
                if value < 1 or shared % (value * other) == 0:
                    continue  # below 1 is refused with the other values
                fit = [n for n in range(1, shared + 1) if shared % (n * other) == 0]
                raise ConfigError(
                    f"{SECTION}.{name} must hold sizes that divide the {examples} examples of a "
                    f"training and the {interval} between evaluations, {value} with {other} of "
                    f"the other size does not; those that do: {', '.join(map(str, fit)) or 'none'}"
                )


def _values(parameter: Parameter) -> Iterable[int]:
    kind = parameter.distribution
    if isinstance(kind, CategoricalDistribution):
        return [each for each in kind.choices if type(each) is int]
    assert isinstance(kind, IntDistribution)
    return range(kind.low, kind.high + 1, 1 if kind.log else kind.step)
