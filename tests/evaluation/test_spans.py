from dataclasses import replace

import numpy as np
from PIL import Image

from pixelis.evaluation.cases import build_cases
from pixelis.evaluation.spans import MAX_IMAGES, build_spans
from tests.evaluation.rollouts import answer, call, example, noise, result, rollout

CROP = Image.new("RGB", (20, 20), "red")


def spans(*turns, **more):
    (case,) = build_cases(result([example(**more)], [rollout(*turns)]))
    return build_spans(case)


def test_a_span_a_turn_and_an_operation_in_order():
    made = spans(
        call("ZOOM_IN", {"bbox": [10, 10, 30, 30], "factor": 1}, {"size": [20, 20]}, CROP),
        noise("hm"),
        call("READ_TEXT", {"bbox": [1, 1, 5, 5]}, {"error": "no text"}),
        answer("B2"),
    )
    assert [(span["name"], span["type"]) for span in made] == [
        ("rollout", "AGENT"),
        ("turn 1", "CHAT_MODEL"),
        ("ZOOM_IN", "TOOL"),
        ("turn 2", "CHAT_MODEL"),
        ("turn 3", "CHAT_MODEL"),
        ("READ_TEXT", "TOOL"),
        ("turn 4", "CHAT_MODEL"),
    ]
    assert made[0]["outputs"]["verdict"] == "wrong" and made[0]["outputs"]["why"]
    assert made[5]["error"] == "no text" and "error" not in made[2]
    zoom = made[2]
    assert zoom["outputs"] == {"result": {"size": [20, 20]}, "image": CROP}
    (looked_at,) = zoom["inputs"]["looked_at"]
    assert (np.asarray(looked_at) == (0xD6, 0, 0x6C)).all(-1).any()


def test_spans_take_the_seconds_that_their_turns_took():
    looked = replace(call("READ_TEXT"), seconds=1.5, operation_seconds=0.25)
    made = spans(looked, replace(answer("B2"), seconds=0.5))
    assert [span["seconds"] for span in made] == [2.25, 1.5, 0.25, 0.5]


def test_a_turn_has_all_earlier_messages_as_input():
    made = spans(call("ZOOM_IN", {}, {"size": [20, 20]}, CROP), answer("B2"))
    first, last = made[1]["inputs"]["messages"], made[3]["inputs"]["messages"]
    assert [message["role"] for message in first] == ["system", "user"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user"]
    parts = last[1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]
    assert parts[0]["image_url"]["url"].size == (100, 80)
    assert parts[1]["text"] == "What does the sign say?"
    assert [part["type"] for part in last[3]["content"]] == ["text", "image_url", "text"]
    assert made[3]["outputs"]["choices"][0]["message"]["content"].endswith("<answer>B2</answer>")


def test_further_frames_are_left_out():
    frames = tuple(Image.new("RGB", (10, 10)) for _ in range(MAX_IMAGES + 3))
    made = spans(answer("B2"), images=frames)
    assert len(made[0]["inputs"]["images"]) == MAX_IMAGES
