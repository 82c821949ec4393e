from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.evaluation.matching import (
    anls,
    answer_key,
    answer_type,
    answers_match,
    call_agrees,
    edit_distance,
    normalise_text,
    parse_box,
    parse_number,
    parse_set,
    score_answer,
)
from tests.evaluation.handmade import make_example, make_step, make_turn


def example_of(truth, *, task="own", **provenance):
    return make_example(truth=truth, task=task, provenance=provenance)


@pytest.mark.parametrize(
    ("truth", "given", "kind"),
    [
        ("3", {}, "exact"),
        ("red", {}, "exact"),
        ("red, blue", {}, "exact"),
        ("{red, blue}", {}, "set"),
        ("[1, 2, 30, 40]", {}, "box"),
        ("[1, 2, 1, 40]", {}, "exact"),
        ("AB", {"task": "text_extraction"}, "text"),
        ("AB", {"answer_type": "text"}, "text"),
        ("red, blue", {"answer_type": "set"}, "set"),
        ("3", {"answer_type": "nonsense"}, "exact"),
    ],
)
def test_the_kind_of_an_answer(truth, given, kind):
    assert answer_type(example_of(truth, **given)) == kind


@pytest.mark.parametrize(
    ("predicted", "truth", "kind", "right", "score"),
    [
        ("3.0", "3", "number", True, 1),
        ("4", "3", "number", False, 0),
        ("Blue, red", "red, blue", "set", True, 1),
        ("{blue; red; red}", "red, blue", "set", True, 1),
        ("2.0, 1", "1, 2", "set", True, 1),
        ("red", "red, blue", "set", False, 0),
        ("red, blue, green", "red, blue", "set", False, 0),
        ("Exit", "exit", "text", True, 1),
        ("exat", "exit", "text", False, 0.75),
        ("entrance", "exit", "text", False, 0),
        ("37.0", "37", "text", False, 0.5 * 0),
        ("[0, 0, 10, 10]", "[0, 0, 10, 10]", "box", True, 1),
        ("[0, 0, 10, 10]", "[0, 0, 10, 20]", "box", True, 0.5),
        ("[0, 0, 10, 10]", "[0, 0, 10, 21]", "box", False, 100 / 210),
        ("[50, 50, 60, 60]", "[0, 0, 10, 10]", "box", False, 0),
        ("a box", "[0, 0, 10, 10]", "box", False, 0),
        (None, "red", "set", False, 0),
    ],
)
def test_right_and_near(predicted, truth, kind, right, score):
    example = example_of(truth, answer_type=kind)
    assert answers_match(predicted, example) is right
    assert score_answer(predicted, example) == pytest.approx(score)


def test_the_best_of_several_truths_counts():
    example = example_of("sofa", alternatives=["couch", 3, "settee"])
    assert answers_match("Couch", example)
    assert not answers_match("3", example)
    text = replace(example, provenance={**example.provenance, "answer_type": "text"})
    assert score_answer("settea", text) == pytest.approx(5 / 6)
    assert answers_match("sofa", example_of("sofa", alternatives="couch"))
    assert not answers_match("couch", example_of("sofa", alternatives="couch"))


@given(st.text(max_size=8), st.text(max_size=8))
def test_edit_distance_is_a_metric(a, b):
    distance = edit_distance(a, b)
    assert distance == edit_distance(b, a)
    assert (distance == 0) == (a == b)
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))


@given(st.text(max_size=8), st.text(max_size=8))
def test_anls_is_what_its_formula_says(a, b):
    a, b = a.casefold(), b.casefold()
    x, y = " ".join(a.split()), " ".join(b.split())
    longer = max(len(x), len(y))
    nearness = 1 - edit_distance(x, y) / longer if longer else 1.0
    found = anls(a, b)
    # Casefolding twice may change a text; where it does, only the range is known.
    if x == x.casefold() and y == y.casefold():
        assert found == pytest.approx(nearness if 1 - nearness < 0.5 else 0.0)
    assert found == 0 or 0.5 < found <= 1


def test_known_distances():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3


def test_parse_box():
    assert parse_box("[1, 2, 3.5, 4]") == (1, 2, 3.5, 4)
    assert parse_box("1, 2, 3, 4") is None


def test_sets_and_keys():
    assert parse_set("") == frozenset()
    assert parse_set("1, 1.0") == frozenset({"1.0"})
    numbers = example_of("3")
    assert answer_key("3.0", numbers) == answer_key(" 3", numbers) != answer_key("4", numbers)
    text = example_of("3", task="text_extraction")
    assert answer_key("3.0", text) != answer_key("3", text)
    one, other = (answer_key(t, example_of("{a, b}")) for t in ("b, a", "{A, b}"))
    assert one == other


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("+3", 3), ("-3.50", -3.5), ("1,000", 1000), ("12,345,678.9", 12345678.9),
     (".5", 0.5), ("-.5", -0.5), ("1e3", 1000), ("2.5E-1", 0.25), ("50 %", 0.5), ("50%", 0.5),
     ("0.7 %", 0.007), (" 7 ", 7)],
)  # fmt: skip
def test_numbers_in_their_usual_forms(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", ".", "%", "three", "3 dogs", "1,00", "1,0000", "1000,000", ",5", "1e", "e3", "1e999", "3.",
     "50 % %", "inf", "nan", "1_000", "0x1", "٣"],
)  # fmt: skip
def test_what_is_no_number(text):
    assert parse_number(text) is None


def test_a_percent_is_a_hundredth():
    half = example_of("0.5", task="object_counting")
    assert answers_match("50 %", half) and not answers_match("50", half)
    whole = example_of("50 %", task="object_counting")
    assert answers_match("50%", whole) and not answers_match("50", whole)
    assert answers_match("1000", example_of("1,000", task="object_counting"))


@pytest.mark.parametrize(
    ("predicted", "truth", "task", "right"),
    [
        ("red", "red", "attribute_recognition", True),
        ("  Red ", "red", "attribute_recognition", True),
        ("red\n circle", "red circle", "geometric_comparison", True),
        ("a red circle", "red circle", "geometric_comparison", False),
        ("red", "red circle", "geometric_comparison", False),
        ("red.", "red", "attribute_recognition", False),
        ("", "red", "attribute_recognition", False),
        (None, "red", "attribute_recognition", False),
        ("3", "3", "object_counting", True),
        ("3.0", "3", "object_counting", True),
        ("+3", "3", "object_counting", True),
        ("03", "3", "object_counting", True),
        (" 3 ", "3", "object_counting", True),
        ("three", "3", "object_counting", False),
        ("3 objects", "3", "object_counting", False),
        ("33", "3", "object_counting", False),
        ("-3", "3", "object_counting", False),
        ("3e0", "3", "object_counting", True),
        ("٣", "3", "object_counting", False),
        ("nan", "nan", "object_counting", True),
        ("AB", "ab", "text_extraction", True),
        ("AB  CD", "AB CD", "text_extraction", True),
        ("CD AB", "AB CD", "text_extraction", False),
        ("ABCD", "AB CD", "text_extraction", False),
        ("37.0", "37", "text_extraction", False),
        ("037", "37", "text_extraction", False),
        ("2.50", "2.5", "a task of one's own", True),
        ("Straße", "STRASSE", "a task of one's own", True),
    ],
)
def test_an_answer_is_right_after_normalisation(predicted, truth, task, right):
    assert answers_match(predicted, make_example(truth=truth, task=task)) is right


@given(st.text())
def test_an_answer_matches_itself(text):
    once = normalise_text(normalise_text(text))
    assert normalise_text(once) == once
    assert answers_match(text, make_example(truth=text))


BOX = [0, 0, 10, 10]
OBJECT = {"area": 9, "bbox": [4, 4, 8, 8]}
POINT = ("SEGMENT_OBJECT_AT", {"x": 4, "y": 4})
READ = ("READ_TEXT", {"bbox": BOX})


@pytest.mark.parametrize(
    ("call", "step", "result", "agrees"),
    [
        (READ, READ, None, True),
        (("READ_TEXT", {"bbox": [0, 0, 10, 20]}), READ, None, True),
        (("READ_TEXT", {"bbox": [0, 0, 10, 21]}), READ, None, False),
        (("GET_PROPERTIES", {"bbox": BOX}), READ, None, False),
        (("READ_TEXT", {"bbox": "all"}), READ, None, False),
        (("READ_TEXT", {}), READ, None, False),
        (("READ_TEXT", [BOX]), READ, None, False),
        (("ZOOM_IN", {"bbox": BOX, "factor": 4}), ("ZOOM_IN", {"bbox": BOX, "factor": 2}), None,
         True),
        (("SEGMENT_OBJECT_AT", {"x": 5, "y": 7}), POINT, OBJECT, True),
        (("SEGMENT_OBJECT_AT", {"x": 8, "y": 7}), POINT, OBJECT, False),
        (("SEGMENT_OBJECT_AT", {"x": "5", "y": 7}), POINT, OBJECT, False),
        (("SEGMENT_OBJECT_AT", {"x": 5, "y": 7}), POINT, {"error": "no object"}, False),
        (("TRACK_OBJECT", {"frames": [1, 2], "bbox": BOX}),
         ("TRACK_OBJECT", {"frames": [1, 2, 3], "bbox": BOX}), None, False),
    ],
)  # fmt: skip
def test_a_call_agrees_with_a_reference_step(call, step, result, agrees):
    turn = make_turn("call", operation=call[0], arguments=call[1], result={"ok": 1})
    assert call_agrees(turn, make_step(*step, result)) is agrees
