"""compare as a user meets it, on runs that were recorded without a training."""

import json
from pathlib import Path

import pytest

from pixelis.cli.arguments import run_cli
from pixelis.cli.compare import main
from pixelis.tracking import open_run

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
EASY, FULL = {"simple": 1.0, "hard": 0.0}, {"simple": 0.5, "hard": 0.5}


def event(step, kind, to, mix, before=None, after=None, reason=None):
    measured = {} if before is None else {"strata": {"simple": before, "hard": after}}
    delta = None if before is None else after - before
    numbers = {"perf_before": before, "perf_after": after, "delta": delta, "reason": reason}
    common = {"step": step, "kind": kind, "from_stage": "easy", "to_stage": to, "mix": mix}
    return {**common, **numbers, **measured}


BACK = [
    event(0, "start", "easy", EASY),
    event(2, "rollback", "easy", EASY, 0.8, 0.5, "drop"),
    event(4, "end", "easy", EASY),
]
ON = [event(0, "start", "easy", EASY), event(2, "advance", "full", FULL, 0.8, 0.7)]


@pytest.fixture
def record(workdir):
    """Records a training as sft does; returns the id of its run."""

    def record(name, events, threshold, entry_point="sft"):
        params = {
            "curriculum.rollback_threshold": threshold,
            "curriculum.min_performance_for_advance": 0.1,
            "curriculum.rollback_enabled": True,
            "curriculum.performance_metric": "likelihood",
            "training.max_steps": 4,
            "training.output_dir": name,
        }
        words = {"experiment": "sft_curriculum", "run_name": name, "tags": {}}
        with open_run(
            entry_point=entry_point, **words, params=params, system_metrics=False
        ) as recorder:
            for step in range(5):
                values = {"eval/simple/likelihood": step / 5, "eval/hard/likelihood": step / 10}
                recorder.metrics({**values, "curriculum/stage": 0, "train/loss": 1.0}, step)
            for each in events:
                recorder.event(each)
            result = {"adapter_accuracy": 0.4, "adapter_low": 0.35, "adapter_high": 0.45}
            recorder.table([{"group": "hard", "n": 300, **result}], "evaluation/table.json")
        return recorder.run_id

    return record


def call(*words):
    return run_cli(main, ["--config", str(ROOT / "configs/compare.yaml"), *words])


def test_it_tells_draws_and_records(record, client, runs, capfd):
    back, on = record("careful", BACK, -0.1), record("bold", ON, -0.3)
    assert call("--runs", f"{back},{on[:8]}") == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "Furthest: bold (stage full from step 2)." in out
    assert "step 2: drop (-0.3000)" in out
    (run,) = [run for run in runs() if run.data.tags["pixelis.entry_point"] == "compare"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "2 trainings compared"
    assert run.data.tags["pixelis.compares"] == f"{back},{on}"
    note = run.data.tags["mlflow.note.content"]
    home = client.get_run(back).info.experiment_id
    assert client.get_experiment(run.info.experiment_id).name == "sft_curriculum_comparisons"
    assert "| test hard: answer accuracy in % (n = 300) | 40.0 [35, 45] | 40.0 [35, 45] |" in note
    assert f"[careful](#/experiments/{home}/runs/{back})" in note
    assert "| `curriculum.rollback_threshold` | -0.1 | -0.3 |" in note
    folder = Path(client.download_artifacts(run.info.run_id, "comparison"))
    assert {path.name for path in folder.iterdir()} == {
        *("timelines.png", "timelines.html", "table.json", "table.md")
    }
    table = json.loads((folder / "table.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["stage_reached"] for row in rows] == ["easy", "full"]
    assert "to beat: before -0.1" in (folder / "timelines.html").read_text()


def test_without_words_it_takes_the_last_finished_trainings(record, runs, capfd):
    for number in range(4):
        record(f"training {number}", ON, -0.1)
    assert call("--last", "2") == 0
    out = capfd.readouterr().out
    assert "training 3" in out and "training 1" not in out
    assert out.index("training 2") < out.index("training 3")  # oldest first


def test_runs_of_one_name_are_told_apart_by_their_ids(record, client, runs, capfd):
    ids = [record("twin", ON, -0.1), record("twin", BACK, -0.2)]
    assert call("--runs", ",".join(ids)) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert all(f"twin ({each[:8]})" in out for each in ids)
    (run,) = [run for run in runs() if run.data.tags["pixelis.entry_point"] == "compare"]
    page = Path(client.download_artifacts(run.info.run_id, "comparison/timelines.html")).read_text()
    assert all(f"twin ({each[:8]})\\u003c/b>" in page for each in ids)


def test_a_word_that_names_no_run_is_one_line(record, capfd):
    record("careful", BACK, -0.1)
    assert call("--runs", "careful,bold") == 2
    err = capfd.readouterr().err
    assert err.startswith(
        "error: no run has the id or the name 'bold'; sft runs there are: careful"
    )
    assert err.count("\n") == 1
