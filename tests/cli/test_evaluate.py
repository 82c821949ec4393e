"""evaluate as a user meets it, and every input that it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.cli.arguments import run_cli
from pixelis.cli.evaluate import main
from pixelis.models.load import load_model
from pixelis.models.lora import add_lora
from pixelis.tracking import MlflowRecorder, log_adapter

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def made_adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter") / "final"
    base = load_model("pixelis-nano", torch_dtype="float32")
    names = {"model_name": "pixelis-nano", "lora_r": 4, "lora_alpha": 8}
    model = add_lora(base, **names, lora_dropout=0.0, seed=0)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture
def adapter(made_adapter, place):
    shutil.copytree(made_adapter, place / "adapter")
    return place / "adapter"


def arguments(*words):
    return [
        *("--config", str(ROOT / "configs/evaluate.yaml")),
        *("--model", str(ROOT / "configs/model_arch.yaml")),
        *("--data.path", "data", "--adapter", "adapter", "--samples_per_difficulty", "1"),
        *("--max_operations", "2", "--max_new_tokens", "40", "--bootstrap_samples", "20"),
        *words,
    ]


def test_it_prints_the_table_and_records_it(data, adapter, client, runs, capfd):
    assert run_cli(main, arguments()) == 0
    out = capfd.readouterr().out
    assert "Answer accuracy on the test split, 95 % intervals" in out
    assert all(name in out for name in ("simple", "medium", "hard", "base", "adapter"))
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "evaluate adapter on test"
    assert run.data.params["samples_per_difficulty"] == "1"
    rows = client.download_artifacts(run.info.run_id, "evaluation/rollouts.json")
    table = json.loads(Path(rows).read_text())
    assert len(table["data"]) == 6  # three examples, base and adapter
    assert set(run.data.metrics) and all(
        0 <= v <= 1 for k, v in run.data.metrics.items() if k.endswith("answer_accuracy")
    )


def test_a_real_process_ends_in_one_line(place):
    done = subprocess.run(
        [sys.executable, "-m", "pixelis.cli.evaluate", *arguments("--split", "tests")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: split must be one of train, validation, test, got 'te")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def refused(place, capfd, runs, files_below):
    def call(*words):
        before = files_below(place)
        capfd.readouterr()
        code = run_cli(main, arguments(*words))
        out, err = capfd.readouterr()
        assert (code, out) == (2, ""), err
        last = err.splitlines()[-1]
        assert last.startswith("error: ") and "Traceback" not in err
        assert files_below(place) == before and runs() == []
        return last.removeprefix("error: ")

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "tests"), "split must be one of train, validation, test, got 'tests'"),
        (("--batch_size", "0"), "batch_size must be >= 1, got 0 (the command line)"),
        (("--adaptor", "x"), "Unknown key 'adaptor' in the command line. Did you mean 'adapter'?"),
        (("--data.path", "no"), "data folder no does not exist; make it with data-prep"),
        (("--adapter", "no"), "the adapter no is not a folder"),
        (("--adapter", "data"), "the adapter data is incomplete: adapter_config.json and "),
        (("--adapter", ""), "no finished sft run in the experiment 'sft_curriculum'"),
        (("--model.model_name", "./no"), "no model folder ./no; "),
    ],
)
def test_bad_input(data, adapter, refused, words, message):
    assert message in refused(*words)


def test_an_adapter_of_another_base(data, adapter, refused):
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "some/other"}
    path.write_text(json.dumps(config))
    assert refused() == (
        "the adapter in adapter is for the base 'some/other', not for 'pixelis-nano'; "
        "set model.model_name=some/other"
    )


def test_an_adapter_that_is_broken(data, adapter, refused):
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert re.match("the adapter in adapter does not fit 'pixelis-nano': .*header", refused())


def test_a_data_file_that_was_changed(data, adapter, refused):
    with (data / "cota_medium.parquet").open("ab") as file:
        file.write(b"x")
    assert "cota_medium.parquet is not what data-prep wrote" in refused()


def test_a_data_folder_that_is_incomplete(data, adapter, refused):
    (data / "cota_medium.parquet").unlink()
    assert "data folder data is incomplete: it lacks cota_medium.parquet; " in refused()


def test_a_registered_adapter_runs_for_champion(data, adapter, client, runs, capfd):
    recorder = MlflowRecorder(client, client.create_run("0", run_name="sft"))
    log_adapter(recorder, adapter, "final", 1, {}, register_as="reader")
    recorder.close("FINISHED")
    address = ("--adapter", "models:/reader@candidate")
    assert run_cli(main, arguments(*address)) == 0
    out = capfd.readouterr().out
    # Fresh, an adapter does what its base does.
    assert "reader version 1 against the base on 3 test examples: +0.0 points" in out
    assert "the champion stays" in out
    (run,) = [r for r in runs() if r.data.tags.get("pixelis.entry_point") == "evaluate"]
    assert run.data.tags["pixelis.champion"] == "stays"
    assert run.data.metrics["champion/gain"] == 0
    assert run_cli(main, arguments(*address, "--split", "validation")) == 0
    assert "champion" not in capfd.readouterr().out  # only the test split decides
