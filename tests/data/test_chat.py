import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from pixelis.data.chat import (
    Message,
    Reply,
    example_messages,
    format_answer,
    format_call,
    format_step,
    parse_reply,
    prompt_messages,
    response_message,
    system_prompt,
)
from pixelis.operations import OPERATIONS

CALL = '<tool_call>\n{"name": "READ_TEXT", "arguments": {"bbox": [1, 2, 3, 4]}}\n</tool_call>'
BBOX = {"bbox": [1, 2, 3, 4]}
FORM = 'a call is {"name": ..., "arguments": {...}}'
PLAIN = st.text().filter(lambda text: not re.search("<(/?)(tool_call|answer)>", text))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


# What a reply is


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL, Reply("READ_TEXT", BBOX)),
        (f"The text is there.\n{CALL}", Reply("READ_TEXT", BBOX)),
        (CALL.replace("\n", ""), Reply("READ_TEXT", BBOX)),
        (f"{CALL}\n<answer>A7</answer>", Reply("READ_TEXT", BBOX)),
        (f"<answer>A7</answer>{CALL}", Reply("READ_TEXT", BBOX)),
        (f"{CALL}{CALL}", Reply(error="one call a turn, got 2")),
        (f"{CALL}{CALL}{CALL}<answer>7</answer>", Reply(error="one call a turn, got 3")),
        ("<tool_call>{</tool_call>", Reply(error="the call is not valid JSON")),
        ("<tool_call></tool_call>", Reply(error="the call is not valid JSON")),
        ("<tool_call>{'name': 1}</tool_call>", Reply(error="the call is not valid JSON")),
        ("<tool_call>[1]</tool_call>", Reply(error=FORM)),
        ("<tool_call>null</tool_call>", Reply(error=FORM)),
        ('<tool_call>{"name": "A"}</tool_call>', Reply(error=FORM)),
        ('<tool_call>{"name": "A", "parameters": {}}</tool_call>', Reply(error=FORM)),
        ('<tool_call>{"name": "A", "arguments": {}, "id": 1}</tool_call>', Reply(error=FORM)),
        ('<tool_call>{"name": "A", "arguments": 3}</tool_call>', Reply("A", 3)),
        ('<tool_call>{"name": 7, "arguments": {}}</tool_call>', Reply("7", {})),
        ("It is red.\n<answer>red</answer>", Reply(answer="red")),
        ("<answer> red \n</answer>", Reply(answer="red")),
        ("<answer>two\nlines</answer>", Reply(answer="two\nlines")),
        ("<answer></answer>", Reply(answer="")),
        ("<answer>red</answer> no, <answer>blue</answer>", Reply(answer="blue")),
        ("<answer>red", Reply(error="neither a call nor an answer")),
        ("<tool_call>", Reply(error="neither a call nor an answer")),
        ("red", Reply(error="neither a call nor an answer")),
        ("", Reply(error="neither a call nor an answer")),
    ],
)
def test_a_reply_is_a_call_or_an_answer_or_a_named_error(text, expected):
    assert parse_reply(text) == expected


@pytest.mark.parametrize("body", ["9" * 5000, '{"x": ' + "9" * 5000 + "}", "[" * 10**5])
def test_json_beyond_python_s_limits_is_not_valid_either(body):
    expected = Reply(error="the call is not valid JSON")
    assert parse_reply(f"<tool_call>{body}</tool_call>") == expected


@given(st.text() | st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "<answer>", "{", "1"])))
def test_no_text_raises_and_none_asks_for_two_things(text):
    reply = parse_reply("".join(text))
    assert (reply.answer is not None) + bool(reply.operation) + bool(reply.error) <= 1
    if not reply.error and reply.answer is None:
        assert "<tool_call>" in text


@given(PLAIN, st.text(), st.dictionaries(st.text(), JSON, max_size=3))
def test_a_written_step_is_read_back(thought, operation, arguments):
    assume("tool_call>" not in json.dumps([operation, arguments]))
    reply = parse_reply(format_step(thought, operation, arguments))
    assert reply == Reply(operation, arguments)


@given(PLAIN, PLAIN)
def test_a_written_answer_is_read_back(conclusion, answer):
    assert parse_reply(format_answer(conclusion, answer)) == Reply(answer=answer.strip())


# How turns are written


def test_the_format_to_the_letter():
    assert format_call("READ_TEXT", BBOX) == CALL
    assert format_step("Look.", "READ_TEXT", BBOX) == f"Look.\n{CALL}"
    assert format_answer("It is red.", "red") == "It is red.\n<answer>red</answer>"


def test_the_system_prompt_lists_the_operations_with_their_arguments():
    prompt = system_prompt()
    assert prompt.startswith("Operations: ") and "\n" not in prompt
    for operation in OPERATIONS.values():
        assert operation.signature in prompt
    assert "GET_PROPERTIES(bbox) TRACK_OBJECT(frames, bbox)" in prompt
    assert prompt.count("(") == len(OPERATIONS)


def test_an_observation_is_a_response_of_the_user_with_its_image_inside():
    image = Image.new("RGB", (3, 3))
    assert response_message({"text": "A7"}, None) == Message(
        "user", ('<tool_response>\n{"text": "A7"}\n</tool_response>',)
    )
    with_image = response_message({"size": [3, 3]}, image)
    assert with_image.parts == (
        '<tool_response>\n{"size": [3, 3]}\n',
        image,
        "\n</tool_response>",
    )
    assert with_image.images == [image] and not with_image.supervised


def test_a_prompt_is_the_operations_then_the_images_then_the_question():
    images = [Image.new("RGB", (n, n)) for n in (1, 2)]
    system, user = prompt_messages("Which?", images)
    assert system == Message("system", (system_prompt(),))
    assert user == Message("user", (*images, "Which?"))
    assert user.images == images


def test_a_conversation_alternates_and_supervises_the_assistant_alone(examples):
    for example in examples[::7]:
        messages = example_messages(example)
        roles = [message.role for message in messages]
        turns = ["assistant", "user"] * len(example.trajectory)
        assert roles == ["system", "user", *turns, "assistant"]
        supervised = [m.supervised for m in messages if m.role == "assistant"]
        assert supervised == [*(step.supervised for step in example.trajectory), True]
        assert not any(m.supervised for m in messages if m.role != "assistant")
