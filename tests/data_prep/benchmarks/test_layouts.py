"""Records of each layout, and what the papers' scores make of answers to them."""

import pytest

from pixelis.data_prep.benchmarks import LAYOUTS, read_questions
from pixelis.data_prep.importing import FORMATS, Record, RejectedError, convert
from pixelis.evaluation.matching import answers_match, score_answer
from tests.data_prep.benchmarks.conftest import INFOGRAPHIC, TALLY, VSTAR


def read(path, name, **more):
    settings = {"images": None, "samples_per_group": 100, "max_rejected": 0.0, "seed": 0} | more
    return read_questions(path, record_format=name, **settings)


def test_a_layout_has_a_name_of_its_own():
    assert not LAYOUTS.keys() & FORMATS.keys()


def test_vstar(vstar):
    found = read(vstar, "vstar")
    assert (found.title, found.num_records, found.rejections) == ("V*Bench", 3, ())
    assert [(e.id, e.difficulty, e.task) for e in sorted(found.examples, key=lambda e: e.id)] == [
        ("direct_attributes/0", "direct_attributes", "vstar"),
        ("direct_attributes/1", "direct_attributes", "vstar"),
        ("relative_position/2", "relative_position", "vstar"),
    ]
    (first,) = [e for e in found.examples if e.id == "direct_attributes/0"]
    assert first.provenance["num_options"] == VSTAR[0]["text"].count("\n(")
    assert first.question == VSTAR[0]["text"] and first.images[0].size == (40, 30)


@pytest.mark.parametrize(
    "said",
    [
        *("B", "b", "(B)", "B.", "(B) blue", "B. Blue", "blue", "Blue.", "B, blue", "B, blue."),
        *("The answer is B", "The answer is B.", "the answer is (B) blue", "Option B", "Answer: B"),
        *("The answer is option B.", "The answer is: blue", "B)", "(B), blue", "option (B)"),
    ],
)
def test_vstar_takes_the_letter_or_the_words(vstar, said):
    (first,) = [e for e in read(vstar, "vstar").examples if e.id == "direct_attributes/0"]
    assert answers_match(said, first)


@pytest.mark.parametrize(
    "said",
    [
        "A",
        "(A)",
        "red",
        "Blue-green",
        "(C) blue",
        "the glove is blue",
        *("The answer is A", "A, blue", "B, red", "Option", "B or C", "A B", "not B"),
    ],
)
def test_vstar_takes_no_other_option(vstar, said):
    (first,) = [e for e in read(vstar, "vstar").examples if e.id == "direct_attributes/0"]
    assert not answers_match(said, first)


def test_vstar_ids_that_begin_again_in_a_group_are_apart():
    for group in ("direct_attributes", "relative_position"):
        data = VSTAR[0] | {"category": group, "question_id": 0}
        assert LAYOUTS["vstar"].read(data).record["id"] == f"{group}/0"
    assert LAYOUTS["vstar"].read(VSTAR[0] | {"question_id": None}).record["id"] is None


def test_vstar_words_that_two_options_share_are_no_answer():
    data = VSTAR[0] | {"text": "Which?\n(A) red\n(B) Red", "label": "A"}
    forms = LAYOUTS["vstar"].read(data).alternatives
    assert "red" not in forms and "(A) red" in forms


def test_vstar_options_in_a_list_are_asked():
    data = VSTAR[0] | {"text": "Which colour?", "options": ["red", "blue"], "label": "B"}
    question = LAYOUTS["vstar"].read(data)
    assert question.record["question"].startswith("Which colour?\n(A) red\n(B) blue\n")
    assert question.record["answer"] == "B" and "blue" in question.alternatives


def test_infographicvqa(infographicvqa):
    images = infographicvqa / "infographicsVQA_images"
    found = read(infographicvqa, "infographicvqa", images=images)
    assert [(e.id, e.difficulty) for e in found.examples] == [
        ("98314", "multi span"),
        ("98313", "single span"),
    ]
    first = found.examples[0]
    assert score_answer(" PINTEREST ", first) == 1
    assert score_answer("pinterest inc", first) == 1  # the best of the answers
    assert score_answer("pinteres", first) == pytest.approx(8 / 9)
    assert score_answer("pint", first) == 0  # half of it or more is missing
    assert LAYOUTS["infographicvqa"].score_name == "ANLS"


def test_infographicvqa_without_question_types_is_one_group():
    data = {k: v for k, v in INFOGRAPHIC["data"][0].items() if k != "answer_type"}
    assert LAYOUTS["infographicvqa"].read(data).group == "questions"


def test_tallyqa(tallyqa):
    found = read(tallyqa, "tallyqa")
    assert sorted((e.id, e.difficulty, e.ground_truth) for e in found.examples) == [
        ("30000", "simple", "4"),
        ("30001", "complex", "0"),
        ("30002", "complex", "17"),
    ]
    four = next(e for e in found.examples if e.id == "30000")
    assert [answers_match(said, four) for said in ("4", "4.0", "Four", "5", "3 or 4")] == [
        *(True, True, True, False, False),
    ]


@pytest.mark.parametrize(
    ("layout", "changed", "reason", "detail"),
    [
        ("vstar", {"label": "E"}, "no_answer", "label must be one of A, B, C, D, got 'E'"),
        ("vstar", {"label": None}, "no_answer", "label must be one of A, B, C, D, got"),
        ("vstar", {"text": "What?"}, "wrong_type", "text must hold two options (A), (B), got"),
        ("vstar", {"text": " "}, "wrong_type", "text must hold two options (A), (B), got"),
        ("vstar", {"options": "red"}, "wrong_type", "options must be a list of 2 to 10, got 'red'"),
        ("vstar", {"image": None}, "no_image", "image must be a path, got None"),
        ("vstar", {"image": {"bytes": "x"}}, "no_image", "image must be a path, got {"),
        ("infographicvqa", {"answers": []}, "no_answer", "the question has no answer: 'Which"),
        ("infographicvqa", {"answers": "x"}, "wrong_type", "answers must be a list, got 'x'"),
        ("infographicvqa", {"answers": [[]]}, "wrong_type", "an answer must be a text or a number"),
        ("infographicvqa", {"question": 3}, "wrong_type", "question must be a text, got 3"),
        ("infographicvqa", {"question": "a\x00b"}, "characters", "question may not hold control"),
        ("tallyqa", {"answer": None}, "no_answer", "answer must be a whole number"),
        ("tallyqa", {"answer": -1}, "no_answer", "answer must be a whole number, not below 0"),
        ("tallyqa", {"answer": True}, "no_answer", "answer must be a whole number"),
        ("tallyqa", {"answer": "4"}, "no_answer", "answer must be a whole number"),
        ("tallyqa", {"issimple": 1}, "wrong_type", "issimple must be true or false, got 1"),
        ("tallyqa", {"question_id": [1]}, "wrong_type", "id must be a text or a whole number"),
    ],
)
def test_what_breaks_a_rule(vstar, layout, changed, reason, detail):
    whole = {"vstar": VSTAR[0], "infographicvqa": INFOGRAPHIC["data"][0], "tallyqa": TALLY[0]}
    with pytest.raises(RejectedError) as caught:
        record = LAYOUTS[layout].read(whole[layout] | changed).record
        record |= {"image": VSTAR[0]["image"]}
        convert(Record("x", 1, record), folder=vstar, record_format="cota")
    assert caught.value.reason == reason
    assert caught.value.detail.startswith(detail)


@pytest.mark.parametrize(
    ("category", "group"),
    [("a/b:c", "a-b-c"), ("  x\n y ", "x y"), ("All", "other"), ("", "other"), (7, "other"),
     ("é" * 99, "é" * 60), ("///", "other")],
)  # fmt: skip
def test_a_group_has_a_name_that_metrics_can_have(category, group):
    assert LAYOUTS["vstar"].read(VSTAR[0] | {"category": category}).group == group
