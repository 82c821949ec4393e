"""Acts as lines for a console, and the page of examples."""

from dataclasses import replace

from PIL import Image

from pixelis.evaluation.cards import build_act, example_acts, examples_page, shorten, turn_acts
from tests.evaluation.handmade import make_step
from tests.evaluation.rollouts import answer, call, example, noise
from tests.evaluation.test_page import HOSTILE, Reader


def test_values_are_short_and_on_one_line():
    assert shorten("a\n b\tc") == "a b c"
    assert shorten({"b": [1, "é"]}) == '{"b": [1, "é"]}'
    assert len(shorten("x" * 100)) == 60


def test_turns_as_lines():
    looked, said = turn_acts([call(result={"text": "A9", "n": 1}), answer("A9")])
    assert looked.as_text() == (
        "  1  Look.\n     READ_TEXT(bbox=[10, 10, 30, 30])\n     → text: A9, n: 1"
    )
    assert said.as_text() == "  2  So it is.\n     answer: A9"
    (lost,) = turn_acts([noise("what?\nhm")])
    assert lost.as_text() == "  1  what?\n     hm"
    act = build_act("12", "", "READ_TEXT", [1], {"error": "no text there"})
    assert act.as_text() == " 12  READ_TEXT([1])\n     → error: no text there" and act.failed


def test_an_example_ends_with_its_conclusion_and_says_which_step_is_planted():
    steps = (
        make_step("READ_TEXT", {"bbox": [0, 0, 9, 9]}, {"error": "no text"}, supervised=False),
        make_step("READ_TEXT", {"bbox": [10, 10, 30, 30]}, {"text": "A9"}, thought="There."),
    )
    first, second, last = example_acts(example(trajectory=steps))
    assert "planted error: no loss" in first.thought and first.failed
    assert (second.thought, second.result) == ("There.", "text: A9")
    assert (last.number, last.thought, last.answer) == ("3", "The sign says A9.", "A9")


def test_a_page_has_a_card_for_each_example_with_its_images():
    crop = Image.new("RGB", (20, 20), "red")
    zoom = replace(make_step("ZOOM_IN", {"bbox": [1, 1, 9, 9]}, {"size": [20, 20]}), image=crop)
    frames = tuple(Image.new("RGB", (60, 40)) for _ in range(6))
    shown = [example(trajectory=(zoom,)), example("f", images=frames, difficulty="hard")]
    made = examples_page(shown, title="T", about="hard, test")
    read = Reader(made)
    assert len(read.all("article")) == 2 and len(read.all("img")) == 1 + 1 + 4
    for words in (
        *("T", "hard, test", "hard · text_extraction · positive · score 0.00 · f"),
        *("What does the sign say?", "ZOOM_IN(bbox=[1, 1, 9, 9])", "answer: A9", "frame 6 of 6"),
    ):
        assert words in read.text, words
    assert {image["src"][:16] for image in read.all("img")} == {"data:image/webp;"}
    policy = next(meta["content"] for meta in read.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:") and "script" not in policy


def test_hostile_texts_are_escaped():
    names = ("example_id", "truth", "task", "difficulty", "question", "conclusion")
    made = examples_page(
        [example(**dict.fromkeys(names, HOSTILE))], title=HOSTILE, about=HOSTILE
    )  # fmt: skip
    read = Reader(made)
    assert read.all("script") == [] and len(read.all("img")) == 1
    assert "{{ 7*7 }}" in read.text and "49" not in read.text
