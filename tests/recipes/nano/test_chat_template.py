import json
from pathlib import Path

import pytest

import pixelis.models
from pixelis.data.chat import example_messages, format_answer, prompt_messages, system_prompt
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.tasks import TASKS
from pixelis.models.load import load_processor
from pixelis.operations import OPERATIONS, tool_schemas


@pytest.fixture(scope="module")
def examples():
    return [
        generate_example(seed=1, index=index, task=task, sample_type=sample_type)
        for index in range(4)
        for task in TASKS
        for sample_type in ("positive", "self_correction")
    ]


@pytest.fixture
def render(processor):
    def render(chat, **options):
        return processor.apply_chat_template(chat, tokenize=False, **options)

    return render


def as_text(messages):
    """Our own form: calls in the assistant's words, results in the user's."""
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                for part in message.parts
            ],
        }
        for message in messages
    ]


def as_structure(example):
    """The form of other programs: `tools`, `tool_calls` and the role `tool`."""
    chat = as_text(prompt_messages(example.question, example.images))[1:]
    for step in example.trajectory:
        call = {"name": step.operation, "arguments": dict(step.arguments)}
        calls = [{"type": "function", "function": call}]
        chat.append({"role": "assistant", "content": step.thought, "tool_calls": calls})
        result = [{"type": "text", "text": json.dumps(dict(step.result))}]
        if step.image is not None:
            result = [{"type": "text", "text": result[0]["text"] + "\n"}, {"type": "image"}]
        chat.append({"role": "tool", "content": result})
    final = format_answer(example.conclusion, example.answer)
    return [*chat, {"role": "assistant", "content": final}]


def test_turns_to_the_letter(render):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "Red."},
    ]
    assert render(chat) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\nRed.<|im_end|>\n"
    )
    prompt = render(chat[:2], add_generation_prompt=True)
    assert prompt == render(chat[:2]) + "<|im_start|>assistant\n"
    assert render(chat).startswith(prompt)


def test_a_conversation_in_parts_is_the_same_in_strings(render):
    parts = [{"role": "user", "content": [{"type": "text", "text": t} for t in ("a", " b")]}]
    assert render(parts) == render([{"role": "user", "content": "a b"}])


def test_tools_are_listed_as_in_our_system_prompt(render):
    user = {"role": "user", "content": "What?"}
    listed = render([user], tools=tool_schemas())
    assert listed == render([{"role": "system", "content": system_prompt()}, user])
    for operation in OPERATIONS.values():
        assert f" {operation.signature}" in listed
    assert "GET_PROPERTIES(bbox) " in listed, "a mask may stand in its place"
    assert render([user], tools=[]) == render([user])


@pytest.mark.parametrize(
    ("schema", "listed"),
    [
        ({}, "a, b, c"),
        ({"required": ["b"]}, "a, b, c"),
        ({"oneOf": []}, "a, b, c"),
        ({"oneOf": [{"required": ["b"]}, {"required": ["a"]}]}, "b, c"),
        ({"oneOf": [{"required": ["c"]}, {"required": ["a"]}, {"required": ["b"]}]}, "c"),
        ({"oneOf": [{"required": ["a"]}, {"required": ["a", "b"]}]}, "a, c"),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b", "c"]}], "required": ["c"]}, "a, c"),
        ({"oneOf": [{"type": "object"}, {"required": ["b"]}, {"type": "null"}]}, "a, c"),
    ],
)
def test_of_alternatives_the_first_is_listed(render, schema, listed):
    properties = {name: {"type": "integer"} for name in "abc"}
    parameters = {"type": "object", "properties": properties, **schema}
    tool = {"type": "function", "function": {"name": "LOOK", "parameters": parameters}}
    rendered = render([{"role": "user", "content": "What?"}], tools=[tool, tool])
    assert rendered.startswith(
        f"<|im_start|>system\nOperations: LOOK({listed}) LOOK({listed})<|im_end|>\n"
    )


def test_the_embedded_base_has_this_template_and_no_other(template):
    folder = Path(pixelis.models.__file__).parent / "nano"
    assert (folder / "chat_template.jinja").read_text(encoding="utf-8") == template
    for name in ("tokenizer_config.json", "processor_config.json"):
        assert "chat_template" not in json.loads((folder / name).read_text(encoding="utf-8"))
    processor = load_processor("pixelis-nano")
    assert processor.chat_template == processor.tokenizer.chat_template == template


def test_tools_stand_below_a_system_turn_of_one_s_own(render):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    rendered = render(chat, tools=tool_schemas())
    system, user, rest = rendered.split("<|im_end|>\n")
    assert system == f"<|im_start|>system\nBe brief.\n{system_prompt()}"
    assert user == "<|im_start|>user\nWhat?" and rest == ""


def test_structured_calls_and_results_render_to_our_text_form(render, examples):
    assert any(step.image for example in examples for step in example.trajectory)
    assert any(len(example.images) > 1 for example in examples)
    for example in examples:
        text = render(as_text(example_messages(example)))
        assert render(as_structure(example), tools=tool_schemas()) == text


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("as_json", [True, False])
def test_no_call_is_dropped_however_it_is_written(render, wrapped, as_json):
    arguments = {"bbox": [0, 28, 56, 112], "note": 'ü "quoted"'}
    call = {"name": "READ_TEXT", "arguments": json.dumps(arguments) if as_json else arguments}
    calls = [{"type": "function", "function": call} if wrapped else call]
    chat = [{"role": "assistant", "content": "Look.", "tool_calls": calls * 2}]
    rendered = render(chat)
    assert rendered.count("<tool_call>") == rendered.count("</tool_call>") == 2
    bodies = [part.split("</tool_call>")[0] for part in rendered.split("<tool_call>")[1:]]
    for body in bodies:
        assert json.loads(body) == {"name": "READ_TEXT", "arguments": arguments}


def test_an_assistant_s_turn_may_be_a_call_alone(render):
    calls = [{"type": "function", "function": {"name": "READ_TEXT", "arguments": {"bbox": []}}}]
    rendered = render([{"role": "assistant", "content": None, "tool_calls": calls}])
    assert '{"name": "READ_TEXT", "arguments": {"bbox": []}}' in rendered
    assert "None" not in rendered
