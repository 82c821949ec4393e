import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pixelis.data.chat import format_call
from pixelis.models.load import load_processor
from recipes.nano.tokenizer import MARKUP, SPECIAL, VOCABULARY, train_tokenizer
from recipes.nano.train import CELL_CLASSES, PLACES


def ids_of(tokenizer, text, special=True):
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=not special)
    return found["input_ids"]


def pieces_of(tokenizer, text):
    return [tokenizer.decode([token]) for token in ids_of(tokenizer, text)]


def test_special_tokens_are_one_id_each_and_markup_is_part_of_what_is_said(tokenizer):
    for token in (*SPECIAL, *MARKUP):
        (number,) = ids_of(tokenizer, token)
        said = tokenizer.decode([number], skip_special_tokens=True)
        # Special tokens are switched off for the texts of an example.
        split = ids_of(tokenizer, token, special=False)
        if token in MARKUP:
            assert said == token and split == [number]
        else:
            assert said == "" and number not in split and tokenizer.decode(split) == token
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_the_vocabulary_is_small_and_whole(tokenizer):
    assert len(tokenizer) <= VOCABULARY
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len({*SPECIAL, *MARKUP} & set(tokenizer.get_vocab())) == len(SPECIAL) + len(MARKUP)


@pytest.mark.parametrize(
    "text",
    ["2024", "[0, 28, 112, 56]", "column 12", "A7K9", "3.14", "ER AP", '{"text": "VW"}', "It, ER."],
)
def test_digits_are_single_tokens_and_capitals_single_symbols(tokenizer, text):
    for piece in pieces_of(tokenizer, text):
        assert not any(c.isdigit() for c in piece) or len(piece) == 1, piece
        assert sum(c.isupper() for c in piece) <= 1, piece


def test_what_is_looked_up_is_one_token_wherever_it_stands(tokenizer):
    text = "Is the red circle in row 2 column 3, above the red circles and the blue cross?"
    pieces = pieces_of(tokenizer, text)
    assert [p for p in pieces if "r" in p and len(p.split()) > 1] == [
        " red circle",
        " row 2 column 3",
        " blue cross",
    ]
    assert pieces_of(tokenizer, "none red circle blue cross none") == [
        "none",
        " red circle",
        " blue cross",
        " none",
    ]


@pytest.fixture(params=["trained here", "embedded"])
def either(request, tokenizer):
    """The tokenizer trained on few texts, and the one that the embedded base has."""
    return (
        tokenizer if request.param == "trained here" else load_processor("pixelis-nano").tokenizer
    )


@pytest.mark.parametrize("words", [CELL_CLASSES, PLACES])
def test_every_name_and_every_place_is_one_token_at_the_start_and_in_a_sentence(either, words):
    starting = [pieces_of(either, word) for word in words]
    assert starting == [[word] for word in words]
    after = [pieces_of(either, f"the {word}, and")[-3:] for word in words]
    assert after == [[f" {word}", ",", " and"] for word in words]


def test_a_list_of_arguments_and_the_box_after_it_are_divided_by_one_token(either):
    call = format_call("TRACK_OBJECT", {"frames": [1, 3], "bbox": [0, 28, 56, 112]})
    pieces = pieces_of(either, call)
    assert pieces[2:7] == [
        '{"name": "TRACK_OBJECT", "arguments": {"frames": [',
        "1",
        ", ",
        "3",
        '], "bbox": [',
    ]
    assert "".join(pieces) == call


@pytest.mark.parametrize(
    ("pair", "places"),
    [
        ("A4", ["It says A4 HK.", "Repeat A4.", '"A4"', "<answer>A4</answer>"]),
        # Else copying a number from a result into a call would be a translation.
        ("56", ["[56, 28]", '{"x": 56}', "(56, 1)", "56"]),
    ],
)
def test_a_symbol_is_the_same_token_wherever_it_stands(tokenizer, pair, places):
    for text in places:
        pieces = pieces_of(tokenizer, text)
        assert pair[0] in pieces and pieces[pieces.index(pair[0]) + 1] == pair[1]


def test_the_scaffolding_of_a_call_is_short(tokenizer):
    call = format_call("SEGMENT_OBJECT_AT", {"x": 70, "y": 42})
    assert len(ids_of(tokenizer, call)) < 0.35 * len(call)


@given(text=st.text())
def test_any_text_comes_back_unchanged(tokenizer, text):
    assert tokenizer.decode(ids_of(tokenizer, text, special=False)) == text


@given(
    parts=st.lists(st.sampled_from([*SPECIAL, *MARKUP, " ", "\n", " 7", "a", "A", '{"', "é"])),
)
def test_any_mixture_of_tokens_comes_back_unchanged(tokenizer, parts):
    text = "".join(parts)
    assert tokenizer.decode(ids_of(tokenizer, text)) == text
    assert tokenizer.decode(ids_of(tokenizer, text, special=False)) == text


def test_its_own_texts_come_back_unchanged(tokenizer, texts):
    for text in texts:
        assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_the_same_texts_train_the_same_tokenizer(tokenizer, texts, template):
    again = train_tokenizer(iter(texts), template)
    assert json.loads(again._tokenizer.to_str()) == json.loads(tokenizer._tokenizer.to_str())


def test_it_is_the_same_after_saving_and_loading(tokenizer, texts, template, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == template
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for text in [*texts[:200], "  two  spaces . and ' marks", "<|im_end|>7"]:
        assert ids_of(loaded, text) == ids_of(tokenizer, text)
        assert loaded.decode(ids_of(loaded, text)) == text
