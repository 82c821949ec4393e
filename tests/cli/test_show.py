"""show as a user meets it."""

import json
import re
from pathlib import Path

import pytest

from pixelis.cli.arguments import run_cli
from pixelis.cli.show import main
from pixelis.data.example import DIFFICULTIES


def headings(out):
    """Difficulty, task and split of each example."""
    pattern = r"(?m)^(\w+) · (\w+) · \w+ · score \d\.\d\d · (\w+) · \w+ · .* pixels$"
    return re.findall(pattern, out)


def test_examples_are_printed_and_written_to_a_page(data, capsys):
    assert run_cli(main, ["data"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("6 of 80 examples in data\n") and out.endswith("outputs/show.html\n")
    shown = headings(out)
    assert [difficulty for difficulty, _, _ in shown] == [*DIFFICULTIES] * 2
    assert {task for _, task, _ in shown} == {"attribute_recognition", "text_extraction"}
    assert out.count("\n     answer: ") == 6 and "\n     → " in out
    page = Path("outputs/show.html").read_text()
    assert page.count("<article") == 6 and "every difficulty, task and split" in page


def test_a_choice_of_examples(data, capsys):
    words = ("--difficulty", "hard", "--task", "text_extraction", "--split", "train")
    assert run_cli(main, ["data", *words, "--num", "1000", "--page", "x/y.html"]) == 0
    out = capsys.readouterr().out
    shown = headings(out)
    assert set(shown) == {("hard", "text_extraction", "train")}
    assert out.startswith(f"{len(shown)} of {len(shown)} examples")
    page = Path("x/y.html").read_text()
    assert page.count("<article") == len(shown)
    assert "hard, text_extraction, train" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "data folder nowhere does not exist; make it with data-prep"),
        (("data", "--difficulty", "harder"), "argument --difficulty: invalid choice: 'harder' ("),
        (
            ("data", "--task", "text_extractio"),
            "task must be one of attribute_recognition, text_extraction, got 'text_extractio' "
            "(did you mean 'text_extraction'?)",
        ),
        (("data", "--num", "0"), "num must be >= 1, got 0"),
        (("data", "--page", "data/summary.json/x.html"), "data/summary.json"),
    ],
)
def test_bad_input(data, refused, words, message):
    assert message in refused(main, words)


def test_a_difficulty_without_examples(hard_data, refused):
    message = refused(main, ["data", "--difficulty", "simple", "--split", "test"])
    assert message == "data has no simple examples in the test split"


def test_the_page_is_a_file_that_cannot_be_written(data, capsys):
    Path("taken").mkdir()
    assert run_cli(main, ["data", "--num", "1", "--page", "taken"]) == 2
    assert capsys.readouterr().err.startswith("error: taken: ")
    assert list(Path().glob(".taken*")) == []
    assert json.loads(Path("data/summary.json").read_text())
