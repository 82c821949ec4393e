"""A trial that makes the model forget: what its rollback leaves behind, and what it undoes."""

import json
from dataclasses import replace

import pytest

from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import SUMMARY_FILE, difficulty_file, to_row, write_rows
from pixelis.data_prep.generate import generate_example
from pixelis.files import file_sha256

pytestmark = pytest.mark.integration

STAGES = [
    {"name": "old", "difficulty_mix": {"simple": 1.0}},
    {"name": "new", "difficulty_mix": {"hard": 1.0}},
]
# The same pictures and questions: what the next stage teaches is wrong in this one.
SAID = {
    "simple": ("It is plain to see.", "yes"),
    "medium": ("It is plain to see.", "yes"),
    "hard": ("Nothing of the kind is there.", "no"),
}
TRIAL = {
    "stages": STAGES,
    "advancement_interval": 16,
    "trial_steps": 10,
    "performance_metric": "likelihood",
    "min_performance_for_advance": 0.0,
    "rollback_threshold": -0.6,
    "rollback_cooldown": 100,
    "eval_samples_per_difficulty": 4,
}
TRAINING = {
    "max_steps": 27,  # one more than the trial: what is measured last are the weights, not a claim
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "eval_steps": 100,
    "save_steps": 100,
}


@pytest.fixture(scope="module")
def contradicting(tmp_path_factory):
    """Four pictures with a question each, answered one way as simple and another way as hard."""
    folder = tmp_path_factory.mktemp("contradicting")
    made = [
        generate_example(seed=3, index=i, task="attribute_recognition", sample_type="positive")
        for i in range(4)
    ]
    for name in DIFFICULTIES:
        rows = [
            to_row(
                replace(
                    example,
                    id=f"{name}-{split}-{index}",
                    trajectory=(),
                    conclusion=SAID[name][0],
                    answer=SAID[name][1],
                    ground_truth=SAID[name][1],
                    difficulty=name,
                    split=split,
                )
            )
            for split in ("train", "validation")
            for index, example in enumerate(made)
        ]
        write_rows(rows, folder / difficulty_file(name))
    files = [folder / difficulty_file(name) for name in DIFFICULTIES]
    digests = {file.name: file_sha256(file) for file in files}
    (folder / SUMMARY_FILE).write_text(json.dumps({"sha256": digests}))
    return folder


def test_weights_that_go_back_recover_what_data_alone_does_not(train, contradicting, tmp_path):
    measured, events = {}, {}
    for scope in ("data", "data+weights"):
        result, recorder, _ = train(
            TRIAL | {"rollback_scope": scope},
            model={"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0},
            data=contradicting,
            output_dir=tmp_path / scope,
            **TRAINING,
        )
        events[scope] = [(e.kind, e.step, e.reason) for e in result.events]
        measured[scope] = {
            step: recorder.values["eval/simple/likelihood", step] for step in (16, 26, 27)
        }
    # The new stage was learned well enough; the old one was forgotten for it, and that was seen.
    assert events["data"] == events["data+weights"]
    assert events["data"][1:3] == [("trial", 16, None), ("rollback", 26, "forgetting")]
    assert measured["data"][16] == measured["data+weights"][16] > 0.5
    assert measured["data"][26] == measured["data+weights"][26] < 0.1
    # A step of the old mix later, on the old stage's own validation examples.
    assert measured["data"][27] < 0.2
    assert measured["data+weights"][27] > 0.5
