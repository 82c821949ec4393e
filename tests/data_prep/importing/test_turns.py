"""One turn in any dialect: what is not trained, thoughts, parts, roles, what is not supported."""

import json

import pytest

CALL = {"name": "SEGMENT_OBJECT_AT", "arguments": {"x": 20, "y": 20}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def chat(*turns):
    return {"messages": list(turns), "images": ["c.jpg"]}


ASK, AGAIN = turn("user", "What?"), turn("user", "No, look again.")

# Turns that are not trained

MARKS = [
    *({"weight": value} for value in (0, 0.0, False)),
    *({"loss": value} for value in (False, 0)),
    *({name: False} for name in ("train", "training", "trainable")),
    {"masked": True},
    {"loss_scale": 0.0},
    {"train_detail": [{"begin_offset": 0, "end_offset": 2, "train": False}, {"train": True}]},
    {"content": [{"text": "WR", "train": True}, {"text": "ONG", "weight": 0}]},
    {"content": [{"type": "text", "text": "WRONG", "loss": False}]},
]


@pytest.mark.parametrize("mark", MARKS)
def test_a_marked_answer_is_context_only(take, mark):
    wrong = turn("assistant", "WRONG") | mark
    (example,) = take(chat(ASK, wrong, AGAIN, turn("assistant", "right")), "messages")
    assert (example.answer, example.ground_truth, example.conclusion) == ("right", "right", "")
    question = example.question.replace("WR\nONG", "WRONG")
    assert question == "Earlier: What?\nAnswer: WRONG\nNo, look again."


@pytest.mark.parametrize("key", ["from", "role"])
def test_a_marked_turn_of_either_form(take, key):
    text = "value" if key == "from" else "content"
    turns = [("human", "A?", 1), ("gpt", "WRONG", 0), ("human", "B?", 0), ("gpt", "right", 1)]
    data = [{key: who, text: said, "weight": weight} for who, said, weight in turns]
    (example,) = take({"conversations": data, "image": "c.jpg"}, "conversations")
    assert example.answer == "right"


@pytest.mark.parametrize("mark", [{}, {"weight": 1}, {"loss": True}, {"masked": False}])
def test_other_answers_are_trained(take, mark):
    (example,) = take(chat(ASK, turn("assistant", "right", **mark)), "messages")
    assert example.answer == "right"


def test_a_marked_call_is_context_and_the_answer_is_trained(take):
    call = turn("assistant", "I look there.", tool_calls=[CALL], weight=0)
    result, answer = turn("tool", '{"area": 3}'), turn("assistant", "right")
    (example,) = take(chat(ASK, call, result, answer), "messages")
    (step,) = example.trajectory
    assert not step.supervised and example.answer == "right"
    (example,) = take(chat(ASK, call | {"weight": 1}, result, answer), "messages")
    assert example.trajectory[0].supervised


@pytest.mark.parametrize("mark", MARKS)
def test_where_nothing_is_trained_the_record_is_refused(refuse, mark):
    wrong = turn("assistant", "WRONG") | mark
    for turns in ([ASK, wrong], [ASK, wrong, AGAIN], [ASK, wrong, AGAIN, wrong]):
        found = refuse(chat(*turns), "messages")
        assert found == ("not_trained", "every answer is marked as not trained")


@pytest.mark.parametrize("value", [0.5, 2, -1, "0", "no", [0]])
def test_a_mark_that_is_neither_yes_nor_no(refuse, value):
    reason, text = refuse(chat(ASK, turn("assistant", "A.", weight=value)), "messages")
    assert reason == "wrong_type" and "turn 2: weight must be 0 or 1, false or true, got" in text


@pytest.mark.parametrize(
    ("data", "record_format"),
    [
        (chat(ASK, turn("assistant", "WRONG")), "messages"),
        (
            {"prompt": [ASK], "completion": [turn("assistant", "WRONG")], "image": "c.jpg"},
            "messages",
        ),
        ({"prompt": "What?", "completion": "WRONG", "image": "c.jpg"}, "cota"),
    ],
)
def test_a_completion_with_a_false_label_is_refused(take, refuse, data, record_format):
    assert refuse({**data, "label": False}, record_format)[0] == "not_trained"
    assert take({**data, "label": True}, record_format)[0].answer == "WRONG"


# Thoughts


@pytest.mark.parametrize(
    "said",
    [
        turn("assistant", "<think>I see one.</think>\nA circle."),
        turn("assistant", "I see one.</think>A circle."),  # the template wrote the opening tag
        turn("assistant", "<thinking>I see one.</thinking>\n\nA circle."),
        turn("assistant", "<reasoning>I see one.</reasoning><answer>A circle.</answer>"),
        turn("assistant", "I see one.</thought>A circle."),
        turn("assistant", "A circle.", reasoning_content="I see one."),
        turn("assistant", "A circle.", reasoning="I see one.", thinking=None),
        turn("assistant", "A circle.", thinking="I see one."),
        turn("assistant", [{"type": "thinking", "thinking": "I see one."}, "A circle."]),
        turn("assistant", [{"type": "reasoning", "text": "I see one."}, "A circle."]),
        turn("assistant", "<think>I see one.</think><answer>A circle.</answer>"),
    ],
)
def test_a_thought_is_no_part_of_the_answer(take, said):
    (example,) = take(chat(ASK, said), "messages")
    assert (example.conclusion, example.answer) == ("I see one.", "A circle.")


def test_thought_and_conclusion_are_lines_of_their_own(take):
    said = "<think>I see one.</think>So it is.\n<answer>a circle</answer>"
    (example,) = take(chat(ASK, turn("assistant", said)), "messages")
    assert (example.conclusion, example.answer) == ("I see one.\nSo it is.", "a circle")


@pytest.mark.parametrize(
    "call",
    [
        turn("assistant", "<think>Where is it?</think>", tool_calls=[CALL]),
        turn("assistant", None, tool_calls=[CALL], reasoning_content="Where is it?"),
        turn("assistant", f"<think>Where is it?</think><tool_call>{json.dumps(CALL)}</tool_call>"),
        turn("tool_call", f"<think>Where is it?</think>{json.dumps(CALL)}"),
    ],
)
def test_the_thought_of_a_call_is_the_step_s(take, call):
    turns = [ASK, call, turn("tool", "3"), turn("assistant", "<think></think>A circle.")]
    (example,) = take(chat(*turns), "messages")
    assert [step.thought for step in example.trajectory] == ["Where is it?"]
    assert (example.conclusion, example.answer) == ("", "A circle.")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("<think>I see one. A circle.", "markup"),
        ("<think>I see <answer>one</answer></think>A circle.", "markup"),
        ("<think>I see one.</think>", "no_answer"),
    ],
)
def test_a_thought_that_cannot_be_told_from_the_answer(refuse, said, reason):
    assert refuse(chat(ASK, turn("assistant", said)), "messages")[0] == reason


# Parts and roles


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "What?"},
        {"type": "text", "value": "What?"},
        {"type": "text", "content": "What?", "text": None},
        {"type": "input_text", "text": "What?"},
        {"text": "What?"},
    ],
)
@pytest.mark.parametrize(
    "image",
    [
        {"type": "image", "value": "c.jpg"},
        {"image": "c.jpg"},
        {"type": "input_image", "image_url": "c.jpg"},
        {"type": "image", "path": "c.jpg", "text": None},
        {"type": "image", "data": "c.jpg", "mimeType": "image/jpeg"},
    ],
)
def test_parts_of_every_kind(take, part, image):
    data = {"messages": [turn("user", [image, part]), turn("assistant", "A.")]}
    (example,) = take(data, "messages")
    assert example.question == "What?" and len(example.images) == 1


def test_a_part_that_is_text_and_image_at_once_is_refused(refuse):
    found = refuse(chat(turn("user", [{"image": "c.jpg", "text": "What?"}])), "messages")
    assert found[0] == "wrong_type" and "content must be texts and images" in found[1]


@pytest.mark.parametrize("role", ["tool_call", "function_call"])
@pytest.mark.parametrize("result", ["tool_response", "observation", "tool"])
@pytest.mark.parametrize("make", [json.dumps, dict], ids=["text", "object"])
def test_calls_and_results_as_turns_of_their_own(take, role, result, make):
    turns = [ASK, turn(role, make(CALL)), turn(result, make({"area": 3})), turn("assistant", "A.")]
    (example,) = take(chat(*turns), "messages")
    (step,) = example.trajectory
    assert (step.operation, step.arguments) == (CALL["name"], CALL["arguments"])
    assert step.result == {"area": 3} and example.answer == "A."


def test_roles_in_capitals(take):
    assert take(chat(turn("USER", "What?"), turn("Assistant", "A.")), "messages")[0].answer == "A."


def test_tool_calls_kept_as_json_text(take):
    called = turn("assistant", "", tool_calls=json.dumps([CALL]))
    (example,) = take(chat(ASK, called, turn("assistant", "A.")), "messages")
    assert [step.operation for step in example.trajectory] == [CALL["name"]]


# Video and audio


@pytest.mark.parametrize(
    "data",
    [
        chat(ASK, turn("assistant", "A.")) | {"videos": ["a.mp4"]},
        chat(ASK, turn("assistant", "A.")) | {"video": "a.mp4"},
        chat(ASK, turn("assistant", "A.")) | {"audios": ["a.wav"]},
        chat(ASK, turn("assistant", "A.")) | {"video_path": "a.mp4"},
        chat(turn("user", [{"type": "video", "video": "a.mp4"}]), turn("assistant", "A.")),
        chat(turn("user", [{"video": "a.mp4"}, {"text": "What?"}]), turn("assistant", "A.")),
        chat(turn("user", [{"type": "video_url", "video_url": {"url": "a.mp4"}}])),
        chat(turn("user", "<video>What?"), turn("assistant", "A.")),
    ],
)
def test_video_and_audio_are_refused_by_name(refuse, data):
    reason, text = refuse(data, "messages")
    assert reason == "unsupported"
    assert "video and audio are not supported; give the frames of a video as images" in text
    question = {"question": "What?", "answer": "A.", "video": "a.mp4"}
    assert refuse(question, "cota")[0] == "unsupported"


def test_an_empty_list_of_videos_is_no_video(take):
    assert take(chat(ASK, turn("assistant", "A.")) | {"videos": []}, "messages")
