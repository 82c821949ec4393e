"""Print a plan as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from pixelis.planning.data import sum_examples
from pixelis.planning.plan import CONTEXT_GIB, FRAGMENTATION, GIB, Plan

MIB = 2**20
PARTS = {
    "weights": "base weights",
    "adapter": "adapter (fp32)",
    "gradients": "its gradients",
    "optimizer": "its optimiser state (AdamW, two moments)",
    "inputs": "the batch: ids, positions, images",
    "activations": "activations that the layers keep for backward",
    "working": "above them at the peak: logits and loss, or a layer computed again",
}


def print_plan(plan: Plan) -> None:
    """Print all tables and, as the last line, whether the training fits."""
    console = Console(width=120)
    share = plan.trainable / plan.parameters
    rows = [
        ("parameters, adapter included", f"{plan.parameters:,}"),
        ("trained", f"{plan.trainable:,} ({share:.2%})"),
        ("adapted layers", ", ".join(f"{k} x {n}" for k, n in plan.targets.items())),
    ]
    console.print(_table(["", ""], rows, title=plan.model_name))
    console.print(
        f"{plan.max_steps:,} steps of {plan.examples_per_step} examples; {plan.stages_note}"
    )
    console.print(_stages(plan))
    setup, number = plan.setup, plan.num_gpus
    console.print(
        f"memory of {'one' if number == 1 else f'each of {number}'} GPU: {setup.batch_size} "
        f"examples of {setup.length:,} tokens, the longest allowed, "
        f"{'with' if setup.model.gradient_checkpointing else 'without'} gradient checkpointing"
    )
    overhead = f"CUDA context ({CONTEXT_GIB:g} GiB) and the allocator's loss ({FRAGMENTATION:.0%})"
    rows = [(text, size(getattr(plan.memory, name))) for name, text in PARTS.items()]
    rows += [(f"{overhead}: assumed", size(plan.overhead))]
    rows += [("all", size(plan.total)), ("there", size(plan.gpu_bytes))]
    console.print(_table(["part", "size"], rows))
    if plan.advice:
        before = [plan.total, *(each.total for each in plan.advice)]
        changes = [
            (each.change, size(max(0, old - each.total)), size(each.total))
            for old, each in zip(before, plan.advice, strict=False)
        ]
        title = "what to change, each on top of those before"
        console.print(_table(["change", "saves", "then"], changes, title=title))
    kind = "on average" if plan.tokens_known else "at most (max_length; no data to look at)"
    console.print(f"tokens of an example: {plan.tokens_per_example:,.0f} {kind}; {_hours(plan)}")
    console.print(verdict(plan))


def verdict(plan: Plan) -> str:
    """Return the line with the verdict: whether the training fits."""
    sizes = f"{size(plan.total)} of {size(plan.gpu_bytes)} on each GPU"
    if plan.fits:
        return f"fits: {sizes}"
    if plan.advice and plan.advice[-1].fits:
        return f"does not fit: {sizes}; with the changes above it does"
    return (
        f"does not fit: {sizes}, nor with the changes above; take a larger "
        "GPU, more of them with configs/accelerate/fsdp.yaml, or a smaller base"
    )


def size(number: int) -> str:
    """Return a number of bytes in GiB or MiB."""
    return f"{number / GIB:.2f} GiB" if number >= GIB / 10 else f"{number / MIB:.1f} MiB"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """Return a table whose first column is text and whose others are numbers."""
    table = Table(title=title or None, title_justify="left", show_header=any(headings))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _stages(plan: Plan) -> Table:
    if plan.stages is None:
        return _table(["examples"], [[f"{plan.max_steps * plan.examples_per_step:,}"]])
    total = sum_examples(plan.stages)
    rows = [
        (
            stage.name,
            f"{stage.first_step:,}",
            f"{stage.steps:,}",
            *(f"{stage.examples.get(name, 0):,.0f}" for name in total),
        )
        for stage in plan.stages
    ]
    rows.append(("all", "", f"{plan.max_steps:,}", *(f"{each:,.0f}" for each in total.values())))
    if plan.data is not None:
        sizes = plan.data.sizes
        rows.append(("in the data", "", "", *(f"{sizes.get(name, 0):,}" for name in total)))
        epochs = [f"{total[n] / sizes[n]:.1f}" if sizes.get(n) else "-" for n in total]
        rows.append(("epochs", "", "", *epochs))
    return _table(["stage", "from step", "steps", *total], rows)


def _hours(plan: Plan) -> str:
    if plan.hours is None:
        return "hours: set tokens_per_second (of one GPU)"
    bound = "" if plan.tokens_known else "at most "
    return f"{bound}{plan.hours:,.1f} hours, without evaluations"
