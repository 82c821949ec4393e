"""Summarise a data set for summary.json and for the console: counts, scores, components."""

import io
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from pixelis.data.example import DIFFICULTIES, SPLITS
from pixelis.data_prep.rows import COMPONENT

WIDTH = 100
# Characters of a list of tasks; an import may have many.
LISTED = 60
# Name of a table in the summary -> the keys by which its examples are grouped.
COUNTS = {
    "by_split": ("split",),
    "by_task": ("task",),
    "by_sample_type": ("sample_type",),
    "by_split_and_difficulty": ("split", "difficulty"),
    "by_difficulty_and_task": ("difficulty", "task"),
    "by_difficulty_and_sample_type": ("difficulty", "sample_type"),
}


def summarise(
    facts: pd.DataFrame,
    *,
    config: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    correlation: Mapping[str, Any] | None,
    rejected: Mapping[str, int],
    corrupted: Mapping[str, int],
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Summarise counts, chance levels, score ranges, mean components and thresholds.

    `chance_by_task` is the mean chance level of each task's examples, null if one has none.
    `top_answer_by_task` has each task's most common answer and its share of the examples;
    `iou_by_task` the least and the mean IoU of the annotated masks with what operations measured,
    for the tasks that have it.

    Args:
        facts: a facts table (see `pixelis.data_prep.rows.facts_of`) with the column `difficulty`.
        config: the configuration with dotted keys.
        thresholds: `method` and `values`: by task, or for `all` tasks, the two cuts of the score.
        correlation: the result of `correlate`; None if it was not computed.
        rejected: reason -> number of rejected records.
        corrupted: split, difficulty and kind -> number of examples that were broken on purpose.
        source: the description of the source.
    """
    components = sorted(name for name in facts if name.startswith(COMPONENT))
    groups = dict(list(facts.groupby("difficulty")))
    present = {name: groups[name] for name in DIFFICULTIES if name in groups}
    return {
        "num_samples": len(facts),
        **{name: _count(facts, keys) for name, keys in COUNTS.items()},
        "chance_by_task": {
            task: None if chances.isna().any() else _mean(chances)
            for task, chances in facts.groupby("task")["chance"]
        },
        "top_answer_by_task": {
            task: _find_top(answers.tolist()) for task, answers in facts.groupby("task")["answer"]
        },
        "iou_by_task": {
            task: {"min": float(ious.min()), "mean": _mean(ious)}
            for task, ious in facts.dropna(subset="iou").groupby("task")["iou"]
        },
        "scores": {
            name: {
                "min": float(group["score"].min()),
                "mean": _mean(group["score"]),
                "max": float(group["score"].max()),
            }
            for name, group in present.items()
        },
        "components": {
            name: {part.removeprefix(COMPONENT): _mean(group[part]) for part in components}
            for name, group in present.items()
        },
        "thresholds": dict(sorted(thresholds.items())),
        "rank_correlation": correlation,
        "rejected": dict(sorted(rejected.items())),
        "corrupted": dict(sorted(corrupted.items())),
        "source": dict(sorted(source.items())),
        "config": config,
    }


def _count(facts: pd.DataFrame, keys: Sequence[str]) -> dict[str, int]:
    columns = (facts[key] for key in keys)
    return dict(sorted(Counter(map("/".join, zip(*columns, strict=True))).items()))


def _find_top(answers: Sequence[str]) -> dict[str, Any]:
    ((answer, count),) = Counter(answers).most_common(1)
    return {"answer": answer, "share": count / len(answers)}


def _mean(values: pd.Series) -> float:
    # Python's own sum adds in the rows' order, so every machine rounds alike.
    return float(sum(values.tolist()) / len(values))


def format_correlation(correlation: Mapping[str, Any] | None) -> str:
    """Return one line about the correlation of the score with the base model's error."""
    label = "rank correlation of the score with the base model's error"
    if correlation is None:
        return f"{label}: not measured"
    samples = f"{correlation['num_samples']} samples"
    if correlation["spearman"] is None:
        return f"{label}: undefined ({samples})"
    p_value = f"p {correlation['p_value']:.2g}"
    line = f"{label}: Spearman {correlation['spearman']:.2f} ({p_value}, {samples})"
    within = [value for value in correlation.get("by_task", {}).values() if value is not None]
    if within:
        line += f"; within a task {min(within):.2f} to {max(within):.2f}"
    return line


def format_summary(summary: Mapping[str, Any], *, title: str = "") -> str:
    """Format the summary for a console of WIDTH columns."""
    title = title or f"{summary['num_samples']} examples"
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False)
    table = _table(title, "difficulty", (*SPLITS, "score from", "mean", "to"))
    by_split = summary["by_split_and_difficulty"]
    for difficulty in DIFFICULTIES:
        scores = summary["scores"].get(difficulty)
        span = [f"{scores[key]:.2f}" for key in ("min", "mean", "max")] if scores else ["-"] * 3
        counts = [str(by_split.get(f"{split}/{difficulty}", 0)) for split in SPLITS]
        table.add_row(difficulty, *counts, *span)
    console.print(table)
    chances = {
        task: "–" if chance is None else f"{100 * chance:.1f}"
        for task, chance in summary["chance_by_task"].items()
    }
    tops = {
        task: f"{100 * top['share']:.1f}" for task, top in summary["top_answer_by_task"].items()
    }
    by_task = {"chance %": chances, "top answer %": tops}
    if ious := summary["iou_by_task"]:
        by_task["IoU"] = {
            task: f"{ious[task]['mean']:.2f}" if task in ious else "–" for task in chances
        }
    for heading, name, last in (
        ("task", "task", by_task),
        ("sample type", "sample_type", {}),
    ):
        table = _table("", heading, ("examples", *DIFFICULTIES, *last))
        by_difficulty = summary[f"by_difficulty_and_{name}"]
        for kind, count in summary[f"by_{name}"].items():
            counts = [str(by_difficulty.get(f"{each}/{kind}", 0)) for each in DIFFICULTIES]
            table.add_row(kind, str(count), *counts, *(cells[kind] for cells in last.values()))
        console.print(table)
    for line in _warnings(summary):
        console.print(line, soft_wrap=True)
    first = summary["source"].get("first_rejected", {})
    for reason, count in summary["rejected"].items():
        shown = f", first {first[reason]}" if reason in first else ""
        console.print(f"refused: {count} ({reason}){shown}", soft_wrap=True)
    for text, count in summary["source"].get("told", {}).items():
        console.print(f"{text}, records: {count}", soft_wrap=True)
    calls = summary["source"].get("calls", {})
    if any(calls.values()):
        numbers = (f"{count} {word.replace('_', ' ')}" for word, count in calls.items())
        console.print(f"calls: {' / '.join(numbers)}")
    for name, count in summary["corrupted"].items():
        num = by_split.get(name.rpartition("/")[0], 0)
        console.print(f"corrupted on purpose: {count} of {num} ({name})")
    console.print(format_correlation(summary["rank_correlation"]), soft_wrap=True)
    return out.getvalue()


def _warnings(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was not made as asked: difficulties that are one, what ran out."""
    if undivided := summary["thresholds"].get("undivided"):
        tasks = textwrap.shorten(", ".join(undivided), LISTED, placeholder=" ...")
        used = summary["config"].get("difficulty.scorer")
        finer = " or ".join(name for name in ("multi", "model") if name != used)
        yield (
            f"one difficulty: most examples of {tasks} have the same score, so all of them are "
            f"{DIFFICULTIES[0]}; difficulty.scorer {finer} sees more"
        )
    for name, counts in summary["source"].get("ran_out", {}).items():
        yield (
            f"ran out: {name} has {counts['made']} of {counts['planned']} planned examples; "
            "others have the rest"
        )


def _table(title: str, heading: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(heading)
    for column in columns:
        table.add_column(column, justify="right")
    return table
