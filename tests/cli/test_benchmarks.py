"""The entry point evaluate on a user's questions: a benchmark's folder or a file."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from pixelis.cli.arguments import run_cli
from pixelis.cli.evaluate import main
from tests.cli.test_evaluate import arguments

pytestmark = pytest.mark.integration


@pytest.fixture
def infographics(workdir):
    """Three questions of two groups, of which one has no image."""
    folder = workdir / "infographics"
    folder.mkdir()
    for name in ("1.jpeg", "2.jpeg"):
        Image.new("RGB", (112, 112), "white").save(folder / name)
    records = [
        {
            "questionId": number,
            "question": "What is the largest share?",
            "image_local_name": f"{number}.jpeg",
            "answers": ["40%", "40 %"],
            "answer_type": [kind],
        }
        for number, kind in ((1, "single span"), (2, "multi span"), (3, "multi span"))
    ]
    file = folder / "infographicsVQA_val_v1.0_withQT.json"
    file.write_text(json.dumps({"dataset_name": "infographicVQA", "data": records}))
    return folder


WORDS = ("--input", "infographics", "--format", "infographicvqa", "--max_rejected", "0.5")
FEW = ("--samples_per_difficulty", "9")


def test_a_benchmark_has_its_own_groups_and_score(
    adapter, infographics, client, runs, capfd, workdir
):
    assert run_cli(main, arguments(*WORDS, *FEW)) == 0
    out = capfd.readouterr().out
    assert "InfographicVQA: 2 questions of 3 records" in out
    assert "left out: 1 (no_image 1)" in out
    assert "infographicsVQA_val_v1.0_withQT.json:3 no_image: '3.jpeg' does not exist" in out
    assert "Answer accuracy on InfographicVQA, 95 % intervals" in out
    assert "ANLS on InfographicVQA, its paper's score, with 95 % intervals:" in out
    assert re.search(r"(?m)^  adapter, all \(n = 2\): \d+\.\d –$", out), out
    (run,) = runs()
    assert run.info.run_name == "evaluate adapter on infographicvqa"
    for group in ("multi span", "single span", "all"):
        assert f"infographicvqa/adapter/{group}/anls" in run.data.metrics
        assert f"infographicvqa/adapter/{group}/answer_accuracy" in run.data.metrics
        assert f"infographicvqa/gain/{group}" in run.data.metrics
    assert not [key for key in run.data.metrics if "simple" in key or "nan" in key]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "infographicvqa"
    assert json.loads(dataset.dataset.profile) == {"num_rows": 2}
    scores = client.download_artifacts(run.info.run_id, "evaluation/benchmark_scores.json")
    columns = ["model", "group", "measure", "value", "low", "high", "n"]
    assert json.loads(Path(scores).read_text())["columns"] == columns
    rejected = client.download_artifacts(run.info.run_id, "evaluation/rejected.json")
    assert json.loads(Path(rejected).read_text())["data"][0][2] == "no_image"
    report = (workdir / "outputs/evaluate/report.html").read_text()
    assert "on infographicvqa" in report and "<option>single span</option>" in report


def test_too_many_rejected_records_stop_before_a_run(adapter, infographics, runs, capfd):
    assert run_cli(main, arguments(*WORDS[:4])) == 2
    message = capfd.readouterr().err
    assert "error: 1 of the 3 records looked at in infographics cannot be used" in message
    assert runs() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image_folder", "x"), "image_folder is about input, which is not set; got 'x'"),
        (("--input", "no"), "input no does not exist; name a file or a folder"),
        (("--input", "infographics", "--format", "tallyqa"), "must have test.json, or name the"),
    ],
)
def test_bad_input(adapter, infographics, refused, words, message):
    assert message in refused(main, arguments(*words))


@pytest.fixture
def long_questions(workdir):
    """Write questions; `LONG` is longer than the embedded base's positions."""
    Image.new("RGB", (300, 200), "white").save(workdir / "1.png")

    def write(*texts):
        records = [
            {"id": f"q{number}", "question": text, "image": "1.png", "answer": "1"}
            for number, text in enumerate(texts)
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (workdir / "long.jsonl").write_text(lines)

    return write


LONG = "a question " * 9091


def test_a_question_longer_than_the_model_is_left_out(adapter, long_questions, runs, capfd):
    long_questions("What?", LONG, "Why?")
    assert run_cli(main, arguments("--input", "long.jsonl", *FEW, "--max_rejected", "0.5")) == 0
    out = capfd.readouterr().out
    assert "long.jsonl (cota): 2 questions of 3 records" in out
    assert "left out: 1 (too_long 1)" in out
    assert re.search(
        r"long.jsonl:2 too_long: \d{5} tokens, more than the model's max_position_embeddings 2048",
        out,
    )
    assert len(runs()) == 1


def test_only_questions_longer_than_the_model_are_an_error(adapter, long_questions, runs, capfd):
    long_questions(LONG)
    assert run_cli(main, arguments("--input", "long.jsonl", "--max_rejected", "1")) == 2
    message = capfd.readouterr().err
    assert "error: input long.jsonl holds no question that can be used, of 1 records" in message
    assert "long.jsonl:1 too_long: " in message and "Traceback" not in message
    assert runs() == []
