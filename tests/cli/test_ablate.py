"""ablate as a user meets it: a comparison, stopped and gone on with, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from pixelis.cli.ablate import main
from pixelis.cli.arguments import run_cli
from pixelis.config import AblateFileConfig, ModelConfig, to_yaml
from pixelis.errors import CheckpointError
from pixelis.runs.ablate import plan_training
from pixelis.runs.ablation_base import measure_base

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
OWN = {
    "arms": "[uniform, staged]",
    "seeds": 2,
    "learning_rates": "[0.002, 1.0e+30]",
    "tuning_seeds": 1,
    "num_workers": 2,
    "training.max_steps": 3,
    "training.eval_steps": 1,
    "evaluation.enabled": "true",
    "evaluation.compare_base": "true",
    "evaluation.samples_per_difficulty": 1,
}


@pytest.fixture
def words(made_data):
    from tests.conftest import SETTINGS

    def build(**changed):
        settings = {
            "config": ROOT / "configs/ablate.yaml",
            "model": ROOT / "configs/model_arch.yaml",
            "data.path": made_data,
            "training.output_dir": "arms",
            **SETTINGS,
            **OWN,
            **{key.replace("__", "."): value for key, value in changed.items()},
        }
        return [word for key, value in settings.items() for word in (f"--{key}", str(value))]

    return build


@pytest.mark.slow
def test_a_comparison_stopped_and_gone_on_with_for_another_arm(workdir, words, runs, capfd):
    command = [sys.executable, "-m", "pixelis.cli.ablate", *words()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 400
    while not list(workdir.glob("arms/tuning/*/*/sft/finished.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "go on with the same command" in process.communicate(timeout=150)[0]
    assert process.returncode == 130
    (parent,) = [r for r in runs() if r.data.tags.get("pixelis.entry_point") == "ablate"]
    assert parent.info.status == "KILLED"
    kept = {path: path.stat().st_mtime_ns for path in workdir.glob("arms/**/finished.json")}
    assert kept
    base = workdir / "arms" / "base.json"
    kept[base] = base.stat().st_mtime_ns

    more = words(arms="[uniform, uniform_same_tokens, staged]")
    assert run_cli(main, more) == 0
    out = capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    by_entry = {"ablate": [], "sft": []}  # visits are left out
    for run in runs():
        by_entry[run.data.tags["pixelis.entry_point"]].append(run)
    # The same parent, and over it the rate that does not diverge, and 3 arms x 2 seeds.
    (again,) = by_entry["ablate"]
    assert (again.info.run_id, again.info.status) == (parent.info.run_id, "FINISHED")
    made = {json.loads(p.read_text())["run_id"] for p in workdir.glob("arms/**/finished.json")}
    assert len(made) == 1 + 3 * 2
    # One that was told to stop in the moment after its last word is KILLED, and as complete.
    ended = {run.info.run_id for run in by_entry["sft"] if run.info.status == "FINISHED"}
    assert made <= {run.info.run_id for run in by_entry["sft"]} and len(made - ended) <= 2
    assert {run.data.tags["mlflow.parentRunId"] for run in by_entry["sft"]} == {parent.info.run_id}
    notes = [run.data.tags.get("mlflow.note.content", "") for run in by_entry["sft"]]
    linked = [note for note in notes if "Part of [" in note and parent.info.run_id in note]
    assert len(linked) >= len(made)
    assert "FAILED" in {run.info.status for run in by_entry["sft"]}
    assert {run.info.experiment_id for run in by_entry["sft"]} == {parent.info.experiment_id}

    assert "tuning uniform-1e+30 seed-1000 ended with exit code 2: " in out and "left out" in out
    assert "uniform: learning rate 0.002 of 0.002, 1e+30" in out
    assert again.data.metrics["summary/uniform/learning_rate"] == 0.002
    assert again.info.run_name.startswith("3 arms · 2 seeds · best ")
    assert again.data.tags["mlflow.note.content"].startswith("| arm | simple % |")
    assert 0 <= again.data.metrics["summary/staged/test_all"] <= 1
    table = (workdir / "arms" / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:6]] == [
        "| base",
        "| uniform",
        "| uniform_same_tokens",
        "| staged",
    ]
    rows = json.loads((workdir / "arms" / "table.json").read_text())
    assert [row["arm"] for row in rows] == ["base", "uniform", "uniform_same_tokens", "staged"]
    right = json.loads(base.read_text())["right"]
    assert (
        3 <= len(right) <= 6 and rows[0]["test_all"] == again.data.metrics["summary/base/test_all"]
    )
    # Each seed's examples are those of its trainings, which roll out the base too.
    seen = {
        run.data.tags["pixelis.seed"]: run.data.metrics["test/base/all/answer_accuracy"]
        for run in by_entry["sft"]
        if run.info.run_id in made and "test/base/all/answer_accuracy" in run.data.metrics
    }
    assert set(seen) == {"0", "1"}
    assert rows[0]["test_all"] == pytest.approx(sum(seen.values()) / 2)
    assert table[-1] in out and " the base: " in table[-1]
    assert table[-1] in again.data.tags["mlflow.note.content"]
    with Image.open(workdir / "arms" / "arms.png") as figure:
        assert figure.size == (1200, 560)

    # As many tokens as staged, within half a step of them.
    def tokens(arm, seed):
        finished = json.loads((workdir / f"arms/{arm}/seed-{seed}/sft/finished.json").read_text())
        return finished["results"]["num_tokens"], finished["step"]

    for seed in range(2):
        (whole, steps), (wanted, _) = tokens("uniform", seed), tokens("staged", seed)
        assert steps == 3
        assert tokens("uniform_same_tokens", seed)[1] == max(1, round(3 * wanted / whole))

    # Each training can be had alone, by the file beside it.
    settings = (workdir / "arms/staged/seed-1/training_params.yaml").read_text()
    assert "strategy: staged" in settings and "seed: 1" in settings
    uniform = json.loads((workdir / "arms/uniform/seed-0/sft/events.json").read_text())
    assert [event["kind"] for event in uniform] == ["start", "end"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"arms": "[uniform, random]"},
            "arms must be among uniform, uniform_same_tokens, ",
        ),
        ({"arms": "[staged]"}, "arms must name at least two, each once, got ['staged']"),
        ({"seeds": 0}, "seeds must be >= 1, got 0"),
        ({"arms": "3"}, "arms must be a list, as in [a, b] or a section of keys and values, got 3"),
        (
            {"arms": "{staged: {}, mine: {curiculum: {trial_steps: 5}}}"},
            "Unknown key 'arms.mine.curiculum' in the command line. Did you mean 'curriculum'?",
        ),
        (
            {"arms": "{staged: {}, mine: {curriculum: {trial_steps: -1}}}"},
            "arms.mine must hold valid settings: curriculum.trial_steps must be >= 0, got -1",
        ),
        ({"data__trusted": "no.parquet"}, "got no.parquet, which does not exist"),
        (
            {"data__path": "none", "data__prep": "null"},
            "where data.prep is null, got none, which is",
        ),
        (
            {"arms": "{uniform: {}, staged: {curriculum: {strategy: competence}}}"},
            "arms.staged must not change curriculum.strategy, ",
        ),
        ({"arms": "[uniform, uniform_same_tokens]"}, "must hold uniform and staged, got"),
        ({"training__seed": 2**32 - 1000}, "training.seed must leave room for seeds and tuning"),
        ({"learning_rates": "[0.002, 2e-3]"}, "learning_rates must differ in their first six"),
        ({"training__max_steps": 2, "arms": "[uniform, reverse]"}, "max_steps must be >= 3, the"),
        ({"learning_rates": "[]"}, "learning_rates must hold at least one, got []"),
        ({"evaluation__enabled": "false"}, "evaluation.enabled must be true, got false"),
        (
            {"curriculum__rollback_threshold": 0.05},
            "rollback_threshold must be in [-1, 0], got 0.05 (a drop is negative)",
        ),
        ({"model__use_lora": "false"}, "model.use_lora must be true, got false"),
    ],
)
def test_what_it_refuses_leaves_nothing(workdir, words, capfd, changed, message):
    assert run_cli(main, words(**changed)) == 2
    assert message in capfd.readouterr().err
    assert not (workdir / "arms").exists()


def test_data_of_one_difficulty_have_no_mix_to_compare_on(workdir, hard_data, words, capfd):
    arms = "{uniform: {}, mine: {curriculum: {enabled: false}}}"
    assert run_cli(main, words(arms=arms, data__path=hard_data)) == 2
    assert "'simple', but the train split has no example of it" in capfd.readouterr().err
    assert not (workdir / "arms").exists()


def test_a_comparison_with_other_settings_is_not_mixed_with_the_first(workdir, words, capfd):
    (workdir / "arms").mkdir()
    free = {"training.logging_steps": 99, "data.path": "moved", "training.num_workers": 9}
    state = {"run_id": "0" * 32, "identity": {"training.max_steps": 9, **free}}
    (workdir / "arms" / "ablate.json").write_text(json.dumps(state))
    folder = workdir / "arms" / "uniform" / "seed-0"
    (folder / "sft" / "checkpoint-9").mkdir(parents=True)
    # A training that differs too is not named: its difference may follow from the comparison's.
    (folder / "sft" / "finished.json").write_text("{}")
    (folder / "training_params.yaml").write_text("curriculum: {trial_steps: 4}")
    assert run_cli(main, words()) == 2
    err = capfd.readouterr().err
    assert "comparison arms is from another configuration" in err
    assert "training.max_steps was 9, is 3" in err and "name another training.output_dir" in err
    assert not [key for key in free if key in err]


@pytest.mark.slow
def test_a_comparison_that_has_made_nothing_yet_is_begun_anew(workdir, words, capfd, runs):
    # A value that only a training notices: changed, the first one is not in the way.
    for value in (20, 21):
        assert run_cli(main, words(training__max_length=value, learning_rates="[0.002]")) == 2
        assert f"max_length {value}" in capfd.readouterr().err
    assert not list(workdir.glob("arms/**/finished.json"))
    parents = [r for r in runs() if r.data.tags.get("pixelis.entry_point") == "ablate"]
    assert [run.info.status for run in parents] == ["FAILED", "FAILED"]


def test_a_finished_training_of_an_arm_that_was_changed_since_is_not_taken(tmp_path):
    changed = AblateFileConfig(
        arms={"uniform": {}, "mine": {"curriculum": {"trial_steps": 5}}},
        training={"output_dir": str(tmp_path)},
    )
    planned = plan_training(changed, "mine", 1)
    planned.check_finished()
    planned.finished_file.parent.mkdir(parents=True)
    planned.finished_file.write_text("{}")
    before = to_yaml(planned.config).replace("trial_steps: 5", "trial_steps: 4")
    (planned.folder / "training_params.yaml").write_text(before)
    with pytest.raises(CheckpointError) as refused:
        planned.check_finished()
    assert str(refused.value) == (
        f"training {tmp_path}/mine/seed-1 is from another configuration: curriculum.trial_steps "
        "was 4, is 5; go on with the same values, give the arm mine another name, or move the "
        "training away"
    )


def test_verdicts_of_the_base_that_are_not_as_written_are_measured_anew(made_data, tmp_path):
    config = AblateFileConfig(
        seeds=1,
        data={"path": str(made_data)},
        training={"output_dir": str(tmp_path)},
        evaluation={"samples_per_difficulty": 1},
    )
    file = tmp_path / "base.json"
    first = measure_base(config, ModelConfig(), {})
    kept = json.loads(file.read_text())
    for damaged in ([], kept | {"right": []}, {"identity": kept["identity"]}):
        file.write_text(json.dumps(damaged))
        assert measure_base(config, ModelConfig(), {}) == first
        assert json.loads(file.read_text()) == kept


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_damaged_state_is_named(workdir, words, capfd, content):
    (workdir / "arms").mkdir()
    (workdir / "arms" / "ablate.json").write_text(content)
    assert run_cli(main, words()) == 2
    assert "ablate.json is damaged: run_id and identity must be in it" in capfd.readouterr().err


def test_two_at_once_in_one_folder(workdir, words, capfd):
    (workdir / "arms").mkdir()
    with FileLock(workdir / "arms" / ".lock"):
        assert run_cli(main, words()) == 2
    assert "is in use by another comparison; name another folder" in capfd.readouterr().err


def test_help_names_every_key(capsys):
    os.chdir(ROOT)
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for key in ("--arms", "--seeds", "--learning_rates", "--target_share", "--training.max_steps"):
        assert key in out
