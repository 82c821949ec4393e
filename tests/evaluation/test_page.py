"""The report: its content, that hostile texts are escaped, that it stays small."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from pixelis.evaluation.page import report_page
from tests.evaluation.rollouts import answer, call, example, noise, result, rollout

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7*7 }}\x00\u202e'


class Reader(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def make(evaluated, **more):
    return report_page(evaluated, **({"title": "T", "about": {}, "limit": 60, "seed": 0} | more))


@pytest.fixture
def evaluated():
    """Four examples: one lost, one both wrong, two that are right."""
    examples = [example(f"e{i}", provenance={"num_options": 4}) for i in range(4)]
    crop = Image.new("RGB", (20, 20), "red")
    bad = [
        call("ZOOM_IN", {"bbox": [60, 50, 90, 70], "factor": 1}, {"size": [30, 20]}, crop),
        call(arguments={"bbox": [1, 1, 5, 5]}, result={"error": "no text there"}),
        answer("B2"),
    ]
    good = [call(), answer("A9")]
    mine = [
        rollout(*turns, example_id=f"e{i}") for i, turns in enumerate([bad, [noise()], good, good])
    ]
    base = [
        rollout(*turns, example_id=f"e{i}")
        for i, turns in enumerate([good, bad, [answer("B2")], good])
    ]
    return result(examples, mine, base)


def test_numbers_then_trajectories_worst_first(evaluated):
    read = Reader(make(evaluated, title="Evaluation of x", about={"base": "nano"}))
    assert "Evaluation of x" in read.text and "base: nano" in read.text
    assert len(read.all("line")) == 3 and "Chance (dashed)" in read.text  # of the chance alone
    assert [card["data-verdict"] for card in read.all("article")] == [
        *("lost", "wrong", "gained", "right"),
    ]
    for words in (
        "the adapter is wrong where the base is right",
        "What does the sign say?",
        "It answered “B2”, the truth is “A9”. "
        "It did not look at R1 of the reference.",
        'ZOOM_IN(bbox=[60, 50, 90, 70], factor=1)',
        "error: no text there",
        "how the reference solves it",
        "what the base did",
        "only base right: 1",
        "4 of 4 examples are here",
    ):  # fmt: skip
        assert words in read.text, words
    rows = re.findall(r"<tr class=\"(\w+)\"><td>([^<]+)</td>", make(evaluated))
    assert rows == [("group", "simple"), ("all", "all"), ("task", "text_extraction")]


def test_the_grid_of_difficulty_and_task_names_a_significant_loss(many):
    # The adapter answers all simple examples right, and the base all hard ones.
    hard = [example(f"h{i}", difficulty="hard") for i in range(12)]
    good, bad = (call(), answer("A9")), (answer("B2"),)
    mine = [*many.adapter.rollouts, *(rollout(*bad, example_id=e.id) for e in hard)]
    base = [*many.base.rollouts, *(rollout(*good, example_id=e.id) for e in hard)]
    read = Reader(make(result([*many.examples, *hard], mine, base)))
    _, _, after = read.text.partition("Difficulty and task, worst first")
    loss = "Significant loss on hard/text_extraction: 100.0 -> 0.0 % of 12 examples"
    assert after.startswith(f" {loss} (p <0.001 with Holm's correction for 2 cells)")
    assert "hard/text_extraction 12 100.0 [75, 100] 0.0 [0, 25] -100.0 [-100, -51] 0 / 12" in after
    assert after.index("hard/text_extraction 12") < after.index("simple/text_extraction 12")
    assert "Holm's correction for 2 cells." in after
    alone = Reader(make(result(many.examples, many.adapter.rollouts)))
    assert "simple/text_extraction 12 100.0 [75, 100]" in alone.text and "Holm" not in alone.text


def test_each_kind_of_failure_is_a_row(evaluated):
    mine = [*evaluated.adapter.rollouts]
    mine[3] = replace(mine[3], turns=(replace(call(), failure="repeated_call"), answer("A9")))
    read = Reader(make(result(evaluated.examples, mine, evaluated.base.rollouts)))
    assert "repeated call 0.0 – 25.0 – " in read.text
    assert "cut off 0.0 – 0.0 – " in read.text


def test_without_a_base_it_is_not_mentioned(evaluated):
    alone = Reader(make(result(evaluated.examples, evaluated.adapter.rollouts)))
    assert {card["data-verdict"] for card in alone.all("article")} == {"wrong", "right"}
    assert "base %" not in alone.text and "what the base did" not in alone.text


def test_gains_over_base_and_second_adapter(evaluated):
    examples, mine = evaluated.examples, evaluated.adapter.rollouts
    second = [*mine[:3], rollout(answer("B2"), example_id="e3")]
    read = Reader(make(result(examples, mine, evaluated.base.rollouts, second)))
    heads = "n base % against % adapter % gain in points won / lost p gain over against won / lost"
    assert f"{heads} p chance % 0 to 100 %" in read.text
    # Against the base one is won and one lost; against the second adapter one is won.
    row = re.search(r"all 4 (.*?) text_extraction", read.text)[1]
    assert "+0.0 – 1 / 1 1.000 +25.0 – 1 / 0 1.000 25.0" in row
    assert "McNemar's exact test" in read.text and "not corrected" in read.text
    assert "Bars from above: base, against, adapter" in read.text


@pytest.fixture
def many():
    """Twelve examples, of which the adapter answers all right and the base none."""
    examples = [example(f"e{i}") for i in range(12)]
    mine = [rollout(call(), answer("A9"), example_id=e.id) for e in examples]
    return result(examples, mine, [rollout(answer("B2"), example_id=e.id) for e in examples])


def test_ten_examples_have_intervals_and_fewer_have_a_dash(evaluated, many):
    read = Reader(make(many))
    row = re.search(r"all 12 (.*?) text_extraction", read.text)[1]
    assert row == "0.0 [0, 25] 100.0 [75, 100] +100.0 [+51, +100] 12 / 0 <0.001 –"
    assert "valid call rate 12 100.0 [75, 100]" in read.text
    assert len(read.all("line")) == 3 * 2
    assert [cell["class"] for cell in read.all("td") if "up" in cell.get("class", "")]
    assert "– instead with fewer than 10 examples" in read.text
    read = Reader(make(evaluated))
    assert "all 4 50.0 – 50.0 – +0.0 – 1 / 1 1.000 25.0" in read.text
    assert re.search(r"valid call rate \d [\d.]+ – [\d.]+ –", read.text)
    assert not [cell for cell in read.all("td") if "up" in cell.get("class", "")]
    assert read.text.count("well formed call rate") == 2  # of all, and of the only difficulty


def test_hostile_texts_are_escaped():
    bad = example(
        HOSTILE, truth=HOSTILE, task=HOSTILE, difficulty=HOSTILE, question=HOSTILE
    )  # fmt: skip
    turns = [
        call(HOSTILE, {HOSTILE: HOSTILE}, {"error": HOSTILE}, text=HOSTILE),
        call(arguments=HOSTILE, result={HOSTILE: HOSTILE}),
        noise(HOSTILE),
        answer(HOSTILE + "!"),
    ]
    hostile = result(
        [bad], [rollout(*turns, example_id=HOSTILE)], [rollout(answer(HOSTILE), example_id=HOSTILE)]
    )
    made = make(hostile, title=HOSTILE, about={HOSTILE: HOSTILE})
    read = Reader(made)
    assert len(read.all("script")) == 1
    tags = "html head meta title style body h1 h2 p span div table tr th td small svg rect line "
    tags += "button select option article figure figcaption img b strong ol li code details "
    assert {name for name, _ in read.tags} <= {*tags.split(), "summary", "script"}
    attributes = {key for _, values in read.tags for key in values}
    assert not {key for key in attributes if key.startswith("on")}
    assert {image["src"][:16] for image in read.all("img")} == {"data:image/webp;"}
    assert "{{ 7*7 }}" in read.text and "49" not in read.text


def test_the_page_loads_nothing_and_runs_one_script(evaluated):
    made = make(evaluated)
    policy = next(m["content"] for m in Reader(made).all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]
    assert re.findall(r"(?:src|href)=\"(?!data:)", made) == []
    assert "http" not in made.replace("http-equiv", "")


def test_long_lists_texts_and_rollouts_and_large_images_are_cut(evaluated):
    read = Reader(make(evaluated, limit=2))
    assert len(read.all("article")) == 2 and "2 of 4 examples are here" in read.text
    turns = [*[noise("word " * 5000)] * 40, answer("B2")]
    made = make(result([example(question="why " * 5000)], [rollout(*turns)]))
    assert len(made) < 60_000
    assert "and 29 more turns" in Reader(made).text
    large = Image.effect_noise((3000, 2000), 80).convert("RGB")
    made = make(result([example(images=(large,))], [rollout(call(), answer("B2"))]))
    assert len(made) < 200_000
