"""A question and its answer under the names of public data, and several right answers."""

import pytest

from pixelis.data_prep.importing.files import format_of

IMAGE = {"image": "c.jpg"}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("query", "response"),
        ("instruction", "output"),
        ("prompt", "completion"),
        ("problem", "solution"),
        ("question", "answer"),
        ("question", "multiple_choice_answer"),
        ("question", "ground_truth"),
        ("query", "answers"),
        ("input", "output"),
    ],
)
def test_the_names_of_a_question_and_its_answer(take, question, answer):
    data = {question: "<image>\nWhat is it?", answer: "a circle", **IMAGE}
    assert format_of(data) == "cota"
    (example,) = take(data, "cota")
    assert (example.question, example.conclusion) == ("What is it?", "")
    assert example.answer == example.ground_truth == "a circle"
    assert len(example.images) == 1 and "alternatives" not in example.provenance


def test_an_instruction_and_its_input_are_one_question(take):
    data = {"instruction": "Count.", "input": "The circles.", "output": "1", **IMAGE}
    assert take(data, "cota")[0].question == "Count.\nThe circles."
    assert take(data | {"input": ""}, "cota")[0].question == "Count."


def test_system_and_history(take):
    data = {"query": "Sure?", "response": "Yes.", "system": "Be kind.", **IMAGE}
    data["history"] = [["What?", "A circle."], ["Which colour?", "red"]]
    examples = take(data | {"id": "x"}, "cota")
    assert [each.id for each in examples] == ["x#1", "x#2", "x#3"]
    assert [each.answer for each in examples] == ["A circle.", "red", "Yes."]
    assert examples[0].question == "Be kind.\nWhat?"
    assert examples[2].question.endswith("Answer: red\nSure?")


@pytest.mark.parametrize("history", [["What?"], [["What?"]], "What?", [["a", "b", "c"]]])
def test_a_history_that_is_no_pairs(refuse, history):
    data = {"query": "Sure?", "response": "Yes.", "history": history, **IMAGE}
    reason, text = refuse(data, "cota")
    assert reason == "wrong_type" and "history must be pairs of texts, got" in text


@pytest.mark.parametrize(
    ("reply", "more", "conclusion", "answer"),
    [
        ("<think>Round.</think><answer>a circle</answer>", {}, "Round.", "a circle"),
        ("<think>Round.</think>a circle", {}, "Round.", "a circle"),
        ("Round.<answer>a circle</answer>", {"answer": "a circle"}, "Round.", "a circle"),
        ("It is round.", {"answer": "a circle"}, "It is round.", "a circle"),
        ("a circle", {"answer": "a circle"}, "", "a circle"),
        ("a circle", {"reasoning_content": "Round."}, "Round.", "a circle"),
    ],
)
def test_the_way_to_an_answer_is_its_conclusion(take, reply, more, conclusion, answer):
    (example,) = take({"problem": "What?", "solution": reply, **more, **IMAGE}, "cota")
    assert (example.conclusion, example.answer) == (conclusion, answer)


@pytest.mark.parametrize(
    ("given", "answer", "others"),
    [
        ({"answers": ["net", "a net"]}, "net", ["a net"]),
        ({"answers": ["a net", "net", "net"]}, "net", ["a net"]),
        ({"answers": [{"answer": "net", "answer_id": 1}, {"answer": "a net"}]}, "net", ["a net"]),
        ({"answer": ["net", "a net"]}, "net", ["a net"]),
        ({"answers": '["net", "a net", 3]'}, "net", ["a net", "3"]),
        ({"answer": "[3, 4]"}, "[3, 4]", None),
        ({"answer": "net", "answers": ["a net", "net"]}, "net", ["a net"]),
        ({"answer": "net", "ground_truth": ["a net", "net"]}, "net", ["a net"]),
        ({"ground_truth": ["net", 3]}, "net", ["3"]),
        ({"answers": ["net"]}, "net", None),
        ({"response": "<answer>a net</answer>", "answers": ["net", "a net"]}, "a net", ["net"]),
    ],
)
def test_several_answers_are_alternatives(take, given, answer, others):
    (example,) = take({"question": "What?", **given, **IMAGE}, "cota")
    assert example.answer == example.ground_truth == answer
    assert example.provenance.get("alternatives") == others


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"choices": ["red", "blue"], "answer": 1}, "one of choices ['red', 'blue'], which"),
        ({"options": {"A": "red", "B": "blue"}, "answer": "B"}, "show, got 'B'"),
        ({"options": '["red", "blue"]', "answer": "B"}, "show, got 'B'"),
        ({"choices": ["red", "blue"], "answer": "blue"}, ""),
        ({"choices": [1, 2], "answer": 2}, ""),
        ({"choices": ["red", "blue"], "answer": "Blue"}, ""),
        ({"options": ["red", "blue"], "answer": "B", "question": "(A) red (B) blue"}, ""),
        ({"options": [], "answer": "B"}, ""),
        ({"options": None, "answer": "B"}, ""),
    ],
)
def test_an_answer_that_stands_for_an_option(take, refuse, given, fault):
    data = {"question": "What?", **given, **IMAGE}
    if fault:
        reason, text = refuse(data, "cota")
        assert reason == "no_answer" and fault in text
    else:
        assert take(data, "cota")[0].answer == str(given["answer"])


def test_a_chat_s_truth_may_be_several(take, refuse):
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a net"}]
    data = {"messages": turns, "ground_truth": ["net", "a net"], **IMAGE}
    (example,) = take(data, "messages")
    assert (example.answer, example.provenance["alternatives"]) == ("a net", ["net"])
    reason, text = refuse(data | {"ground_truth": ["net", "web"]}, "messages")
    assert (reason, text) == (
        "answer_differs",
        "answer 'a net' and ground_truth 'net' or 'web' differ",
    )


@pytest.mark.parametrize("name", ["answer", "answers", "ground_truth"])
def test_a_reply_that_contradicts_the_answer_beside_it(refuse, name):
    data = {"problem": "How many?", "solution": "<answer>3</answer>", name: "4", **IMAGE}
    assert refuse(data, "cota")[0] == "answer_differs"


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"query": 3}, "wrong_type", "question must be a text, got 3"),
        ({"query": ""}, "missing_text", "the question is missing or empty"),
        ({"response": ["a", "b"]}, "wrong_type", "the reply must be a text, got ['a', 'b']"),
        ({"response": ""}, "no_answer", "the question has no answer: 'What?'"),
        ({"answers": [["a"]]}, "wrong_type", "answers must be a text or a number, got ['a']"),
        ({"answers": {"a": 1}}, "wrong_type", "answers must be a text or a number, got {'a': 1}"),
        ({"output": "another"}, "wrong_type", "response and output differ; give one of them"),
        ({"query": "<image><image>What?"}, "image_count", "have 2 places for images, the record 1"),
        ({"image": None}, "no_image", "the record names no image"),
    ],
)
def test_a_field_that_breaks_its_rule(refuse, changes, reason, text):
    data = {"query": "What?", "response": "a circle", **IMAGE}
    found = refuse(data | changes, "cota")
    assert found[0] == reason and text in found[1]


def test_a_record_s_provenance_is_kept(take):
    data = {"query": "What?", "response": "A.", "provenance": {"by": "me"}, **IMAGE}
    assert take(data, "cota")[0].provenance["original"] == {"by": "me"}
