"""sft as a user meets it: a run, a stop, a resume, and every input that it refuses."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from mlflow import MlflowClient
from PIL import Image

from pixelis.cli.arguments import run_cli
from pixelis.cli.sft import main
from pixelis.config import DataPrepConfig, DifficultyConfig
from pixelis.data.store import difficulty_file, write_rows
from pixelis.data_prep.prepare import prepare_folder
from tests.small_data import make_small_data, make_thin

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
UNTRUSTED_LOSS = "eval/untrusted/hard/loss"
SMOKE_PREP = str(ROOT / "configs/smoke/data_prep.yaml")


@pytest.fixture
def sft(sft_arguments, capfd):
    """Run the entry point in this process; returns code, stdout and stderr."""

    def call(*words, **changed):
        capfd.readouterr()
        code = run_cli(main, sft_arguments(*words, **changed))
        return code, *capfd.readouterr()

    return call


# A run


def test_a_run_from_nothing_to_a_table(workdir, sft, client, runs):
    (workdir / "prep.yaml").write_text(
        "num_samples: 80\nnum_workers: 1\ntasks: [attribute_recognition, text_extraction]\n"
        "validation_fraction: 0.2\ntest_fraction: 0.2\nself_correction_ratio: 0.0\n"
    )
    code, out, _ = sft(
        data__prep="prep.yaml", evaluation__enabled="true", evaluation__samples_per_difficulty=1
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "data does not exist: making it from prep.yaml"
    assert any(line.startswith("80 examples in data") for line in lines)
    events = json.loads((workdir / "out" / "events.json").read_text())
    assert [line for line in lines if "curriculum at step" in line] == [
        f"✅ Advanced curriculum at step {e['step']}. "
        f"Performance: {e['perf_after']:.4f} (delta: {round(e['delta'], 4) + 0.0:.4f})"
        for e in events
        if e["kind"] == "advance"
    ]
    block = lines[lines.index("Final Curriculum Statistics:") - 1 :][:7]
    assert block == [
        "=" * 40,
        "Final Curriculum Statistics:",
        "  Final stage: full",
        "  Total rollbacks: 0",
        "  Final weights: {'simple': 0.2, 'medium': 0.3, 'hard': 0.5}",
        "  Total samples used: 12",
        "=" * 40,
    ]
    assert "Answer accuracy on the test split, 95 % intervals" in out
    assert f"adapter: {os.path.join('out', 'final')}" in lines
    (address,) = (line.removeprefix("model: ") for line in lines if line.startswith("model: "))
    final = client.get_logged_model(address.removeprefix("models:/"))
    assert final.tags["pixelis.adapter"] == "final"
    assert f"  pixelis evaluate --adapter {address} --split validation" in lines

    made_by, run = sorted(runs(), key=lambda run: run.data.tags["pixelis.entry_point"])
    assert made_by.info.status == run.info.status == "FINISHED"
    assert made_by.data.tags["pixelis.entry_point"] == "data-prep"
    assert run.data.tags["pixelis.entry_point"] == "sft"
    assert run.data.tags["pixelis.data_run"] == made_by.info.run_id
    note, metrics = run.data.tags["mlflow.note.content"], run.data.metrics
    assert made_by.info.run_id in note
    base, tuned = (100 * metrics[f"test/{of}/all/answer_accuracy"] for of in ("base", "adapter"))
    result = f"{tuned:.1f} % (base {base:.1f})"
    assert run.info.run_name == f"full · {result} · 0 rollbacks · seed 0"
    assert note.startswith(f"Test accuracy {base:.1f} -> {tuned:.1f} % (")
    table, events, timeline = map(note.index, ("| simple | 1 |", "| 0 | start |", "/timeline.html"))
    assert table < events < timeline < note.index("/report.html")
    assert run.data.metrics["summary/stage_reached"] == 2
    finished = json.loads((workdir / "out" / "finished.json").read_text())
    assert finished["run_id"] == run.info.run_id and finished["step"] == 6
    stages = client.get_metric_history(run.info.run_id, "curriculum/stage")
    assert [metric.step for metric in stages] == [1, 2, 3, 4, 5, 6]
    found = {file.path for file in client.list_artifacts(run.info.run_id, "adapters/final")}
    assert "adapters/final/adapter_model.safetensors" in found


@pytest.mark.parametrize(
    ("words", "name", "stages"),
    [
        (("--curriculum.strategy", "competence"), "competence", set()),
        (
            ("--curriculum.strategy", "schedule", "--curriculum.schedule.steps", "[1, 5]"),
            "schedule balanced",
            {"stage_reached", "steps_to/simple", "steps_to/balanced"},
        ),
        (
            ("--curriculum.enabled", "false"),
            "fixed mix",
            {"stage_reached", "steps_to/full"},
        ),
    ],
    ids=["competence", "schedule", "fixed mix"],
)
def test_a_run_says_of_its_strategy_what_is_true_of_it(
    workdir, data, sft, runs, words, name, stages
):
    code, out, _ = sft(*words, training__max_steps=2, training__save_steps=2)
    (run,) = runs()
    assert code == 0 and f"MLflow run {run.info.run_name!r} (" in out
    assert run.data.tags["mlflow.runName"] == f"{name} · trained 2 steps · seed 0"
    found = {key.removeprefix("summary/") for key in run.data.metrics if "summary/ste" in key}
    found |= {"stage_reached"} & {key.removeprefix("summary/") for key in run.data.metrics}
    assert found == stages
    assert ("pixelis.stage_reached" in run.data.tags) == bool(stages)
    assert (
        f"  Strategy: {name.removesuffix(' balanced')}" in out.splitlines()
        and "rollbacks" not in out
    )
    assert ("curriculum/stage" in run.data.metrics) == bool(stages)


def test_a_finished_run_is_left_alone_and_a_fresh_one_moves_it_aside(
    workdir, data, sft, runs, files_below
):
    assert sft(training__max_steps=1)[0] == 0
    before = files_below(workdir)
    code, out, err = sft("--resume", "auto", training__max_steps=1)
    assert (code, err) == (0, "")
    assert out == "out is finished (1 steps): nothing to do\n"
    assert files_below(workdir) == before and len(runs()) == 1

    code, out, err = sft("--resume", "auto", training__max_steps=2)
    assert code == 2 and out == ""
    assert err.startswith("error: checkpoint out is from another configuration: ")
    assert "training.max_steps was 1, is 2; " in err
    assert files_below(workdir) == before and len(runs()) == 1

    # A base that does not load leaves the good output where it is.
    before = files_below(workdir)
    (workdir / "no-model").mkdir()
    code, out, err = sft("--model.model_name", "./no-model", training__max_steps=1)
    assert (code, out) == (2, "") and err.startswith("error: no processor for './no-model'")
    (workdir / "no-model").rmdir()
    assert files_below(workdir) == before and len(runs()) == 1

    code, out, _ = sft(training__max_steps=1)
    assert code == 0
    moved = "out held an earlier run: moved to out.1 (to go on with a run: resume=auto)"
    assert moved in out.splitlines()
    assert (workdir / "out.1" / "finished.json").is_file() and len(runs()) == 2


# Stopped and resumed: a real process


LONG = {
    "training__max_steps": 24,
    "training__save_steps": 4,
    "training__eval_steps": 10,
    "curriculum__advancement_interval": 8,
}


def wait_for(path, process, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.02)


def test_a_terminated_process_says_how_to_go_on_and_the_next_one_does(
    workdir, data, sft, sft_arguments, client, runs
):
    process = subprocess.Popen(
        [sys.executable, "-m", "pixelis.cli.sft", *sft_arguments(**LONG)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wait_for(workdir / "out" / "checkpoint-4" / "complete.json", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    *_, stopped, how = out.splitlines()
    step = int(re.fullmatch(r"stopped after step (\d+); everything is in out/\S+", stopped)[1])
    assert stopped.endswith(f"out/checkpoint-{step}") and 4 < step < 24
    assert how == "go on with the same command and -P resume=auto (or --resume auto)"
    (run,) = runs()
    assert run.info.status == "KILLED"
    assert f" · stopped after step {step} of 24 · 0 rollbacks · seed " in run.info.run_name
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith(f"Stopped after step {step} of 24.\n") and "| 0 | start |" in note
    assert (run.data.tags["pixelis.stopped"], run.data.metrics["summary/rollbacks"]) == ("true", 0)
    assert not (workdir / "out" / "final").exists()

    code, out, _ = sft("--resume", "auto", **LONG)
    assert code == 0
    assert f"going on from out/checkpoint-{step} (step {step})" in out.splitlines()
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert "stopped" not in run.info.run_name and "pixelis.stopped" not in run.data.tags
    history = {
        key: [metric.step for metric in client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
    }
    assert history["curriculum/stage"] == list(range(1, 25))
    assert history["train/loss"] == list(range(2, 25, 2))
    assert history["eval/hard/token_accuracy"] == [8, 10, 16, 20, 24]
    assert history["curriculum/event"] == [8, 16]
    assert all(len(steps) == len(set(steps)) for steps in history.values())
    events = json.loads((workdir / "out" / "events.json").read_text())
    assert [e["step"] for e in events] == [0, 8, 16, 24]
    kept = client.download_artifacts(run.info.run_id, "curriculum/events.json", str(workdir))
    assert json.loads(Path(kept).read_text()) == events


def test_gone_on_with_in_another_store_the_new_run_has_all_adapters_of_the_training(
    workdir, data, sft, client, empty_store, monkeypatch
):
    def adapters(store):
        found = store.search_logged_models(
            [store.get_experiment_by_name("sft_smoke").experiment_id]
        )
        return {m.tags["pixelis.adapter"]: {(x.key, x.step) for x in m.metrics} for m in found}

    # Ends each stage's visit: at 2 and 4; stopped at 4 as by a kill, before the last visit's end.
    with monkeypatch.context() as patch:
        from pixelis.training.trainer import CurriculumTrainer

        training_step = CurriculumTrainer.training_step

        def stop(self, *arguments, **words):
            if self.state.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return training_step(self, *arguments, **words)

        patch.setattr(CurriculumTrainer, "training_step", stop)
        assert sft()[0] == 130
    first = adapters(client)
    assert set(first) == {"visit-01-simple", "visit-02-balanced"}
    assert all(first.values())
    shutil.copy(empty_store, workdir / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir / 'other.db'}")
    code, _, err = sft("--resume", "auto")
    assert code == 0 and "is not in this MLflow store" in err
    other = adapters(MlflowClient(f"sqlite:///{workdir / 'other.db'}"))
    assert {name: other[name] for name in first} == first
    assert set(other) - set(first) == {"visit-03-full", "best", "final"}


def test_a_stop_in_the_rollouts_loses_no_training(workdir, data, sft, runs, monkeypatch):
    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    one = {"evaluation__enabled": "true", "evaluation__samples_per_difficulty": 1}
    with monkeypatch.context() as patch:
        patch.setattr("pixelis.runs.train.evaluate_and_record", stop)
        code, out, err = sft(training__max_steps=2, **one)
    assert code == 130 and "Traceback" not in err
    assert out.splitlines()[-2:] == [
        "interrupted",
        "go on with the same command and -P resume=auto (or --resume auto)",
    ]
    assert [run.info.status for run in runs()] == ["KILLED"]
    before = (workdir / "out" / "final" / "adapter_model.safetensors").read_bytes()

    code, out, _ = sft("--resume", "auto", training__max_steps=2, **one)
    assert code == 0
    assert "going on from out/checkpoint-2 (step 2)" in out.splitlines()
    assert "Answer accuracy on the test split" in out
    assert [run.info.status for run in runs()] == ["FINISHED"]
    assert (workdir / "out" / "final" / "adapter_model.safetensors").read_bytes() == before


# What surrounds a process


LEFT_BEHIND = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "JPY_PARENT_PID": "7",
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
    "PYTHONPATH": os.pathsep.join(["/nowhere", str(ROOT)]),
    "PYTHONIOENCODING": "latin-1",
    "COLUMNS": "0",
    "LINES": "0",
    "TERM": "dumb",
    "RANK": "0",
    "MASTER_ADDR": "node1",
}


def test_variables_of_a_notebook_or_cluster_change_nothing(data, sft_arguments, runs):
    done = subprocess.run(
        [sys.executable, "-m", "pixelis.cli.sft", *sft_arguments(training__max_steps=4)],
        env=os.environ | LEFT_BEHIND,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"warning: " not in done.stderr
    assert b"\\u2705 Advanced curriculum at step 2." in done.stdout  # latin-1 has no check mark
    assert [run.info.status for run in runs()] == ["FINISHED"]


def test_a_training_that_nobody_can_read_is_finished(workdir, data, sft_arguments, runs):
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pixelis.cli.sft", *sft_arguments(training__max_steps=2)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=writer,
            stderr=full,
            timeout=120,
        )
    os.close(writer)
    assert done.returncode == 0
    assert [run.info.status for run in runs()] == ["FINISHED"]
    assert (workdir / "out" / "final" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"RANK": "0", "WORLD_SIZE": "4"}, "MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "node1"}, "RANK, MASTER_PORT"),
    ],
)
def test_variables_of_several_processes_that_are_incomplete(
    data, run_process, sft_arguments, monkeypatch, variables, missing
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run_process("sft", sft_arguments())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: WORLD_SIZE={variables['WORLD_SIZE']} in the environment announces several "
        f"processes, which also need {missing}: unset it to train in one process, or use "
        "torchrun --nproc_per_node N -m pixelis.cli.sft\n"
    )


def test_all_files_have_the_mode_that_umask_gives(workdir, data, sft):
    evaluated = {"evaluation__enabled": "true", "evaluation__samples_per_difficulty": 1}
    before = os.umask(0o007)
    try:
        assert sft(training__max_steps=4, **evaluated)[0] == 0
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(workdir)): oct(path.stat().st_mode & 0o777)
        for path in workdir.rglob("*")
        # The store's template and the data were there before.
        if path.is_file() and path.name != "mlflow.db" and data not in path.parents
    }
    assert {name: each for name, each in modes.items() if each != "0o660"} == {}
    folders = {name.partition("/")[0] for name in modes}
    assert folders >= {"out", "mlruns", ".data.cache"}
    kinds = ("out/checkpoint-4/", "out/visits/", "out/best/", "out/final/", "mlruns/")
    for kind in kinds:
        assert [n for n in modes if n.startswith(kind) and n.endswith(".safetensors")], kind


# Bad input


def one_error(result):
    """The message of a run that ended as it should: one line, exit code 2, nothing else said."""
    code, out, err = result
    assert (code, out) == (2, ""), err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture
def refused(refused, sft_arguments):
    return lambda *words, **changed: refused(main, sft_arguments(*words, **changed))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--training.max_step", "3"), "Unknown key 'training.max_step' in the command line. Did"),
        (
            ("--curriculum.rollback_threshold", "0.1"),
            "rollback_threshold must be in [-1, 0], got 0.1",
        ),
        (
            (
                "--curriculum.stages",
                "[{name: s, difficulty_mix: {simple: 0.5, tricky: 0.5}}]",
            ),
            "Stage 's' takes 0.5 of its examples from difficulty 'tricky', but the train split "
            "has no example of it.",
        ),
        (("--resume", "out/checkpoint-4"), "checkpoint out/checkpoint-4 does not exist"),
        (
            ("--data.path", "new", "--data.prep", SMOKE_PREP, "--resume", "no"),
            "checkpoint no does not exist",
        ),
        (("--training.output_dir", "x" * 300), "File name too long"),
        (("--data.path", "x" * 300), "File name too long"),
        (("--model.use_lora", "false"), "model.use_lora must be true, got false"),
        (("--model.model_name", "./no-base"), "no model folder ./no-base; "),
        (("--training.output_dir", "data"), "training.output_dir data holds other files; "),
        (("--data.path", "prep.yaml"), "data folder prep.yaml does not exist"),
        (("--data.path", "new", "--data.prep", "no.yaml"), "No such configuration file: no.yaml"),
        (("--training.output_dir", "prep.yaml/out"), "prep.yaml: File exists"),
    ],
)
def test_bad_settings(data, workdir, refused, words, message):
    (workdir / "prep.yaml").write_text("")
    assert message in refused(*words)


def test_a_data_folder_that_is_incomplete(workdir, made_data, refused):
    (workdir / "data").mkdir()
    assert "it lacks cota_simple.parquet, cota_medium.parquet, cota_hard.parquet" in refused()
    for name in ("cota_hard.parquet", "summary.json"):
        shutil.copytree(made_data, workdir / "data", dirs_exist_ok=True)
        (workdir / "data" / name).unlink()
        assert refused() == (
            f"data folder data is incomplete: it lacks {name}; "
            "run data-prep again, or name another folder by data.path"
        )


@pytest.fixture
def rewrite(data):
    def change(difficulty, edit):
        path = data / difficulty_file(difficulty)
        write_rows(edit(pq.read_table(path).to_pylist()), path)

    return change


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_difficulty_that_a_mix_needs(rewrite, refused, split):
    rewrite("medium", lambda rows: [row for row in rows if row["split"] != split])
    message = refused(evaluation__enabled="true")
    if split == "test":
        assert message == "the test split has no medium examples; run data-prep with more samples"
    else:
        assert message == (
            "Stage 'balanced' takes 0.4 of its examples from difficulty 'medium', "
            f"but the {split} split has no example of it."
        )


@pytest.fixture
def whole_summary(data):
    """Write the digests of changed files into the summary, as data-prep would."""

    def write():
        summary = json.loads((data / "summary.json").read_text())
        for name in summary["sha256"]:
            summary["sha256"][name] = hashlib.sha256((data / name).read_bytes()).hexdigest()
        (data / "summary.json").write_text(json.dumps(summary))

    return write


def test_thin_images_in_every_split_are_left_out_and_end_nothing(
    data, rewrite, whole_summary, sft, runs
):
    ids = {}

    def thin(rows):
        for split in ("train", "validation", "test"):
            chosen = next(row for row in rows if row["split"] == split)
            ids[split] = make_thin(chosen)["id"]
        return rows

    rewrite("hard", thin)
    whole_summary()
    rules = {"samples_per_difficulty": 40, "max_operations": 1, "compare_base": "false"}
    words = {f"evaluation__{name}": value for name, value in rules.items()}
    code, out, err = sft(training__max_steps=2, evaluation__enabled="true", **words)
    assert code == 0, err
    assert "left out: 1 of train hard, 1 of validation hard (example " in out
    refused = "the model's processor refuses an image of 900 x 4 pixels: absolute aspect ratio must"
    for example_id in ids.values():
        assert f"example {example_id}: {refused}" in out
    assert "Traceback" not in out + err
    (run,) = runs()
    assert run.info.status == "FINISHED" and run.data.metrics["data/train/hard/left_out"] == 1


def test_where_no_test_example_can_be_shown_it_says_so(rewrite, whole_summary, refused):
    rewrite("hard", lambda rows: [make_thin(r) if r["split"] == "test" else r for r in rows])
    whole_summary()
    assert refused(evaluation__enabled="true") == (
        "the test split has no hard examples that the model's processor takes"
    )


@pytest.fixture
def plain_questions(workdir):
    """Imported questions and answers without steps, whose scores are equal."""
    noise = np.random.default_rng(0)
    (workdir / "mine").mkdir()
    lines = []
    for number in range(40):
        pixels = noise.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(workdir / "mine" / f"{number}.png")
        record = {"question": f"What is {number}?", "image": f"{number}.png", "answer": "noise"}
        lines.append(json.dumps(record))
    (workdir / "mine" / "some.jsonl").write_text("\n".join(lines))
    rules = DifficultyConfig(correlation_samples=0)
    config = DataPrepConfig(input="mine", num_workers=1, difficulty=rules)
    prepare_folder(config.replace(validation_fraction=0.2), workdir / "data")


def test_plain_questions_are_of_one_difficulty_and_trained_on_whole(
    workdir, plain_questions, refused, sft, runs
):
    message = refused()
    assert message.endswith(
        "All examples in data are simple: make them again with another difficulty.scorer (multi or "
        "model), or let sft train on all of them with curriculum.enabled=false"
    )
    code, out, _ = sft("--curriculum.enabled", "false", training__max_steps=2)
    (run,) = runs()
    assert (code, run.info.status) == (0, "FINISHED")
    assert "  Final weights: {'simple': 1.0, 'medium': 0.0, 'hard': 0.0}" in out.splitlines()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_image_that_does_not_open(rewrite, refused, split):
    broken = []

    def edit(rows):
        for row in rows:
            if row["split"] == split:
                row["images"][0]["bytes"] = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
                broken.append(row["id"])
        return rows

    rewrite("simple", edit)
    message = refused(evaluation__enabled="true", evaluation__samples_per_difficulty=1)
    named = re.search(r"example (\S+?):? ", message)[1]
    assert named in broken and "does not open" in message


def test_a_file_that_is_no_parquet(data, refused):
    (data / "cota_medium.parquet").write_bytes(b"PAR1 and nothing behind it")
    assert refused().startswith("data/cota_medium.parquet cannot be read as parquet: ")


def test_a_file_that_data_prep_did_not_write(rewrite, refused):
    rewrite("hard", lambda rows: rows[:-1])
    assert refused() == (
        "data/cota_hard.parquet is not what data-prep wrote (summary.json has another SHA-256)"
    )


def test_an_output_folder_that_another_training_uses(workdir, data, refused):
    with FileLock(workdir / ".out.lock"):
        assert refused() == (
            "training.output_dir out is in use by another training; name another folder"
        )


def test_a_summary_that_is_broken(data, refused):
    (data / "summary.json").write_text('{"num_samples": 80')
    assert refused().startswith("data/summary.json does not hold the SHA-256 of each data file")


def test_a_checkpoint_from_another_configuration(workdir, data, rewrite, sft, runs, files_below):
    assert sft(training__max_steps=2)[0] == 0
    (workdir / "out" / "finished.json").unlink()
    before = files_below(workdir)
    for words, changed in [
        (("--training.learning_rate", "0.5"), "training.learning_rate was 0.002, is 0.5"),
        (("--model.lora_r", "8"), "model.lora_r was 4, is 8"),
        (("--curriculum.max_rollbacks", "3"), "curriculum.max_rollbacks was None, is 3"),
    ]:
        for resume in ("auto", "out/checkpoint-2"):
            told = one_error(sft("--resume", resume, *words, training__max_steps=2))
            assert told == (
                f"checkpoint out/checkpoint-2 is from another configuration: {changed}; "
                "go on with the same values, or start anew without resume"
            )
    # Other data under the same path is another configuration as well.
    ours = {name for name in before if name.parts[0] == "out"}
    rewrite("hard", lambda rows: rows[:-1])
    summary = json.loads((data / "summary.json").read_text())
    content = (data / "cota_hard.parquet").read_bytes()
    summary["sha256"]["cota_hard.parquet"] = hashlib.sha256(content).hexdigest()
    (data / "summary.json").write_text(json.dumps(summary))
    told = one_error(sft("--resume", "auto", training__max_steps=2))
    assert "data cota_hard.parquet was " in told
    assert len(runs()) == 1
    after = files_below(workdir)
    assert ours and all(after[name] == before[name] for name in ours)
    assert after.keys() == before.keys()


def test_what_changes_no_result_may_change_at_a_resume_and_is_told(workdir, data, sft, runs):
    assert sft(training__max_steps=2)[0] == 0
    adapter = workdir / "out" / "final" / "adapter_model.safetensors"
    before = adapter.read_bytes()
    (workdir / "out" / "finished.json").unlink()
    data.rename(workdir / "elsewhere")
    words = ("--data.path", "./elsewhere", "--data.prep", "null", "--exp_name", "another")
    changed = {"logging_steps": 1, "save_steps": 1, "save_total_limit": 5, "num_workers": 2}
    settings = {f"training__{name}": value for name, value in changed.items()}
    code, out, err = sft("--resume", "auto", *words, **settings, training__max_steps=2)
    assert code == 0, err
    (told,) = [line for line in out.splitlines() if line.startswith("changed since this check")]
    assert "data.path was 'data', is './elsewhere'" in told
    assert "exp_name was 'sft_smoke', is 'another'" in told
    for name, value in changed.items():
        assert re.search(rf"training\.{name} was \d, is {value}", told)
    assert "does not match" not in out + err and "do not match" not in out + err
    (run,) = runs()
    assert run.info.status == "FINISHED" and adapter.read_bytes() == before


def test_trusted_examples_are_an_input_and_part_of_what_a_resume_compares(
    workdir, data, sft, client, runs, files_below
):
    make_small_data(workdir / "clean", seed=5, num_samples=40)
    (workdir / "clean" / "summary.json").unlink()  # only the parquet files are read
    words = ("--data.trusted", "clean")
    settings = {"training__max_steps": 3, "training__eval_steps": 2, "training__save_steps": 2}
    assert sft(*words, **settings)[0] == 0
    (run,) = runs()
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, UNTRUSTED_LOSS)]
    assert steps == [2, 3] and run.data.tags["data.trusted"] == "clean"
    inputs = {
        each.dataset.name: each.tags[0].value
        for each in client.get_run(run.info.run_id).inputs.dataset_inputs
    }
    assert inputs["trusted"] == "validation" and inputs["cota_validation"] == "untrusted"
    models = client.search_logged_models([run.info.experiment_id])
    linked = [metric for model in models for metric in model.metrics]
    assert {metric.dataset_name for metric in linked if "eval/" in metric.key} == {"trusted"}
    assert not [metric for metric in linked if metric.key.startswith("eval/untrusted")]

    (workdir / "out" / "finished.json").unlink()
    file = workdir / "clean" / "cota_hard.parquet"
    rows = pq.read_table(file).to_pylist()
    write_rows(rows[:-1], file)
    told = one_error(sft("--resume", "auto", *words, **settings))
    assert "data trusted 1 was " in told
    before = files_below(workdir)
    write_rows([*rows, *pq.read_table(data / "cota_hard.parquet").to_pylist()], file)
    told = one_error(sft(*words, **settings))
    assert told.startswith("data.trusted clean must hold images that are not in the train or test")
    told = one_error(sft("--data.trusted", "no", "--data.path", "new"))
    assert told.endswith(", got no, which does not exist")
    after = files_below(workdir)
    assert after.keys() == before.keys() and len(runs()) == 1


def test_an_error_that_comes_later_is_one_line_too_and_the_run_says_it(workdir, data, sft, runs):
    code, out, err = sft(training__max_length=20)
    assert code == 2
    last = err.splitlines()[-1]
    assert last == (
        "error: Stage 'simple' takes 1 of its examples from difficulty 'simple', but the train "
        "split, without examples longer than training.max_length 20, has no example of it."
    )
    assert "Traceback" not in err
    (run,) = runs()
    assert run.info.status == "FAILED"
    assert "error: " + run.data.tags["pixelis.error"] == last
