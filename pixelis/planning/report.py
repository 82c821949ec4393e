"""A plan as tables for a person."""

from rich.console import Console
from rich.table import Table

from pixelis.planning.gpus import CONTEXT_GIB, FRAGMENTED
from pixelis.planning.plan import Plan

GIB = 2**30
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


def print_plan(plan: Plan, console: Console) -> None:
    """Print everything, the verdict last."""
    console.print(_model(plan))
    console.print(
        f"{plan.max_steps:,} steps of {plan.examples_per_step} examples; {plan.course_note}"
    )
    console.print(_course(plan))
    setup, number = plan.setup, plan.num_gpus
    console.print(
        f"memory of {'one' if number == 1 else f'each of {number}'} GPU: {setup.batch_size} "
        f"examples of {setup.length:,} tokens, the longest allowed, "
        f"{'with' if setup.model.gradient_checkpointing else 'without'} gradient checkpointing"
    )
    console.print(_memory(plan))
    if plan.advice:
        console.print(_advice(plan))
    console.print(_time(plan))
    console.print(verdict(plan))


def verdict(plan: Plan) -> str:
    """Whether it fits, in a line."""
    need, there = size(plan.total), size(plan.gpu_bytes)
    if plan.fits:
        return f"fits: {need} of {there} on each GPU"
    last = plan.advice[-1] if plan.advice else None
    if last is not None and last.fits:
        return f"does not fit: {need} of {there} on each GPU; with the changes above it does"
    return (
        f"does not fit: {need} of {there} on each GPU, nor with the changes above; take a larger "
        "GPU, more of them with configs/accelerate/fsdp.yaml, or a smaller base"
    )


def size(number: int) -> str:
    """Bytes as people read them."""
    return f"{number / GIB:.2f} GiB" if number >= GIB / 10 else f"{number / MIB:.1f} MiB"


def _model(plan: Plan) -> Table:
    table = Table(title=plan.model_name, title_justify="left", show_header=False)
    share = plan.trainable / plan.parameters
    table.add_row("parameters, adapter included", f"{plan.parameters:,}")
    table.add_row("trained", f"{plan.trainable:,} ({share:.2%})")
    table.add_row("adapted layers", ", ".join(f"{k} x {n}" for k, n in plan.targets.items()))
    return table


def _course(plan: Plan) -> Table:
    table = Table()
    if plan.course is None:
        table.add_column("examples")
        table.add_row(f"{plan.max_steps * plan.examples_per_step:,}")
        return table
    names = list(plan.course[-1].examples)
    for heading in ("stage", "from step", "steps", *names):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in plan.course:
        cells = [f"{stage.examples.get(name, 0):,.0f}" for name in names]
        table.add_row(stage.name, f"{stage.first_step:,}", f"{stage.steps:,}", *cells)
    total = {n: sum(stage.examples.get(n, 0) for stage in plan.course) for n in names}
    table.add_section()
    table.add_row("all", "", f"{plan.max_steps:,}", *(f"{total[n]:,.0f}" for n in names))
    if plan.data is not None:
        sizes = plan.data.sizes
        table.add_row("in the data", "", "", *(f"{sizes.get(n, 0):,}" for n in names))
        epochs = [f"{total[n] / sizes[n]:.1f}" if sizes.get(n) else "-" for n in names]
        table.add_row("epochs", "", "", *epochs)
    return table


def _memory(plan: Plan) -> Table:
    table = Table()
    table.add_column("part")
    table.add_column("size", justify="right")
    for name, meaning in PARTS.items():
        table.add_row(meaning, size(getattr(plan.memory, name)))
    beside = f"CUDA context ({CONTEXT_GIB:g} GiB) and the allocator's loss ({FRAGMENTED:.0%})"
    table.add_row(f"{beside}: assumed", size(plan.beside))
    table.add_section()
    table.add_row("all", size(plan.total))
    table.add_row("there", size(plan.gpu_bytes))
    return table


def _advice(plan: Plan) -> Table:
    table = Table(title="what to change, each on top of those before", title_justify="left")
    for heading in ("change", "saves", "then"):
        table.add_column(heading, justify="left" if heading == "change" else "right")
    before = plan.total
    for one in plan.advice:
        saved = size(before - one.total) if before > one.total else "-"
        table.add_row(one.change, saved, size(one.total) + (": fits" if one.fits else ""))
        before = one.total
    return table


def _time(plan: Plan) -> str:
    kind = "on average" if plan.tokens_known else "at most (max_length; no data to look at)"
    line = f"tokens of an example: {plan.tokens_per_example:,.0f} {kind}"
    if plan.hours is None:
        return f"{line}; hours: set tokens_per_second (of one GPU)"
    bound = "" if plan.tokens_known else "at most "
    return f"{line}; {bound}{plan.hours:,.1f} hours, without evaluations"
