"""Nothing of the environment, no home folder and no password is in the store or its artifacts."""

import json
import sqlite3

import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from PIL import Image
from pyarrow import parquet

from pixelis.tracking import open_run

SECRETS = {
    "HF_TOKEN": "hf_NobodyMayReadThis",
    "MLFLOW_TRACKING_PASSWORD": "pass-NobodyMayReadThis",
    "AWS_SECRET_ACCESS_KEY": "aws-NobodyMayReadThis",
}
HOME = "/home/nobody-may-know-me"
URL = "https://me:url-NobodyMayReadThis@host/x"
EVERYTHING = " ".join([*SECRETS.values(), f"{HOME}/data", URL])


def test_nothing_that_is_nobodys_business_is_stored(client, tmp_path, monkeypatch):
    for name, value in (*SECRETS.items(), ("HOME", HOME)):
        monkeypatch.setenv(name, value)
    # As `mlflow run` of a project in the home folder leaves it.
    shell = client.create_run(
        "0", tags={"mlflow.source.name": f"file://{HOME}/project", "mlflow.source.git.repoURL": URL}
    )
    monkeypatch.setenv("MLFLOW_RUN_ID", shell.info.run_id)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "adapter_config.json").write_text(json.dumps({"base": EVERYTHING}))
    parquet.write_table(pa.table({"id": ["a"]}), tmp_path / "a.parquet")
    figure = Figure()
    figure.subplots().plot([1])
    with (
        pytest.raises(RuntimeError),
        open_run(
            entry_point="sft",
            experiment="pixelis",
            run_name=f"run {EVERYTHING}",
            params={"data.path": f"{HOME}/data", "all": EVERYTHING},
            tags={"all": EVERYTHING},
            system_metrics=False,
            output_dir=tmp_path / "out",
        ) as recorder,
    ):
        recorder.metrics({"train/loss": 1.0}, 1)
        recorder.event({"step": 1, "kind": "advance", "reason": EVERYTHING})
        recorder.text(EVERYTHING, "a.txt")
        recorder.table([{"a": EVERYTHING}], "t.json")
        recorder.table([{"a": EVERYTHING, "i": Image.new("RGB", (2, 2))}], "i.json")
        recorder.note(EVERYTHING)
        recorder.figure("a.png", figure)
        recorder.artifact(tmp_path / "kept", "kept")
        recorder.dataset(tmp_path / "a.parquet", name="a", context=f"made from {HOME}")
        raise RuntimeError(EVERYTHING)
    run = client.get_run(recorder.run_id)
    assert recorder.run_id == shell.info.run_id
    shown = "*** *** *** ~/data https://host/x"
    assert run.data.params == {"data.path": "~/data", "all": shown}
    assert run.data.tags["all"] == run.data.tags["pixelis.error"] == shown
    assert run.data.tags["mlflow.source.name"] == "file://~/project"
    assert run.info.run_name == f"run {shown}"
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("VACUUM")  # what `mlflow run` stored is replaced, and no longer in the file
    stored = [tmp_path / "mlflow.db", *(tmp_path / "artifacts").rglob("*")]
    assert len(stored) > 8
    for path in stored:
        content = path.read_bytes() if path.is_file() else b""
        for word in (b"NobodyMayReadThis", b"nobody-may-know-me"):
            assert word not in content + str(path).encode(), (path, word)
