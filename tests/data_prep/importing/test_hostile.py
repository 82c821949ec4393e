import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.data.store import from_row, to_row
from pixelis.data_prep.importing import REASONS, Record, Rejection, convert
from pixelis.data_prep.importing.record import FORMATS
from tests.faults.hostile import changed, places

CALL = {"name": "SEGMENT_OBJECT_AT", "arguments": {"x": 20, "y": 20}}
RECORDS = {
    "cota": {
        "id": "s1",
        "question": "How many?",
        "image": "images/a.png",
        "trajectory": [
            {"thought": "I look.", "operation": "ZOOM_IN", "arguments": {"bbox": [0, 0, 9, 9]}}
        ],
        "answer": "1",
        "ground_truth": "1",
    },
    "messages": {
        "images": ["c.jpg"],
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "I look.", "tool_calls": [{"function": CALL}]},
            {"role": "tool", "content": '{"area": 1}'},
            {"role": "assistant", "content": "So.<answer>a circle</answer>"},
        ],
    },
    "conversations": {
        "image": "c.jpg",
        "conversations": [
            {"from": "human", "value": "<image>What?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "{}"},
            {"from": "gpt", "value": "A circle."},
        ],
    },
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 2**63, float("nan"), float("inf"), 1e308, b"", b"\xff"])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(
        ["<image>", "<tool_call>", "<answer>", "../x", "\ue000", "\ud800", "", "a\x00", "{", "[1]"]
        + ["user", "gpt", "tool", "system", "ZOOM_IN", "READ_TEXT", "positive", "c.jpg", "text.png"]
        + ["<tool_response>1</tool_response>", '{"name": "READ_TEXT", "arguments": {}}', "data:,"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "image", "x", "y", "bbox", "role", "content", "bytes"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@st.composite
def mutated(draw):
    record_format = draw(st.sampled_from(list(FORMATS)))
    data = RECORDS[record_format]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([p for p in places(data) if p]))
        data = changed(data, path, draw(VALUES))
    if draw(st.booleans()):
        data = data | {draw(st.sampled_from(["id", "task", "images", "prompt"])): draw(VALUES)}
    return record_format, data


@pytest.mark.parametrize("record_format", list(FORMATS))
def test_the_records_are_right_before_they_are_changed(take, record_format):
    (example,) = take(RECORDS[record_format], record_format)
    assert len(example.trajectory) == 1


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=mutated())
def test_any_record_is_accepted_rightly_or_rejected(folder, case):
    record_format, data = case
    found = convert(Record("f", 3, data), folder=folder, record_format=record_format)
    if isinstance(found, Rejection):
        assert found.reason in REASONS and 0 < len(found.detail) <= 300
        assert (found.file, found.line) == ("f", 3)
        found.detail.encode("utf-8")
        return
    assert found
    for example in found:
        assert isinstance(example, Example) and example.question and example.answer
        assert example.images and example.answer == example.ground_truth
        row = to_row(example)
        again = from_row(row)
        assert again.trajectory == example.trajectory and again.answer == example.answer
        json.loads(json.dumps(row["provenance"]), parse_constant=pytest.fail)


def test_what_is_accepted_can_be_encoded(take, processor):
    from pixelis.data.chat import example_messages

    for record_format, data in RECORDS.items():
        for example in take(data, record_format):
            assert len(Encoder(processor).encode(example_messages(example))) > 0
