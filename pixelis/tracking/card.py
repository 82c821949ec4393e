"""A model card for an adapter: base, data, curriculum, events, results."""

import json
from collections.abc import Mapping
from typing import Any


def build_card(fields: Mapping[str, Any], measured: Mapping[str, float]) -> str:
    """Markdown with the front matter that hubs read.

    Args:
        fields: Of `adapters.model_fields`, its `origin` given.
        measured: The adapter's metrics at its step.
    """
    origin = fields["origin"]
    base = json.dumps(origin["base_model"])  # a quoted scalar of YAML as well
    front = ["---", f"base_model: {base}", "library_name: peft", "tags: [lora, pixelis]", "---"]
    lines = [
        *front,
        "",
        f"# Adapter `{fields['name']}`, after step {fields['step']}",
        "",
        f"A LoRA adapter for `{origin['base_model']}`, trained on a curriculum of chain-of-thought-"
        f"and-action data by Pixelis (seed {origin['seed']}). It holds no base weights.",
        "",
        "```python",
        "PeftModel.from_pretrained(base, folder)   # this folder, on the base above",
        "```",
        "",
        "Served where Pixelis is installed: `mlflow models serve --env-manager local -m` and the "
        "model's address.",
        "",
        "## Data",
        "",
        origin["data"],
        "",
    ]
    lines += _table("Measured on the validation split", "metric", measured)
    lines += _table("Results on the test split", "answer accuracy", fields["results"])
    if fields["events"]:
        lines += ["## Events", "", "| step | event | stage | delta | reason |"]
        lines += ["| --- | --- | --- | --- | --- |", *map(_event_row, fields["events"]), ""]
    lines += ["## Curriculum", "", "```yaml", origin["curriculum"].rstrip(), "```", ""]
    return "\n".join(lines)


def _table(title: str, head: str, values: Mapping[str, float]) -> list[str]:
    if not values:
        return []
    rows = [f"| {key} | {value:.4f} |" for key, value in values.items()]
    return [f"## {title}", "", f"| {head} | value |", "| --- | --- |", *rows, ""]


def _event_row(event: Mapping[str, Any]) -> str:
    delta = "" if event["delta"] is None else f"{event['delta']:+.4f}"
    cells = (event["step"], event["kind"], event["to_stage"], delta, event["reason"] or "")
    return f"| {' | '.join(map(str, cells))} |"
