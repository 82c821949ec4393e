"""The stages of a training in which every attempt succeeds."""

import shutil

import pyarrow.parquet as pq
import pytest

from pixelis.config import ModelConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.data.store import write_rows
from pixelis.planning.data import plan_stages, read_statistics, sum_examples
from tests.small_data import make_thin


def stages(max_steps=100, scores=None, **changed):
    config = CurriculumConfig.from_dict({"advancement_interval": 20} | changed)
    return plan_stages(config, max_steps=max_steps, examples_per_step=10, scores=scores)


def test_staged_advances_at_every_interval():
    planned = stages()
    assert [(s.name, s.first_step, s.steps) for s in planned] == [
        ("simple", 1, 20),
        ("balanced", 21, 20),
        ("full", 41, 60),
    ]
    assert planned[1].examples == pytest.approx({"simple": 80, "medium": 80, "hard": 40})
    assert sum(sum_examples(planned).values()) == pytest.approx(1000)


def test_a_trial_belongs_to_the_stage_that_it_tries():
    planned = stages(trial_steps=5)
    assert [(s.name, s.first_step) for s in planned][:2] == [("simple", 1), ("balanced", 21)]


@pytest.mark.parametrize(
    "rule", [{"decision": "progress", "min_progress": 0.1}, {"rollback_threshold": 0.0}]
)
def test_every_attempt_succeeds_whatever_it_would_have_to_gain(rule):
    assert stages(trial_steps=5, **rule) == stages(trial_steps=5)


def test_a_schedule_is_exact_and_no_curriculum_is_one_mix():
    planned = stages(strategy="schedule", schedule={"steps": [10, 70]})
    assert [(s.first_step, s.steps) for s in planned] == [(1, 10), (11, 60), (71, 30)]
    (only,) = stages(enabled=False)
    assert only.examples == pytest.approx({"simple": 200, "medium": 300, "hard": 500})
    (only,) = stages(enabled=False, scores={"medium": [0.5, 0.6]})
    assert only.examples == pytest.approx({"simple": 0, "medium": 1000, "hard": 0})


def test_competence_needs_the_scores():
    scores = {"simple": [0.1, 0.2], "medium": [0.4, 0.5], "hard": [0.8, 0.9]}
    assert stages(strategy="competence") is None
    planned = stages(strategy="competence", scores=scores)
    total = sum_examples(planned)
    assert total["simple"] > total["hard"] > 0
    assert sum(total.values()) == pytest.approx(1000)
    total = sum_examples(stages(strategy="competence", scores={"simple": [0.1, 0.1, 0.1]}))
    assert total == pytest.approx({"simple": 1000, "medium": 0, "hard": 0})


@pytest.mark.parametrize("strategy", ["self_paced", "adaptive"])
def test_what_losses_decide_is_not_known_before(strategy):
    assert stages(strategy=strategy, scores={"simple": [0.1]}) is None


def test_examples_that_training_leaves_out_are_not_measured(made_data, tmp_path):
    folder = shutil.copytree(made_data, tmp_path / "data")
    path = folder / "cota_simple.parquet"
    rows = pq.read_table(path).to_pylist()
    write_rows([make_thin(row) if n % 2 else row for n, row in enumerate(rows)], path)
    found, whole = (read_statistics(each, ModelConfig()) for each in (folder, made_data))
    assert found.sizes == whole.sizes
    assert found.tokens["hard"] == whole.tokens["hard"]
    assert found.tokens["simple"] != whole.tokens["simple"]
