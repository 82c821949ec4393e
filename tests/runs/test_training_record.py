"""The name of a training's run: where it stands and what it reached, first."""

import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.runs.training_record import RunText, run_name


def event(kind, stage, tried=None, rollbacks=0):
    return {
        "kind": kind,
        "from_stage": stage,
        "to_stage": tried or stage,
        "rollback_count": rollbacks,
    }


@pytest.mark.parametrize(
    ("settings", "newest", "outcome", "name"),
    [
        ({}, event("end", "full", rollbacks=1), "46.6 % (base 33.7)", "full · {} · 1 rollback"),
        ({}, event("start", "simple"), "at step 0 of 24", "simple · {} · 0 rollbacks"),
        (
            {},
            event("trial", "simple", "balanced", 2),
            "stopped after step 9 of 24",
            "simple (tries balanced) · {} · 2 rollbacks",
        ),
        ({"strategy": "competence"}, event("end", "full"), "46.6 %", "competence · {}"),
        ({"enabled": False}, event("end", "full"), "46.6 %", "fixed mix · {}"),
        (
            {"strategy": "schedule", "schedule": {"steps": [1, 5]}},
            event("advance", "balanced"),
            "at step 1 of 24",
            "schedule balanced · {}",
        ),
    ],
)
def test_a_name_begins_with_where_the_training_stands(settings, newest, outcome, name):
    text = RunText(CurriculumConfig.from_dict(settings), seed=3, max_steps=24)
    assert run_name(text, [newest], outcome) == f"{name.format(outcome)} · seed 3"


def test_the_name_of_a_trial_begins_with_its_label():
    text = RunText(CurriculumConfig.from_dict({}), seed=0, max_steps=24, label="trial 2")
    name = run_name(text, [event("end", "full")], "46.6 %")
    assert name == "trial 2 · full · 46.6 % · 0 rollbacks · seed 0"
