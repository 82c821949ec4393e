import json

import pytest

from pixelis.data.chat import example_messages, format_call, system_prompt
from pixelis.data.images import encode_image
from pixelis.data_prep.importing.files import format_of

CALL = {"name": "SEGMENT_OBJECT_AT", "arguments": {"x": 20, "y": 20}}
ZOOM = {"name": "ZOOM_IN", "arguments": {"bbox": [0, 0, 10, 5]}}


def said(*turns):
    names = {"u": "user", "a": "assistant", "t": "tool", "s": "system"}
    return [{"role": names[role], "content": content} for role, content in turns]


def chat(*turns, images=("c.jpg",), **other):
    return {"messages": said(*turns), "images": list(images), **other}


def shared(*turns, images=("c.jpg",), **other):
    turns = [{"from": role, "value": value} for role, value in turns]
    return {"conversations": turns, "images": list(images), **other}


def text_call(call, thought=""):
    return thought + format_call(call["name"], call["arguments"])


# Messages


def test_a_plain_question_and_answer(take):
    (example,) = take(
        chat(("s", "Be kind."), ("u", " What? "), ("a", "A circle."), id=5), "messages"
    )
    assert (example.id, example.question, example.answer) == ("5", "Be kind.\nWhat?", "A circle.")
    assert (example.conclusion, example.trajectory, len(example.images)) == ("", (), 1)
    assert example.provenance["format"] == "messages"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "path": "c.jpg"},
        {"type": "image", "image": "c.jpg", "text": None},
        {"type": "image", "url": "c.jpg"},
        {"type": "image_url", "image_url": {"url": "c.jpg"}},
        {"type": "image", "image": {"bytes": None, "path": "c.jpg"}},
    ],
)
def test_images_in_the_parts(take, part):
    turns = said(("u", [part, {"type": "text", "text": "What?"}]), ("a", "A circle."))
    (example,) = take({"messages": turns}, "messages")
    assert example.question == "What?" and example.images[0].size == (64, 48)


def test_embedded_bytes_in_a_part(take, folder):
    part = {"type": "image", "bytes": (folder / "c.jpg").read_bytes()}
    (example,) = take({"messages": said(("u", [part, "What?"]), ("a", "A."))}, "messages")
    assert encode_image(example.images[0]) == part["bytes"]


def test_listed_images_go_to_their_places_in_order(take):
    parts = [{"type": "image"}, {"type": "text", "text": "Same?"}, {"type": "image"}]
    names = ["images/a.png", "images/b.png"]
    (one,) = take(chat(("u", parts), ("a", "No."), images=names), "messages")
    (two,) = take(chat(("u", "<image>Same?<image>"), ("a", "No."), images=names), "messages")
    (three,) = take(chat(("u", "Same?"), ("a", "No."), images=names), "messages")
    pixels = [[image.tobytes() for image in example.images] for example in (one, two, three)]
    assert pixels[0] == pixels[1] == pixels[2] and pixels[0][0] != pixels[0][1]
    assert one.question == two.question == three.question == "Same?"


def test_trl_prompt_and_completion(take):
    data = {
        "prompt": said(("u", "What?")),
        "completion": said(("a", "A circle.")),
        "images": ["c.jpg"],
    }
    assert take(data, "messages")[0].answer == "A circle."


def test_trl_prompt_with_the_answer_beside(take, refuse):
    data = {"prompt": said(("s", "Be brief."), ("u", "What?")), "images": ["c.jpg"]}
    assert format_of(data) == format_of({"prompt": json.dumps(data["prompt"])}) == "messages"
    for beside in ({"solution": "<think>Round.</think>A circle."}, {"answer": "A circle."}):
        (example,) = take(data | beside, "messages")
        assert (example.question, example.answer) == ("Be brief.\nWhat?", "A circle.")
    chosen = {"chosen": said(("a", "A circle.")), "rejected": said(("a", "A square."))}
    assert refuse(data | chosen, "messages")[0] == "no_answer"


def openai(call, call_id=None, as_text=False):
    arguments = json.dumps(call["arguments"]) if as_text else call["arguments"]
    function = {"name": call["name"], "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


@pytest.mark.parametrize("as_text", [False, True])
def test_tool_calls_in_openais_form(take, as_text):
    turns = said(("u", "What?"), ("a", "I look."), ("t", '{"area": 3}'), ("a", "A circle."))
    turns[1]["tool_calls"] = [openai(CALL, as_text=as_text)]
    (example,) = take({"messages": turns, "images": ["c.jpg"]}, "messages")
    (step,) = example.trajectory
    assert (step.thought, step.operation) == ("I look.", "SEGMENT_OBJECT_AT")
    assert (step.arguments, step.result) == (CALL["arguments"], {"area": 3})


@pytest.mark.parametrize("arguments", [CALL["arguments"], json.dumps(CALL["arguments"])])
def test_one_function_call_in_the_older_form(take, arguments):
    turns = said(("u", "What?"), ("a", "I look."), ("a", "A circle."))
    turns[1]["function_call"] = {"name": CALL["name"], "arguments": arguments}
    turns.insert(2, {"role": "function", "name": CALL["name"], "content": '{"area": 3}'})
    (example,) = take({"messages": turns, "images": ["c.jpg"]}, "messages")
    (step,) = example.trajectory
    assert (step.thought, step.result) == ("I look.", {"area": 3})
    assert step.arguments == CALL["arguments"]


def test_an_image_right_after_a_call_is_its_result(take):
    turns = [("u", [{"image": "c.jpg"}, {"text": "What?"}]), ("a", text_call(ZOOM, "Closer."))]
    turns += [("u", ["Here it is:", {"image": "images/a.png"}]), ("a", "A."), ("u", "Sure?")]
    first, second = take({"messages": said(*turns, ("a", "Yes."))}, "messages")
    (step,) = first.trajectory
    assert (step.result, step.image.size) == ({"text": "Here it is:"}, (64, 48))
    assert len(first.images) == 1 and (second.answer, second.trajectory) == ("Yes.", ())


def test_results_find_their_calls_by_id(take):
    turns = said(("u", "What?"), ("a", None), ("t", "second"), ("t", "first"), ("a", "A."))
    turns[1]["tool_calls"] = [openai(CALL, "1"), openai(CALL, "2")]
    turns[2]["tool_call_id"] = "2"
    (example,) = take({"messages": turns, "images": ["c.jpg"]}, "messages")
    assert [step.result for step in example.trajectory] == [{"text": "first"}, {"text": "second"}]


def test_our_own_writing_of_a_chat_is_read_back(take, refuse):
    calls = [("a", text_call(CALL, "I look.\n")), ("u", "<tool_response>\n{}\n</tool_response>")]
    final = ("a", "So it is.\n<answer>a circle</answer>")
    (example,) = take(chat(("u", "What?"), *calls, final), "messages")
    assert (example.conclusion, example.answer) == ("So it is.", "a circle")
    assert "bbox" in example.trajectory[0].result  # an empty result is made
    again = []
    for message in example_messages(example):
        parts = [p if isinstance(p, str) else {"type": "image"} for p in message.parts]
        again.append({"role": message.role, "content": parts})
    (twin,) = take({"messages": again, "images": ["c.jpg"]}, "messages")
    assert (twin.trajectory, twin.conclusion, twin.answer) == (
        example.trajectory,
        example.conclusion,
        example.answer,
    )


def test_a_result_may_show_an_image(take):
    result = [{"type": "text", "text": '{"size": [9, 9]}'}, {"type": "image"}]
    turns = (
        ("u", [{"type": "image"}, "What?"]),
        ("a", text_call(ZOOM)),
        ("t", result),
        ("a", "A."),
    )
    (example,) = take(chat(*turns, images=["c.jpg", "images/a.png"]), "messages")
    (step,) = example.trajectory
    assert len(example.images) == 1
    assert step.image.tobytes() != example.images[0].tobytes() and step.image.size == (64, 48)


def test_missing_results_are_made_and_thoughts_are_joined(take):
    turns = (("u", "What?"), ("a", "First."), ("a", text_call(ZOOM, "Then.")), ("a", "A."))
    (example,) = take(chat(*turns), "messages")
    (step,) = example.trajectory
    assert (step.thought, step.result, step.image.size) == (
        "First.\nThen.",
        {"size": [20, 10]},
        (20, 10),
    )


def test_every_question_becomes_an_example(take):
    turns = [("u", "What?"), ("a", "A circle."), ("u", "Which colour?"), ("a", text_call(CALL))]
    turns += [("t", "red"), ("a", "I see.<answer>red</answer>"), ("u", "Sure?"), ("a", "Yes.")]
    examples = take(chat(*turns, id="x"), "messages")
    assert [example.id for example in examples] == ["x#1", "x#2", "x#3"]
    assert [example.answer for example in examples] == ["A circle.", "red", "Yes."]
    assert [len(example.images) for example in examples] == [1, 1, 1]
    assert [len(example.trajectory) for example in examples] == [0, 1, 0]
    assert examples[2].question == (
        "Earlier: What?\nAnswer: A circle.\nEarlier: Which colour?\nAnswer: red\nSure?"
    )
    unnamed = take(chat(*turns), "messages")
    assert len({example.id for example in unnamed}) == 3


def test_a_last_question_without_an_answer_leaves_the_rounds_before_it(take):
    first = [("u", "What?"), ("a", "A circle."), ("u", "Which colour?"), ("a", "red")]
    for last in ([("u", "Sure?")], [("u", "Sure?"), LOOK], [("u", "Sure?"), ("a", "")]):
        examples = take(chat(*first, *last, id="x"), "messages")
        assert [each.id for each in examples] == ["x#1", "x#2"]
        assert [each.answer for each in examples] == ["A circle.", "red"]
    (example,) = take(chat(*first[:2], ("u", "Sure?"), id="x"), "messages")
    assert (example.id, example.question) == ("x", "What?")


@pytest.mark.parametrize("key", ["solution", "response", "answer", "ground_truth"])
def test_the_answer_of_the_last_question_may_stand_beside_the_chat(take, key):
    (example,) = take(chat(("u", "<image>What?"), **{key: "A circle."}), "messages")
    assert (example.question, example.answer) == ("What?", "A circle.")


def test_a_system_turn_begins_the_first_question_unless_it_describes_tools(take):
    turns = [("u", "What?"), ("a", "A."), ("u", "Why?"), ("a", "B.")]
    first, second = take(chat(("s", "Be kind."), *turns), "messages")
    assert first.question == "Be kind.\nWhat?"
    assert second.question == "Be kind.\nEarlier: What?\nAnswer: A.\nWhy?"
    (beside,) = take(chat(*turns[:2], system="Be kind."), "messages")
    assert beside.question == "Be kind.\nWhat?"
    for left_out in ("Use <tools>zoom</tools>.", system_prompt(), ""):
        assert take(chat(("s", left_out), *turns), "messages")[0].question == "What?"
    called = take(chat(("s", "Call ZOOM_IN."), ASK, LOOK, END), "messages")
    assert called[0].question == "A?"


@pytest.mark.parametrize("images", [{"image": "c.jpg"}, {"images": ["c.jpg"]}, {"images": "c.jpg"}])
def test_images_without_a_mark_stand_before_the_first_question(take, images):
    turns = [("system", "Be kind."), ("human", "What?"), ("gpt", "A."), ("human", "Why?")]
    data = shared(*turns, ("gpt", "B."))
    del data["images"]
    first, second = take(data | images, "conversations")
    assert [len(each.images) for each in (first, second)] == [1, 1]
    assert first.question == "Be kind.\nWhat?"


def test_images_listed_in_their_turn(take, refuse):
    turns = [("u", "What?"), ("a", "A."), ("u", "<image>\nAnd this?"), ("a", "B.")]
    first, *_ = data = said(*turns)
    first["images"], data[2]["image"] = ["c.jpg"], "images/a.png"
    examples = take({"messages": data}, "messages")
    assert [len(each.images) for each in examples] == [1, 2]
    assert [each.question.splitlines()[-1] for each in examples] == ["What?", "And this?"]
    data[2]["image"] = ["c.jpg", "c.jpg"]
    assert refuse({"messages": data}, "messages")[0] == "image_count"
    data[2]["image"], data[1]["images"] = None, ["c.jpg"]
    assert refuse({"messages": data}, "messages")[0] == "wrong_turns"


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_a_chat_kept_as_json_text(take, name):
    data = chat(ASK, END) if name == "messages" else shared(("human", "A?"), ("gpt", "A."))
    data |= {name: json.dumps(data[name]), "images": json.dumps(["c.jpg"])}
    (example,) = take(data, name)
    assert (example.question, example.answer, len(example.images)) == ("A?", "A.", 1)


def test_trl_halves_kept_as_json_text(take):
    halves = {"prompt": json.dumps(said(ASK)), "completion": json.dumps(said(END))}
    assert take({**halves, "image": "c.jpg"}, "messages")[0].answer == "A."


def test_user_turns_in_a_row_are_one_question(take):
    (example,) = take(chat(("u", "Look."), ("u", "What?"), ("a", "It"), ("a", "is.")), "messages")
    assert (example.question, example.answer) == ("Look.\nWhat?", "It\nis.")


def test_ground_truth_that_agrees(take, refuse):
    turns = (("u", "What?"), ("a", "<answer>1</answer>"))
    take(chat(*turns, ground_truth=1, sample_type="trap_logical"), "messages")
    reason, text = refuse(chat(*turns, ground_truth="2"), "messages")
    assert (reason, text) == ("answer_differs", "answer '1' and ground_truth '2' differ")


def calls_of(calls):
    turn = {"role": "assistant", "content": "", "tool_calls": calls}
    return {"messages": [*said(("u", "What?")), turn, *said(("a", "A."))], "images": ["c.jpg"]}


IMAGE = {"type": "image"}
ASK, END, LOOK = ("u", "A?"), ("a", "A."), ("a", text_call(ZOOM))
SHOWN = ("u", [IMAGE, "A?"])
RESULT = "<tool_response>1</tool_response>"


@pytest.mark.parametrize(
    ("data", "reason", "text"),
    [
        (chat(("u", "What?")), "no_answer", "the question has no answer: 'What?'"),
        (chat(ASK, ("a", "<answer> </answer>")), "no_answer", "has no answer: 'A?'"),
        (chat(ASK, LOOK), "no_answer", "has no answer: 'A?'"),
        (chat(ASK, LOOK, ("u", "B?"), END), "no_answer", "has no answer: 'A?'"),
        (chat(("u", ""), END), "missing_text", "the question is missing or empty"),
        (chat(ASK, END, images=[]), "no_image", "the record names no image"),
        (chat(SHOWN, END, images=[]), "no_image", "the record names no image"),
        (chat(SHOWN, END, images=["c.jpg"] * 2), "image_count", "have 1 places for images, the re"),
        (chat(ASK, END, SHOWN, END), "no_image", "the question has no image: 'A?'"),
        (chat(END), "wrong_turns", "the assistant answers before any question"),
        (chat(("s", "A.")), "wrong_turns", "no turn is the user's"),
        (chat(ASK, ("t", "1"), END), "wrong_turns", "a result without a call: '1'"),
        (chat(ASK, ("u", RESULT), END), "wrong_turns", "a result without a call: '1'"),
        (chat(ASK, LOOK, ("t", f"x{RESULT}")), "wrong_turns", "text stands beside a result: 'x'"),
        (chat(ASK, ("a", [IMAGE])), "wrong_turns", "turn 2: the assistant may show no image"),
        (chat(ASK, ("a", "<image>")), "wrong_turns", "turn 2: the assistant may show no image"),
        ({"messages": [{"role": "user", "tool_calls": [1]}]}, "wrong_turns", "only an assistant"),
        ({"messages": "text"}, "wrong_type", "a chat must be a list of turns, got 'text'"),
        ({"messages": []}, "wrong_type", "a chat must be a list of turns, got []"),
        ({}, "wrong_type", "a chat must be a list of turns, got None"),
        ({"messages": [3]}, "wrong_type", "turn 1 must be an object, got 3"),
        ({"messages": [{"role": "dog"}]}, "wrong_type", "turn 1: the role must be one of system"),
        ({"messages": [{"role": ["user"]}]}, "wrong_type", "turn 1: the role must be one of"),
        (chat(("u", 3)), "wrong_type", "turn 1: content must be texts and"),
        (chat(("u", [{"type": "file"}])), "wrong_type", "content must be texts and images"),
        (chat(("u", [{"type": "text"}])), "wrong_type", "content must be texts and images"),
        (chat(("u", [{"text": "A?", "image": "c.jpg"}])), "wrong_type", "content must be texts"),
        (chat(("u", [IMAGE | {"url": "a", "path": "b"}])), "wrong_type", "more than one image"),
        ({"messages": [{"role": "user"}] * 513}, "too_large", "a chat may have 512 turns, got 513"),
        (chat(*[ASK, END] * 65), "too_large", "a chat may have 64 questions"),
        (
            chat(*[("u", "x" * 900_000), END] * 2),
            "too_large",
            "question may have 1000000 characters",
        ),
        (calls_of([openai(CALL)] * 65), "too_large", "a trajectory may have 64 steps"),
        (calls_of({"a": 1}), "broken_call", "tool_calls must be a list, got {'a': 1}"),
        (calls_of([3]), "broken_call", "a call must be an object, got 3"),
        (calls_of([{"function": 3}]), "broken_call", "a call must be an object, got 3"),
        (calls_of([{"function": {}}]), "unknown_operation", "operation None; choices: ZOOM_IN"),
        (calls_of([{"name": "FLY"}]), "unknown_operation", "operation 'FLY'; choices: ZOOM_IN"),
        (chat(ASK, ("a", "<tool_call>{</tool_call>")), "broken_call", "a call is not JSON"),
        (chat(ASK, ("a", "<tool_call>{}")), "markup", "<tool_call> is not closed by </too"),
        (chat(ASK, ("a", "x</tool_call>")), "markup", "may not hold </tool_call>"),
        (chat(ASK, ("a", "<answer>1</answer>" * 2)), "markup", "may have one <answer>, got 2"),
        (
            chat(ASK, ("a", text_call(CALL) + "<answer>1</answer>")),
            "markup",
            "thought may not hold <answer>",
        ),
        (
            chat(SHOWN, LOOK, ("t", [IMAGE, IMAGE]), images=["c.jpg"] * 3),
            "image_count",
            "a step may have one image, got 2",
        ),
        (
            chat(SHOWN, LOOK, ("t", [IMAGE, RESULT * 2]), images=["c.jpg"] * 2),
            "image_count",
            "a turn with several results may hold no image",
        ),
    ],
)
def test_a_chat_that_breaks_a_rule(refuse, data, reason, text):
    found = refuse(data, "messages")
    assert found[0] == reason and text in found[1]


def test_many_open_tags_take_no_time(refuse):
    for tag in ("<tool_call>", "<answer>", "<image>"):
        turns = (("u", "What?"), ("a", tag * (900_000 // len(tag))))
        assert refuse(chat(*turns), "messages")[0] in ("markup", "wrong_turns")
    assert refuse(chat(("u", " " * 900_000 + "<image>?"), ("a", "")), "messages")[0] == "no_answer"


# Conversations


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("What is it?\n<image>", "What is it?"),
        ("Is <image> red?", "Is red?"),
        ("A\n<image>\nB", "A\nB"),
        ("A <image>\nB", "A\nB"),
        ("  <image>  A\n\nB", "A\n\nB"),
    ],
)
def test_placeholders_leave_no_gap(take, text, question):
    (example,) = take(shared(("human", text), ("gpt", "Yes.")), "conversations")
    assert example.question == question and len(example.images) == 1


def test_llava_with_one_image_as_a_text(take):
    data = {"id": "000", "image": "c.jpg", **shared(("human", "<image>\nA?"), ("gpt", "B"))}
    del data["images"]
    assert take(data, "conversations")[0].id == "000"


def test_tool_turns_of_sharegpt(take):
    turns = [
        ("system", "You may call."),
        ("human", "<image>What?"),
        ("function_call", json.dumps(CALL)),
        ("observation", '{"area": 3}'),
        ("gpt", "Closer."),
        ("function_call", json.dumps([ZOOM])),
        ("observation", "<image>"),
        ("gpt", "A circle."),
    ]
    (example,) = take(shared(*turns, images=["c.jpg", "images/a.png"]), "conversations")
    first, second = example.trajectory
    assert (first.thought, first.result) == ("", {"area": 3})
    assert (second.thought, second.result) == ("Closer.", {"size": [64, 48]})
    assert second.image.size == (64, 48) and example.answer == "A circle."


def test_a_tagged_call_turn(take):
    turns = [("human", "<image>A?"), ("function_call", text_call(CALL, "Look.")), ("gpt", "B")]
    assert take(shared(*turns), "conversations")[0].trajectory[0].thought == "Look."


@pytest.mark.parametrize(
    ("marks", "images", "text"),
    [
        (2, ["c.jpg"], "the turns have 2 places for images, the record 1"),
        (1, ["c.jpg"] * 3, "the turns have 1 places for images, the record 3"),
    ],
)
def test_placeholders_and_images_must_agree(refuse, marks, images, text):
    data = shared(("human", "<image>" * marks + "A?"), ("gpt", "B"), images=images)
    assert refuse(data, "conversations") == ("image_count", text)
