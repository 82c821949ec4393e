"""The entry point evaluate: what it prints and records, and the input that it refuses."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from pixelis.cli.arguments import run_cli
from pixelis.cli.evaluate import main
from pixelis.tracking import MlflowRecorder, log_adapter

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent


def arguments(*words):
    return [
        *("--config", str(ROOT / "configs/evaluate.yaml")),
        *("--model", str(ROOT / "configs/model_arch.yaml")),
        *("--data.path", "data", "--adapter", "adapter", "--samples_per_difficulty", "1"),
        *("--max_operations", "2", "--max_new_tokens", "40"),
        *words,
    ]


MODELS = ("base", "against", "adapter")


def artifact(client, run, name):
    """Return the text of an artifact of an evaluation."""
    return Path(client.download_artifacts(run.info.run_id, f"evaluation/{name}")).read_text()


def table_rows(client, run, name):
    table = json.loads(artifact(client, run, name))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def rollout_rows(client, run):
    return table_rows(client, run, "rollouts.json")


def measured(client, run):
    """Return (model, group, measure) -> value, of the table of measures."""
    rows = table_rows(client, run, "measures.json")
    return {(row["model"], row["group"], row["measure"]): row["value"] for row in rows}


def test_an_evaluation_prints_its_table_and_records_all_of_it(data, adapter, client, runs, capfd):
    sft = MlflowRecorder(client, client.create_run("0", run_name="sft"))
    log_adapter(sft, adapter, "final", 1, {})
    sft.close("FINISHED")
    (model,) = client.search_logged_models(["0"])
    address = f"runs:/{sft.run_id}"
    assert run_cli(main, arguments("--adapter", address, "--num_traces", "2")) == 0
    out = capfd.readouterr().out
    assert "Answer accuracy on the test split, 95 % intervals" in out
    assert all(name in out for name in ("simple", "medium", "hard", "base", "adapter"))
    score, gain = r"\d+\.\d –", r"[+-]\d+\.\d –"  # too few examples for intervals
    row = rf"(?m)^attribute_recognition +\d +{score} +{score} +{gain} +\d/\d +1\.000 +\d+\.\d$"
    assert re.search(row, out), out  # into a pipe, one line
    cell = rf"(?m)^simple/\w+ +1 +{score} +{score} +{gain} +\d/\d +1\.000 +\d+\.\d$"
    assert re.search(cell, out), out
    assert "report: outputs/evaluate/report.html" in out
    (run,) = [r for r in runs() if r.data.tags.get("pixelis.entry_point") == "evaluate"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"evaluate {address} on test"
    assert run.data.params["samples_per_difficulty"] == "1"
    rows = rollout_rows(client, run)
    assert [*rows[0]][:6] == ["question", "answer", "truth", "verdict", "image", "model"]
    assert sum(not row["planted"] for row in rows) == 6  # three examples, base and adapter
    assert all(bool(row["why"]) != row["right"] for row in rows)
    for row in rows:
        image = client.download_artifacts(run.info.run_id, row["image"]["filepath"])
        assert max(Image.open(image).size) <= 128
    names = {each.path for each in client.list_artifacts(run.info.run_id, "evaluation")}
    charts = {f"evaluation/{name}" for name in ("accuracy", "confusion", "failures", "outcomes")}
    assert {f"{name}{kind}" for name in charts for kind in (".png", ".html")} <= names
    today = date.today().isoformat()
    for name in charts:
        page = Path(client.download_artifacts(run.info.run_id, f"{name}.html")).read_text()
        title = f"run {run.info.run_name} · date {today}"
        # In lines, wherever these are broken.
        assert title.replace(" ", "") in page.replace("\\u003cbr>", "").replace(" ", "")
    report = Path("outputs/evaluate/report.html").read_text()
    assert f"<span>run: {run.info.run_name}</span><span>date: {today}</span>" in report
    assert artifact(client, run, "report.html") == report and report.count("<article") == 3
    table = json.loads(artifact(client, run, "images.json"))
    assert table["columns"][:3] == ["image", "verdict", "why"] and len(table["data"]) == 3
    assert table["data"][0][0]["type"] == "image"
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert [t.data.spans[1].name for t in traces] == ["turn 1"] * 2
    for trace in traces:
        root, (assessment,) = trace.data.spans[0], trace.info.assessments
        answer, truth = root.outputs["answer"], root.outputs["truth"]
        answer = "no answer" if answer is None else answer
        assert trace.info.request_preview == root.inputs["question"]
        assert trace.info.response_preview == f"{answer} ({truth})"
        assert assessment.name == "right (2 of 3 rollouts, even by verdict)"
    note = run.data.tags["mlflow.note.content"]
    report_url = f"runs/{run.info.run_id}/artifacts/evaluation/report.html"
    assert "gain in points" in note and report_url in note and address in note
    assert "pixelis.adapter" in run.data.tags and run.data.tags["data.path"] == "data"
    metrics = run.data.metrics
    assert len(metrics) <= 40
    base, tuned = (100 * metrics[f"test/{of}/all/answer_accuracy"] for of in ("base", "adapter"))
    result = f"Test accuracy {base:.1f} -> {tuned:.1f} % ({tuned - base:+.1f} –)"
    assert note.startswith(result)
    inputs = client.get_run(run.info.run_id).inputs
    assert [each.model_id for each in inputs.model_inputs] == [model.model_id]
    linked = client.get_logged_model(model.model_id).metrics
    linked = [metric for metric in linked if metric.run_id == run.info.run_id]
    assert {metric.dataset_name for metric in linked} == {"cota_test"}
    values = {metric.key: metric.value for metric in linked}
    assert values.items() <= run.data.metrics.items()
    assert {
        "test/adapter/all/answer_accuracy",
        "test/adapter/hard/answer_accuracy",
        "test/gain/all",
        "test/gain/simple",
    } <= values.keys()
    assert not [key for key in values if "/base/" in key]
    assert measured(client, run)["adapter", "all", "outcome_answered"] <= 1


def test_ten_examples_have_intervals_and_each_row_is_one_line(data, adapter, client, runs, capfd):
    words = ("--samples_per_difficulty", "4", "--planted_errors", "false", "--num_traces", "0")
    words += ("--teacher_forced", "false", "--num_reported", "0")
    assert run_cli(main, arguments(*words)) == 0
    out = capfd.readouterr().out
    score, gain = r"\d+\.\d \[\d+, \d+\]", r"\+0\.0 \[-25, \+25\]"  # a fresh adapter: 0 of 12
    row = rf"(?m)^all +12 +{score} +{score} +{gain} +0/0 +1\.000 +\d+\.\d$"
    assert re.search(row, out), out
    assert re.search(r"(?m)^simple +4 +\d+\.\d – +\d+\.\d – +\+0\.0 – +0/0 ", out), out
    (run,) = runs()
    assert not [key for key in run.data.metrics if key.endswith(("_low", "_high", "_p_value"))]
    grid = artifact(client, run, "grid.txt")
    assert grid in out and out.index("Answer accuracy on") < out.index(grid)
    cells = json.loads(artifact(client, run, "grid.json"))
    assert cells["columns"][:3] == ["group", "n", "base_accuracy"] and len(cells["data"]) > 3
    rows = {row["group"]: row for row in table_rows(client, run, "table.json")}
    assert rows["all"]["gain_high"] == -rows["all"]["gain_low"] > 0.2
    assert rows["all"]["adapter_low"] < 1
    assert (rows["hard"]["adapter_low"], rows["hard"]["gain_low"]) == (None, None)


def test_two_adapters_on_the_same_examples(data, adapter, runs, client, capfd):
    shutil.copytree(adapter, adapter.with_name("second"))
    weights = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in weights.items():
        if "lora_B" in name:
            weights[name] = torch.full_like(tensor, 0.05)
    save_file(weights, adapter.with_name("second") / "adapter_model.safetensors")
    words = ("--against", "second", "--temperature", "0.5", "--num_samples", "2")
    assert run_cli(main, arguments(*words)) == 0
    out = capfd.readouterr().out
    assert "against the second adapter" in out and "against %" in out
    assert "pass at 2" in out and "teacher forced token accuracy" in out
    (run,) = runs()
    metrics = run.data.metrics
    # Fresh, the first does what the base does; the second does not.
    values = measured(client, run)
    assert values["base", "all", "pass_at_2"] == values["adapter", "all", "pass_at_2"]
    forced = {name: values[name, "all", "teacher_forced_token_accuracy"] for name in MODELS}
    assert forced["base"] == forced["adapter"] != forced["against"]
    assert "test/gain_over_against/all" in metrics and len(metrics) <= 40
    assert run.data.tags["pixelis.against"] == "second"
    rows = [row for row in rollout_rows(client, run) if not row["planted"]]
    assert Counter((row["model"], row["sample"]) for row in rows) == {
        (model, sample): 3 for model in MODELS for sample in (0, 1)
    }
    assert "p_value_over_against" in json.loads(artifact(client, run, "table.json"))["columns"]
    assert "against" in artifact(client, run, "accuracy.html")
    assert "gain over against" in artifact(client, run, "report.html")
    assert ("adapter", "all", "well_formed_call_rate") in values
    columns = json.loads(artifact(client, run, "measures.json"))["columns"]
    assert columns == ["model", "group", "measure", "value", "low", "high", "n"]


@pytest.mark.slow  # `make faults` kills it too
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_evaluation_resumes(data, adapter, client, runs, capfd, number):
    words = ("--samples_per_difficulty", "4", "--batch_size", "1")
    words = (*words, "--temperature", "0.7", "--num_samples", "2")
    with subprocess.Popen(
        [sys.executable, "-m", "pixelis.cli.evaluate", *arguments(*words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            kept = [*Path("outputs/evaluate").glob("*/rollouts.jsonl")]
            if kept and kept[0].read_bytes().count(b"\n") >= 12:
                break
            time.sleep(0.005)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    num = kept[0].read_bytes().count(b"\n")
    (stopped,) = runs()
    if number != signal.SIGKILL:
        assert f"stopped: {num} finished rollouts are kept in {kept[0].parent}" in err
        assert stopped.info.status == "KILLED"
    assert run_cli(main, arguments(*words, "--batch_size", "5")) == 0
    assert f"{num} finished rollouts of this evaluation" in capfd.readouterr().out
    # Complete, nothing is left of it: the same command starts anew.
    assert [*Path("outputs/evaluate").glob("*/*")] == []
    assert [*Path("outputs/evaluate").glob("*.lock")] == []
    assert run_cli(main, arguments(*words)) == 0
    assert "finished rollouts" not in capfd.readouterr().out
    whole, resumed = (r for r in runs() if r.info.run_id != stopped.info.run_id)
    assert resumed.data.tags["pixelis.resumed_rollouts"] == str(num)
    assert whole.info.status == resumed.info.status == "FINISHED"
    assert rollout_rows(client, whole) == rollout_rows(client, resumed)

    def results(run):
        return {k: v for k, v in run.data.metrics.items() if not k.startswith("system/")}

    assert results(whole) == results(resumed)


def test_resume_never_starts_anew(data, adapter, runs, capfd):
    words = ("--compare_base", "false", "--resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixelis.runs.evaluation_record.accuracy_table", raising(KeyboardInterrupt))
        assert run_cli(main, arguments(*words, "auto")) == 130
    assert "finished rollouts are kept in" in capfd.readouterr().err
    assert run_cli(main, arguments(*words, "never")) == 0
    assert "finished rollouts" not in capfd.readouterr().out
    assert [*Path("outputs/evaluate").glob("*/*")] == []


def raising(kind):
    def stop(*_, **__):
        raise kind

    return stop


def test_a_real_process_ends_in_one_line(workdir, run_process):
    done = run_process("evaluate", arguments("--split", "tests"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: split must be one of train, validation, test, got 'te")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def refused(refused):
    return lambda *words: refused(main, arguments(*words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.path", "no"), "data folder no does not exist; make it with data-prep"),
        (("--adapter", "no"), "the adapter no is not a folder"),
        (("--adapter", "data"), "the adapter data is incomplete: adapter_config.json and "),
        (("--adapter", ""), "no finished sft run in the experiment 'sft_curriculum'"),
        (("--model.model_name", "./no"), "no model folder ./no; "),
        (("--adapter", "runs:/" + 32 * "0"), "the adapter runs:/000"),
        (("--against", "no"), "the adapter no is not a folder"),
        (("--against", "models:/reader/3"), "the adapter models:/reader/3 cannot be f"),
        (("--num_samples", "4"), "num_samples above 1 needs a temperature above 0, or all samples"),
    ],
)
def test_bad_input(data, adapter, refused, words, message):
    assert message in refused(*words)


@pytest.mark.parametrize("words", [(), ("--against", "second")])
def test_an_adapter_of_another_base(data, adapter, refused, words):
    folder = adapter if not words else shutil.copytree(adapter, adapter.with_name("second"))
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "some/other"}
    path.write_text(json.dumps(config))
    assert refused(*words) == (
        f"the adapter in {folder.name} is for the base 'some/other', not for 'pixelis-nano'; "
        "set model.model_name='some/other'"
    )


def test_a_split_without_examples(data, adapter, refused):
    path = data / "cota_hard.parquet"
    table = parquet.read_table(path)
    keep = [split != "test" for split in table["split"].to_pylist()]
    parquet.write_table(table.filter(keep), path)
    summary = json.loads((data / "summary.json").read_text())
    summary["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (data / "summary.json").write_text(json.dumps(summary))
    message = refused()
    assert "the test split has no hard examples; run data-prep with more samples" in message


def test_an_adapter_that_is_broken(data, adapter, refused):
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert re.match("the adapter in adapter does not fit 'pixelis-nano': .*header", refused())


def test_data_that_is_changed_or_incomplete(data, adapter, refused):
    path = data / "cota_medium.parquet"
    with path.open("ab") as file:
        file.write(b"x")
    assert "cota_medium.parquet is not what data-prep wrote" in refused()
    path.unlink()
    assert "data folder data is incomplete: it lacks cota_medium.parquet; " in refused()


def test_a_report_that_cannot_be_written_is_a_warning(data, adapter, runs, capfd, workdir):
    (workdir / "outputs/evaluate/report.html").mkdir(parents=True)
    words = ("--num_reported", "1", "--num_traces", "0")
    assert run_cli(main, arguments(*words)) == 0
    assert (
        "a part of the evaluation's record is missing (IsADirectoryError" in capfd.readouterr().err
    )
    assert [run.info.status for run in runs()] == ["FINISHED"]
