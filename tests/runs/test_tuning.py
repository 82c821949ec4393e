"""Trials without a training: what a retried trial reports, and how the best is named."""

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from pixelis.config import ModelFileConfig, TrainingFileConfig, TuneFileConfig, load_config
from pixelis.experiments.tune.spec import SearchSpec
from pixelis.experiments.tune.study import open_study
from pixelis.experiments.tune.trials import run_trials
from pixelis.runs import tuning_worker
from pixelis.runs.tune import check_best, describe_trial, record_search, write_best

ROOT = Path(__file__).parent.parent.parent
STRATA = {"simple": 0.5, "medium": 0.5, "hard": 0.5}
VALUES = {
    **{"training.max_steps": "6", "training.eval_steps": "3", "training.batch_size": "2"},
    **{"training.gradient_accumulation_steps": "1", "training.output_dir": "tuned"},
    **{"seeds_per_trial": "2", "num_trials": "1", "best_config": "best.yaml"},
    **{"storage": "sqlite:///o.db"},
}


@pytest.fixture
def make_spec(tmp_path, monkeypatch):
    """A search in a working folder that has the default model's file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs/model_arch.yaml", tmp_path / "configs")

    def make(**model):
        config = load_config(TuneFileConfig, ROOT / "configs/smoke/tune.yaml", VALUES.items())
        pairs = [(f"model.{key}", value) for key, value in model.items()]
        file = ROOT / "configs/model_arch.yaml"
        spec = SearchSpec(config, load_config(ModelFileConfig, file, pairs))
        spec.__dict__["digest"] = "of no data"
        return spec

    return make


def train(kill_at=None):
    """What `run_sft` does of its own: evaluations are reported while it trains, not afterwards."""

    def run(config, model, curriculum, *, search):
        folder = Path(config.training.output_dir)
        if (folder / "finished.json").exists():
            return
        if config.training.seed == kill_at:
            raise KeyboardInterrupt("killed")
        evaluations = [(step, STRATA) for step in (3, 6)]
        if search.on_evaluation is not None:
            search.on_evaluation(evaluations[:1])
            search.on_evaluation(evaluations)
        folder.mkdir(parents=True)
        finished = {"results": {"strata": evaluations}}
        (folder / "finished.json").write_text(json.dumps(finished))

    return run


@pytest.fixture
def searched(make_spec, monkeypatch, tmp_path):
    """A search and its study, whose only trial was cut off in its second training."""
    spec = make_spec()
    search = open_study(spec)
    objective = partial(tuning_worker.train_trial, spec)
    monkeypatch.setattr(tuning_worker, "run_sft", train(kill_at=1))
    with pytest.raises(KeyboardInterrupt):
        run_trials(search, objective)
    monkeypatch.setattr(tuning_worker, "run_sft", train())
    assert run_trials(search, objective) == 1
    return spec, search


def test_a_trial_cut_off_in_its_second_training_keeps_its_intermediate_values(searched):
    _, search = searched
    first, second = search.trials
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.intermediate_values == second.intermediate_values == {6: 0.5}


def test_a_finished_training_that_is_pruned_ends_as_any_other(make_spec, monkeypatch):
    spec = make_spec()
    monkeypatch.setattr(tuning_worker, "run_sft", train())
    trial = SimpleNamespace(
        phase="trials",
        number=0,
        seed=None,
        baseline=None,
        params={},
        overrides={},
        report=lambda examples, value: None,
        pruned=optuna.TrialPruned,
    )
    tuning_worker.train_trial(spec, trial)
    assert (spec.root / "trials/0/seed-0/sft/finished.json").exists()
    trial.report = lambda examples, value: f"{value} after {examples}"
    with pytest.raises(optuna.TrialPruned, match="0.5 after 6"):
        tuning_worker.train_trial(spec, trial)
    assert not (spec.root / "trials/0/seed-0").exists()


class Recorder:
    """Keeps what `record_search` records."""

    def __init__(self):
        self.kept = {}

    def __getattr__(self, name):
        return lambda *arguments: self.kept.setdefault(name, []).append(arguments)


def test_the_best_has_the_number_that_its_runs_have(searched):
    spec, search = searched
    assert search.best_trial().number == 1  # Optuna's, of the second try
    recorder = Recorder()
    assert write_best(spec, search).read_text().startswith("# The best of 1 trials (trial 0): ")
    record_search(recorder, spec, search, "")
    assert recorder.kept["summary"][0][0]["best_trial"] == 0
    assert recorder.kept["table"][0][0][0]["trial"] == 0
    assert recorder.kept["note"][0][0].startswith("Best: trial 0, 0.5000")
    assert describe_trial(search.trials[1]).startswith("trial 0 (")


def test_the_best_names_its_model_where_that_is_not_the_default_one(searched, make_spec):
    spec, search = searched
    check_best(spec)
    text = write_best(spec, search).read_text()
    assert "# " in text and "-P model=" not in text and not Path("best_model.yaml").exists()

    spec = make_spec(lora_r="4")
    check_best(spec)  # tune's own file is written anew
    text = write_best(spec, search).read_text()
    assert "#   mlflow run . -e sft -P config=best.yaml -P model=best_model.yaml\n" in text
    assert load_config(ModelFileConfig, Path("best_model.yaml")) == spec.model
    load_config(TrainingFileConfig, Path("best.yaml"))
    recorder = Recorder()
    record_search(recorder, spec, search, "")
    assert [file.name for file, _ in recorder.kept["artifact"]] == ["best.yaml", "best_model.yaml"]

    Path("configs/model_arch.yaml").unlink()  # then there is none that sft could take
    assert "-P model=best_model.yaml" in write_best(make_spec(), search).read_text()
