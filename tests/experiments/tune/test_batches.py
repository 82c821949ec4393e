"""Searched batch sizes."""

import pytest

from pixelis.config import TrainingConfig
from pixelis.errors import ConfigError
from pixelis.experiments.tune import build_space
from pixelis.experiments.tune.batches import check_batches

SIZE, STEPS = "training.batch_size", "training.gradient_accumulation_steps"


def check(**section):
    space = build_space({f"training.{k}": v for k, v in section.items()}, {SIZE: 4, STEPS: 2}, {})
    training = TrainingConfig(batch_size=4, gradient_accumulation_steps=2)
    check_batches(space, training, examples=96, interval=24)


def test_sizes_that_divide():
    check(batch_size={"choices": [1, 2, 4, 12]})
    check(batch_size={"choices": [2, 4]}, gradient_accumulation_steps={"choices": [1, 2, 3]})
    check(batch_size={"low": 1, "high": 4})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"batch_size": {"choices": [4, 5]}},
            "batch_size must hold sizes that divide the 96 examples of a training and the 24 "
            "between evaluations, 5 with 2 of the other size does not; those that do: 1, 2, 3, 4, "
            "6, 12",
        ),
        ({"batch_size": {"low": 4, "high": 6}}, "5 with 2 of the other size does not"),
        (
            {"batch_size": {"choices": [4, 8]}, "gradient_accumulation_steps": {"choices": [1, 6]}},
            "batch_size must .* 8 with 6 of the other size does not; those that do: 1, 2, 4",
        ),
        ({"gradient_accumulation_steps": {"choices": [2, 4]}}, "4 with 4 of the other size"),
    ],
)
def test_sizes_that_do_not(section, message):
    with pytest.raises(ConfigError, match=message):
        check(**section)
