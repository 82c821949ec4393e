"""Special tokens inside of words stay words: no turn is put in, no token more is learnt."""

import json
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from PIL import Image

from pixelis.data.chat import example_messages
from pixelis.data.coordinates import as_seen, frames_of
from pixelis.data.encode import IGNORE_INDEX, encode_example
from pixelis.data.example import Example, Step
from pixelis.errors import DataError
from tests.evaluation.handmade import run_script
from tests.faults.hostile import LONG, TOKENS, bounded, run_cases

# The model sees one as it is stored, and one resized: there, places in words are mapped.
IMAGES = [Image.new("RGB", size, "white") for size in ((56, 56), (300, 200))]
# What is read as a call, a place or a number of pixels, right and wrong.
PLACES = (
    *('READ_TEXT {"bbox": [0, 0, 9, 9]} -> {"area": 3}', "ZOOM_IN {} -> {", "} -> {}", "\n"),
    *('ZOOM_IN {"bbox": [0, 0, 9, 9], "factor": {"a": 1}} -> {"size": [1, 1]}', " -> "),
    *('GET_PROPERTIES {"x": ' + "[" * 1500 + "]" * 1500 + "} -> {}", "[0, 0, 9, 9]", "(1, 2)"),
    *("by area, a: 7.", "by box area, a: " + "9" * 5000 + ".", "by center x, "),
)
WORDS = st.lists(
    st.sampled_from(TOKENS + PLACES)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    max_size=5,
).map("".join)


@pytest.fixture(params=IMAGES, ids=["as stored", "resized"])
def image(request):
    return request.param


def test_one_image_is_resized(encoder):
    assert [encoder.seen_size(image) == image.size for image in IMAGES] == [True, False]


def make(
    question="?",
    thought="",
    result="",
    conclusion="",
    answer="1",
    supervised=True,
    image=IMAGES[0],
):
    step = Step(
        thought, "READ_TEXT", {"bbox": [0, 0, 9, 9]}, {"text": result}, supervised=supervised
    )
    return Example(
        "e", "imported", "positive", question, (image,), (step,), conclusion, answer, answer
    )


def shape(encoded, encoder):
    """What the template alone may decide: the special tokens in order, and which are learnt.

    The tags of calls and answers are words of the assistant, not special: they open no turn.
    """
    added = encoder.tokenizer.get_added_vocab()
    special = {token for word, token in added.items() if word.startswith("<|")}
    return [
        (token, label != IGNORE_INDEX)
        for token, label in zip(encoded.input_ids, encoded.labels, strict=True)
        if token in special
    ]


def learnt(encoded):
    return [label for label in encoded.labels if label != IGNORE_INDEX]


def check(example, encoder):
    (image,) = example.images
    plain = encode_example(make(supervised=example.trajectory[0].supervised, image=image), encoder)
    try:
        encoded = encode_example(example, encoder)
    except DataError as error:
        assert "a text may not hold U+E000 or U+E001" in str(error)
        words = json.dumps(
            [example.question, example.conclusion, example.answer], ensure_ascii=False
        )
        words += example.trajectory[0].thought
        assert "\ue000" in words or "\ue001" in words
        return
    # As many turns, images and ends as with harmless words, and the same of them learnt.
    assert shape(encoded, encoder) == shape(plain, encoder)
    # What is learnt is what the assistant says, tokenised as mere text, and nothing besides.
    expected = []
    for message in example_messages(as_seen(example, frames_of([image], encoder.seen_size))):
        if message.supervised:
            (text,) = message.parts
            expected += encoder.tokenizer(
                text, add_special_tokens=False, split_special_tokens=True
            )["input_ids"]
            expected.append(encoder.end_of_turn_id)
    assert learnt(encoded) == expected


def test_special_tokens_anywhere(encoder):
    words = [WORDS] * 5
    strategy = st.builds(make, *words, st.booleans(), st.sampled_from(IMAGES))
    run_cases("special tokens", strategy, lambda example: check(example, encoder))


def test_the_tokens_are_special_where_the_template_writes_them(encoder):
    """Else the test above could not fail."""
    ids = encoder.tokenizer("<|im_start|>", add_special_tokens=False)["input_ids"]
    assert len(ids) == 1
    found = [token for token, _ in shape(encode_example(make(), encoder), encoder)]
    assert found.count(ids[0]) == 5  # system, question, call, result, answer


@pytest.mark.parametrize("place", ["question", "thought", "result", "conclusion", "answer"])
@pytest.mark.parametrize("token", TOKENS)
def test_each_token_in_each_place(encoder, place, token, image):
    check(make(**{place: f"before {token} after"}, image=image), encoder)


def test_a_question_of_100_000_characters(encoder, image):
    with bounded():
        check(make(question=LONG, image=image), encoder)
        check(make(question="<|im_end|>" * 10_000, image=image), encoder)
        check(make(question="ZOOM_IN {} -> {" * 6600, image=image), encoder)
        check(make(conclusion="by area, a: " * 9000, image=image), encoder)
    limited = type(encoder)(encoder.processor, max_length=4096)
    with pytest.raises(DataError, match=r"tokens, more than max_length 4096"):
        encode_example(make(question=LONG, image=image), limited)


@pytest.mark.parametrize("token", TOKENS)
def test_a_rollout_s_result_puts_no_turn_in(encoder, token, image):
    """What an operation gives back, here the model's own call in an error, stays text too."""
    call = json.dumps({"name": token, "arguments": {}})
    example = replace(make(question=token, image=image), trajectory=())
    texts = [f"<tool_call>\n{call}\n</tool_call>", "<answer>1</answer>"]
    rollout, appended = run_script(encoder, example, *texts)
    assert rollout.answer == "1"
    starts = encoder.tokenizer("<|im_start|>", add_special_tokens=False)["input_ids"][0]
    # System, user and the assistant's start; then the result and the assistant's next start.
    assert [list(ids).count(starts) for ids, _ in appended] == [3, 2]
