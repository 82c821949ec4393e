"""Parts of a search without a training: what a retried trial tells, and how the best is named."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from pixelis.config import ModelFileConfig, TrainingFileConfig, TuneFileConfig, load_config
from pixelis.experiments.tune import TRIALS, Part, Plan, TrialStopped, open_study, run_trials
from pixelis.runs import tune as tuning_run
from pixelis.runs import tuning_worker
from pixelis.runs.tuning_record import check_best, record_search, write_best

ROOT = Path(__file__).parent.parent.parent
STRATA = {"simple": 0.5, "medium": 0.5, "hard": 0.5}
VALUES = {
    **{"training.max_steps": "6", "training.eval_steps": "3", "training.batch_size": "2"},
    **{"training.gradient_accumulation_steps": "1", "training.output_dir": "tuned"},
    **{"seeds_per_trial": "2", "num_trials": "1", "best_config": "best.yaml"},
}


@pytest.fixture
def make_plan(tmp_path, monkeypatch):
    """A plan in a working folder that has the default model's file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs/model_arch.yaml", tmp_path / "configs")

    def make(**model):
        config = load_config(TuneFileConfig, ROOT / "configs/smoke/tune.yaml", VALUES.items())
        words = [(f"model.{key}", value) for key, value in model.items()]
        file = ROOT / "configs/model_arch.yaml"
        return Plan(config, load_config(ModelFileConfig, file, words))

    return make


def train(kill_at=None):
    """What `run_sft` does of its own: evaluations are told while it trains, not afterwards."""

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
        told = {"results": {"strata": evaluations}}
        (folder / "finished.json").write_text(json.dumps(told))

    return run


@pytest.fixture
def searched(make_plan, monkeypatch, tmp_path):
    """A plan and its study, whose only trial was cut off in its second training."""
    plan = make_plan()
    study = open_study(f"sqlite:///{tmp_path}/o.db", "smoke", plan.settings, identity={"a": 1})
    bench = tuning_worker.Bench(plan)
    words = (study, plan.space, plan.settings, bench.search, plan.root / TRIALS)
    monkeypatch.setattr(tuning_worker, "run_sft", train(kill_at=1))
    with pytest.raises(TrialStopped):
        run_trials(*words)
    monkeypatch.setattr(tuning_worker, "run_sft", train())
    assert run_trials(*words) == 1
    return plan, study


def test_a_trial_cut_off_in_its_second_training_keeps_its_intermediate_values(searched):
    _, study = searched
    first, second = study.trials
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.intermediate_values == second.intermediate_values == {6: 0.5}


def test_a_finished_training_that_is_pruned_ends_as_any_other(make_plan, monkeypatch):
    plan = make_plan()
    monkeypatch.setattr(tuning_worker, "run_sft", train())
    bench = tuning_worker.Bench(plan)
    trial = SimpleNamespace(
        number=0,
        baseline=None,
        params={},
        overrides={},
        report=lambda examples, value: None,
        pruned=optuna.TrialPruned,
    )
    bench.search(trial)
    assert (plan.root / "trials/0/seed-0/sft/finished.json").exists()
    trial.report = lambda examples, value: f"{value} after {examples}"
    with pytest.raises(optuna.TrialPruned, match="0.5 after 6"):
        bench.search(trial)
    assert not (plan.root / "trials/0/seed-0").exists()


class Recorder:
    """Keeps what `record_search` says."""

    def __init__(self):
        self.kept = {}

    def __getattr__(self, name):
        return lambda *words: self.kept.setdefault(name, []).append(words)


def test_the_best_has_the_number_that_its_runs_have(searched, monkeypatch):
    plan, study = searched
    part = Part(TRIALS, study, plan.space, plan.settings)
    assert study.best_trial.number == 1  # Optuna's, of the second try
    recorder = Recorder()
    assert write_best(plan, study).read_text().startswith("# The best of 1 trials (trial 0): ")
    record_search(recorder, plan, part, "")
    assert recorder.kept["summary"][0][0]["best_trial"] == 0
    assert recorder.kept["table"][0][0][0]["trial"] == 0
    assert recorder.kept["note"][0][0].startswith("Best: trial 0, 0.5000")
    assert tuning_run._Progress([part], None)._line(study.trials[1]).startswith("trial 0 (")

    class Found(Exception):
        pass

    def enqueue(plan, final, contestants):
        raise Found(next(iter(contestants)))

    monkeypatch.setattr(tuning_run, "enqueue_final", enqueue)
    with pytest.raises(Found, match=r"best \(trial 0\)"):
        tuning_run._judge(plan, part, [part], recorder)


def test_the_best_names_its_model_where_that_is_not_the_default_one(searched, make_plan):
    plan, study = searched
    check_best(plan)
    text = write_best(plan, study).read_text()
    assert "# " in text and "-P model=" not in text and not Path("best_model.yaml").exists()

    plan = make_plan(lora_r="4")
    check_best(plan)  # tune's own file is written anew
    text = write_best(plan, study).read_text()
    assert "#   mlflow run . -e sft -P config=best.yaml -P model=best_model.yaml\n" in text
    assert load_config(ModelFileConfig, Path("best_model.yaml")) == plan.model
    load_config(TrainingFileConfig, Path("best.yaml"))
    recorder = Recorder()
    record_search(recorder, plan, Part(TRIALS, study, plan.space, plan.settings), "")
    assert [file.name for file, _ in recorder.kept["artifact"]] == ["best.yaml", "best_model.yaml"]

    Path("configs/model_arch.yaml").unlink()  # then there is none that sft could take
    assert "-P model=best_model.yaml" in write_best(make_plan(), study).read_text()
