import pandas as pd
import pytest

from pixelis.data_prep.rows import COMPONENT
from pixelis.data_prep.summary import WIDTH, format_correlation, format_summary, summarise

FOUND = {"spearman": 0.4131, "p_value": 1.04e-9, "num_samples": 300}


def row(task, sample_type, split, difficulty, score, **components):
    made = {"task": task, "sample_type": sample_type, "split": split, "difficulty": difficulty}
    made["chance"] = 0.2 if task == "count" else 0.5 if difficulty == "hard" else 0.0
    made |= {"answer": "yes" if task == "read" else sample_type, "iou": float("nan")}
    return made | {"score": score} | {COMPONENT + name: part for name, part in components.items()}


ROWS = [
    row("count", "positive", "train", "simple", 0.2, steps=0.1, errors=0.0),
    row("count", "trap_logical", "train", "hard", 0.8, steps=0.5, errors=1.0),
    row("read", "positive", "test", "simple", 0.4, steps=0.3, errors=0.0),
    row("read", "positive", "train", "hard", 0.6, steps=0.7, errors=0.5),
]
THRESHOLDS = {"method": "percentile", "values": {"count": [0.4, None], "read": [0.45, 0.55]}}


@pytest.fixture
def summary():
    return summarise(
        pd.DataFrame(ROWS),
        config={"seed": 3},
        thresholds=THRESHOLDS,
        correlation=FOUND,
        rejected={"too long": 2, "no answer": 1},
        corrupted={"train/hard/answers": 1},
        source={"name": "scenes", "count": 4},
    )


def test_the_whole_summary(summary):
    assert summary == {
        "num_samples": 4,
        "by_split": {"test": 1, "train": 3},
        "by_task": {"count": 2, "read": 2},
        "by_sample_type": {"positive": 3, "trap_logical": 1},
        "by_split_and_difficulty": {"test/simple": 1, "train/hard": 2, "train/simple": 1},
        "by_difficulty_and_task": {
            "hard/count": 1,
            "hard/read": 1,
            "simple/count": 1,
            "simple/read": 1,
        },
        "by_difficulty_and_sample_type": {
            "hard/positive": 1,
            "hard/trap_logical": 1,
            "simple/positive": 2,
        },
        "chance_by_task": {"count": 0.2, "read": 0.25},
        "top_answer_by_task": {
            "count": {"answer": "positive", "share": 0.5},
            "read": {"answer": "yes", "share": 1.0},
        },
        "iou_by_task": {},
        "scores": {
            "simple": {"min": 0.2, "mean": pytest.approx(0.3), "max": 0.4},
            "hard": {"min": 0.6, "mean": pytest.approx(0.7), "max": 0.8},
        },
        "components": {
            "simple": {"errors": 0.0, "steps": pytest.approx(0.2)},
            "hard": {"errors": 0.75, "steps": pytest.approx(0.6)},
        },
        "thresholds": {
            "method": "percentile",
            "values": {"count": [0.4, None], "read": [0.45, 0.55]},
        },
        "rank_correlation": FOUND,
        "rejected": {"no answer": 1, "too long": 2},
        "corrupted": {"train/hard/answers": 1},
        "source": {"count": 4, "name": "scenes"},
        "config": {"seed": 3},
    }


def test_the_console_shows_counts_scores_and_the_correlation(summary):
    lines = format_summary(summary, title="4 examples in data").splitlines()
    assert lines[0].strip() == "4 examples in data"
    cells = {tuple(line.replace("│", " ").split()) for line in lines}
    assert ("simple", "1", "0", "1", "0.20", "0.30", "0.40") in cells
    assert ("medium", "0", "0", "0", "-", "-", "-") in cells
    assert ("count", "2", "1", "0", "1", "20.0", "50.0") in cells
    assert ("trap_logical", "1", "0", "0", "1") in cells
    assert "refused: 2 (too long)" in lines
    assert "corrupted on purpose: 1 of 2 (train/hard/answers)" in lines
    assert lines[-1] == format_correlation(FOUND)
    assert max(map(len, lines)) <= WIDTH


def test_the_agreement_with_annotated_masks_is_told_where_there_is_one():
    facts = pd.DataFrame(ROWS)
    facts["iou"] = [0.75, 0.95, float("nan"), float("nan")]
    others = {"config": {}, "thresholds": {}, "correlation": None, "corrupted": {}, "rejected": {}}
    summary = summarise(facts, source={}, **others)
    assert summary["iou_by_task"] == {"count": {"min": 0.75, "mean": pytest.approx(0.85)}}
    cells = [line.replace("│", " ").split() for line in format_summary(summary).splitlines()]
    assert [each[-1] for each in cells if each[:1] in (["count"], ["read"])] == ["0.85", "–"]


@pytest.mark.parametrize(
    ("scorer", "finer"), [("composite", "multi or model"), ("multi", "model"), ("model", "multi")]
)
def test_what_was_not_made_as_asked_is_told(scorer, finer):
    tasks = [f"task {number:02}" for number in range(30)]
    summary = summarise(
        pd.DataFrame(ROWS),
        config={"difficulty.scorer": scorer},
        thresholds={"undivided": tasks},
        source={"ran_out": {"count": {"planned": 9, "made": 1}}},
        **{"correlation": None, "corrupted": {}, "rejected": {}},
    )
    lines = format_summary(summary).splitlines()
    assert "ran out: count has 1 of 9 planned examples; others have the rest" in lines
    (line,) = (line for line in lines if line.startswith("one difficulty: most examples of "))
    assert line.endswith(
        f" ... have the same score, so all of them are simple; difficulty.scorer {finer} sees more"
    )


def test_names_from_elsewhere_are_shown_as_they_are():
    facts = pd.DataFrame([row("[red]count[/red]", "positive", "train", "simple", 0.5)])
    facts["chance"] = float("nan")
    others = {"config": {}, "thresholds": {}, "source": {}, "correlation": None, "corrupted": {}}
    shown = format_summary(summarise(facts, rejected={"[b] x": 1}, **others))
    assert "not measured" in shown
    (line,) = (line for line in shown.splitlines() if "[red]count[/red]" in line)
    assert line.replace("│", " ").split()[-2:] == ["–", "100.0"]
    assert "refused: 1 ([b] x)" in shown


def test_the_first_rejection_of_each_reason_is_shown():
    facts = pd.DataFrame([row("count", "positive", "train", "simple", 0.5)])
    first = {"no_image": "a.jsonl:3: 'b.png' does not exist in the folder " + "x" * 90}
    others = {"config": {}, "thresholds": {}, "correlation": None, "corrupted": {}}
    source = {"name": "input", "first_rejected": first}
    shown = format_summary(summarise(facts, rejected={"no_image": 2}, source=source, **others))
    assert f"refused: 2 (no_image), first {first['no_image']}\n" in shown


def test_what_became_of_calls_and_tools_stands_below_the_refusals(summary):
    source = {"calls": {"replayed": 7, "disagreed": 2, "not_replayed": 1}, "told": {"[b] x": 3}}
    lines = format_summary(summary | {"source": source}).splitlines()
    at = lines.index("[b] x, records: 3")
    assert lines[at - 1] == "refused: 2 (too long)"
    assert lines[at + 1] == "calls: 7 replayed / 2 disagreed / 1 not replayed"
    none = dict.fromkeys(source["calls"], 0)
    assert "calls:" not in format_summary(summary | {"source": {"calls": none}})


@pytest.mark.parametrize(
    ("correlation", "expected"),
    [
        (FOUND, "Spearman 0.41 (p 1e-09, 300 samples)"),
        (FOUND | {"spearman": None, "p_value": None}, "undefined (300 samples)"),
        (None, "not measured"),
    ],
)
def test_the_line_on_the_correlation(correlation, expected):
    start = "rank correlation of the score with the base model's error: "
    assert format_correlation(correlation) == start + expected
