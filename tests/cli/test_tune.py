"""tune as a user meets it: a search, a kill, a second start, and every input that it refuses."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pyarrow.parquet as parquet
import pytest
from optuna.trial import TrialState

from pixelis.cli.arguments import run_cli
from pixelis.cli.tune import main
from pixelis.config import ModelFileConfig, TrainingFileConfig, TuneFileConfig, load_config

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
SPACE = {
    "curriculum": {
        "advancement_interval": {"low": 2, "high": 4},
        "rollback_threshold": {"low": -0.4, "high": -0.02},
        "rollback_factor": {"low": 1.1, "high": 4.0},
    }
}
GUIDE = {"advancement_interval": 2, "rollback_threshold": -0.05, "rollback_factor": 2.0}
UNIFORM = {"enabled": False}
BASELINES = {"guide": {"curriculum": GUIDE}, "uniform": {"curriculum": UNIFORM}}


@pytest.fixture
def tune_arguments(sft_arguments):
    """The command line of a search of seconds; later words win."""

    def build(*words, **changed):
        _, _, _, _, *rest = sft_arguments(training__output_dir="tuned", **changed)
        return [
            *("--config", str(ROOT / "configs/smoke/tune.yaml")),
            *("--model", str(ROOT / "configs/model_arch.yaml")),
            *rest,
            *("--exp_name", "tune", "--storage", "sqlite:///optuna.db"),
            *("--best_config", "best.yaml", "--num_trials", "3", "--final_seeds", "1"),
            *("--space", json.dumps(SPACE), "--baselines", json.dumps(BASELINES)),
            *words,
        ]

    return build


def load(name):
    return optuna.load_study(study_name=name, storage="sqlite:///optuna.db")


def ended(study):
    return [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


@pytest.fixture
def workers_here(monkeypatch):
    """Runs the workers in this process, one after the other: it has imported torch already."""
    from pixelis.cli import tune_worker
    from pixelis.runs import tune

    def run_jobs(jobs, *, environment, on_poll, **_):
        for job in jobs:
            with monkeypatch.context() as variables:
                for name, value in environment.items():
                    variables.setenv(name, value)
                tune_worker.main(job.argv)
            on_poll()
            yield job, None, 0.0

    monkeypatch.setattr(tune, "run_jobs", run_jobs)


def test_a_search_from_nothing_to_a_verdict(
    workdir, data, tune_arguments, workers_here, client, runs, capfd
):
    assert run_cli(main, tune_arguments()) == 0
    out = capfd.readouterr().out
    assert "guide (advancement_interval 2, rollback_threshold -0.05, rollback_factor 2): 0." in out
    assert "On 1 fresh seed of best (trial" in out and "| guide |" not in out
    assert len(ended(load("smoke"))) == 3
    assert load("smoke").trials[0].user_attrs["pixelis.baseline"] == "guide"
    assert len(ended(load("smoke baselines"))) == 1  # uniform is no point of the space
    assert len(ended(load("smoke final"))) == 3

    by_id = {run.info.run_id: run for run in runs()}
    (parent,) = [r for r in by_id.values() if r.data.tags["pixelis.entry_point"] == "tune"]
    children = [
        run
        for run in by_id.values()
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    assert len(children) == 3 + 1 + 3 and len(by_id) == 8
    assert {run.info.status for run in by_id.values()} <= {"FINISHED", "KILLED"}
    assert parent.info.run_name.startswith("tune smoke · 3 trials · best 0.")
    names = {run.info.run_name.partition(" · ")[0] for run in children}
    assert {"guide", "trial 1", "trial 2", "uniform"} <= names
    for run in children:
        assert float(run.data.params["curriculum.rollback_threshold"]) < 0
        assert "curriculum/stage" in run.data.metrics or "uniform" in run.info.run_name
    artifacts = {a.path for a in client.list_artifacts(parent.info.run_id, "tune")}
    assert {
        *("tune/study.html", "tune/trials.json", "tune/verdict.md", "tune/best.yaml"),
        *("tune/history.png", "tune/slices.png", "tune/parallel_coordinates.png"),
        *("tune/contour.png", "tune/importances.png", "tune/intermediate_values.png"),
    } <= artifacts
    assert parent.data.metrics["summary/trials"] == 3
    assert "summary/verdict/best" in parent.data.metrics
    note = parent.data.tags["mlflow.note.content"]
    assert "| guide |" in note and "the winner would" in note

    # A second start has nothing to do, in the same run.
    assert run_cli(main, tune_arguments()) == 0
    assert len(runs()) == 8 and len(load("smoke").trials) == 3

    # sft takes the file.
    best = max(ended(load("smoke")), key=lambda trial: trial.value or 0)
    settings = load_config(TrainingFileConfig, Path("best.yaml"))
    for name, value in best.params.items():
        assert settings.curriculum[name.partition(".")[2]] == pytest.approx(value)


def start(words):
    """A search in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pixelis.cli.tune", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for_a_trial(process, workdir):
    """Until the first training of a search is through."""
    until = time.monotonic() + 400
    while not list((workdir / "tuned").rglob("finished.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_storage_that_goes_in_the_middle(workdir, data, tune_arguments, runs, workers):
    words = tune_arguments("--final_seeds", "0", "--num_trials", "4", "--num_workers", workers)
    process = start(words)
    wait_for_a_trial(process, workdir)
    away = (workdir / "optuna.db").rename(workdir / "kept.db")
    (workdir / "optuna.db").write_bytes(b"this is no database" * 1000)
    out, err = process.communicate(timeout=500)
    assert process.returncode != 0 and "Traceback" not in out + err
    assert "the study's storage is gone or locked (" in err.splitlines()[-1], err
    (search,) = [r for r in runs() if r.data.tags["pixelis.entry_point"] == "tune"]
    assert search.info.status == "FAILED"

    (workdir / "optuna.db").unlink()
    away.rename(workdir / "optuna.db")
    process = start(words)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert len(ended(load("smoke"))) == 4


@pytest.mark.slow
def test_killed_it_goes_on_with_every_finished_trial(workdir, data, tune_arguments, runs):
    words = tune_arguments("--final_seeds", "0", "--num_trials", "4")
    process = start(words)
    wait_for_a_trial(process, workdir)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {t.number: t.value for t in ended(load("smoke"))}
    process = start(words)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    study = load("smoke")
    assert len(ended(study)) == 4
    assert {t.number: t.value for t in ended(study) if t.number in before} == before
    assert not [t for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert len([r for r in runs() if r.data.tags["pixelis.entry_point"] == "tune"]) == 1


@pytest.fixture
def refused(workdir, capfd, runs):
    def call(arguments):
        capfd.readouterr()
        code = run_cli(main, arguments)
        out, err = capfd.readouterr()
        assert code == 2, err
        last = err.splitlines()[-1]
        assert last.startswith("error: ") and "Traceback" not in err
        return last.removeprefix("error: ")

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--space.curriculum.advancement_interval.low", "9"),
            "space.curriculum.advancement_interval must be a range .*low=9, high=4",
        ),
        (
            ("--space.curriculum.rollback_threshold.high", "0.05"),
            "space.curriculum.rollback_threshold must hold valid values: "
            "curriculum.rollback_threshold must be in .-1, 0., got 0.05 .a drop is negative.",
        ),
        (("--space", "{curriculum: {intervall: {low: 1, high: 2}}}"), "Unknown key 'curriculum.in"),
        (("--space.training.seed", "{low: 1, high: 2}"), "space.training.seed cannot be searched"),
        (("--baselines.other", "{curriculum: {x: 1}}"), "baselines.other.curriculum.x must be a"),
        (("--target", "0.5"), "pruner must be none where target is set, got 'median'"),
        (("--sampler", "cma"), "sampler must be one of tpe, gp, random, got 'cma'"),
        (("--study", "../x"), "study must be a name, not a path, got '../x'"),
        (("--study", "x final"), "study must not end in ' baselines' or ' final', got 'x final'"),
        (("--storage", "nothing://x"), "the storage nothing://x cannot be opened: "),
        (("--storage", "sqlite:////proc/x/y.db"), "the storage sqlite:////proc/x/y.db cannot be"),
    ],
)
def test_bad_input(workdir, data, tune_arguments, refused, runs, words, message):
    assert re.search(message, refused(tune_arguments(*words)))
    assert runs() == []


def test_data_of_one_difficulty_have_no_mix_to_compare_on(hard_data, tune_arguments, refused, runs):
    told = refused(tune_arguments("--curriculum.enabled", "false"))
    assert "difficulty 'simple', but the train split has no example of it. All examples" in told
    assert runs() == []


@pytest.mark.parametrize(
    ("place_of_best", "message"),
    [
        (".", "best_config must be a file in a folder, got '.': "),
        ("data", "best_config must be a file in a folder, got 'data': "),
        ("mine.yaml/best.yaml", "a file in a folder, got 'mine.yaml/best.yaml': "),
        ("mine.yaml", "'mine.yaml': mine.yaml is there and does not begin with '# The best of'"),
        ("other.yaml", "one that tune wrote, got 'other.yaml': other_model.yaml is there and"),
    ],
)
def test_a_place_for_the_best_that_cannot_be_it(
    workdir, data, tune_arguments, refused, runs, place_of_best, message
):
    for name in ("mine.yaml", "other_model.yaml"):  # the model's, since its rank is not sft's own
        (workdir / name).write_text("# Which interval suits this data?\n")
    assert message in refused(tune_arguments(f"--best_config={place_of_best}"))
    assert runs() == [] and not (workdir / "optuna.db").exists()
    assert (workdir / "mine.yaml").read_text().startswith("# Which")


def test_a_study_with_other_parameters_is_refused(workdir, data, tune_arguments, refused):
    from pixelis.experiments.tune.spec import SearchSpec
    from pixelis.experiments.tune.study import open_phases

    words = tune_arguments()
    pairs = [(k.removeprefix("--"), v) for k, v in zip(words[4::2], words[5::2], strict=True)]
    mine = [pair for pair in pairs if not pair[0].startswith("model.")]
    model = [pair for pair in pairs if pair[0].startswith("model.")]
    config = load_config(TuneFileConfig, ROOT / "configs/smoke/tune.yaml", mine)
    spec = SearchSpec(config, load_config(ModelFileConfig, ROOT / "configs/model_arch.yaml", model))
    open_phases(spec)
    free = ("--training.logging_steps", "7", "--training.num_workers", "1")  # change no result
    message = refused([*words, "--training.learning_rate", "0.5", *free])
    assert "study smoke is from another configuration: training.learning_rate was 0.002" in message
    assert "name another study" in message
    assert "logging_steps" not in message and "num_workers" not in message

    # Other data in the same folder, as data-prep would have written it.
    file, summary = data / "cota_hard.parquet", data / "summary.json"
    rows = parquet.read_table(file)
    parquet.write_table(rows.slice(0, rows.num_rows - 1), file)
    content = json.loads(summary.read_text())
    content["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    summary.write_text(json.dumps(content))
    assert "study smoke is from another configuration: data.digest was " in refused(words)
