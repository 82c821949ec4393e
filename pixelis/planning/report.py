"""Print a plan as tables."""

from rich.console import Console
from rich.table import Table

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


def print_plan(plan: Plan, console: Console) -> None:
    """Print all tables and, as the last line, whether the training fits."""
    console.print(_model(plan))
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
    console.print(_memory(plan))
    if plan.advice:
        console.print(_advice(plan))
    console.print(_time(plan))
    console.print(verdict(plan))


def verdict(plan: Plan) -> str:
    """Return the line with the verdict: whether the training fits."""
    sizes = f"{size(plan.total)} of {size(plan.gpu_bytes)} on each GPU"
    if plan.fits:
        return f"fits: {sizes}"
    last = plan.advice[-1] if plan.advice else None
    if last is not None and last.fits:
        return f"does not fit: {sizes}; with the changes above it does"
    return (
        f"does not fit: {sizes}, nor with the changes above; take a larger "
        "GPU, more of them with configs/accelerate/fsdp.yaml, or a smaller base"
    )


def size(number: int) -> str:
    """Return a number of bytes in GiB or MiB."""
    return f"{number / GIB:.2f} GiB" if number >= GIB / 10 else f"{number / MIB:.1f} MiB"


def _model(plan: Plan) -> Table:
    table = Table(title=plan.model_name, title_justify="left", show_header=False)
    share = plan.trainable / plan.parameters
    table.add_row("parameters, adapter included", f"{plan.parameters:,}")
    table.add_row("trained", f"{plan.trainable:,} ({share:.2%})")
    table.add_row("adapted layers", ", ".join(f"{k} x {n}" for k, n in plan.targets.items()))
    return table


def _stages(plan: Plan) -> Table:
    table = Table()
    if plan.stages is None:
        table.add_column("examples")
        table.add_row(f"{plan.max_steps * plan.examples_per_step:,}")
        return table
    names = list(plan.stages[-1].examples)
    for heading in ("stage", "from step", "steps", *names):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in plan.stages:
        cells = [f"{stage.examples.get(name, 0):,.0f}" for name in names]
        table.add_row(stage.name, f"{stage.first_step:,}", f"{stage.steps:,}", *cells)
    total = {n: sum(stage.examples.get(n, 0) for stage in plan.stages) for n in names}
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
    overhead = f"CUDA context ({CONTEXT_GIB:g} GiB) and the allocator's loss ({FRAGMENTATION:.0%})"
    table.add_row(f"{overhead}: assumed", size(plan.overhead))
    table.add_section()
    table.add_row("all", size(plan.total))
    table.add_row("there", size(plan.gpu_bytes))
    return table


def _advice(plan: Plan) -> Table:
    table = Table(title="what to change, each on top of those before", title_justify="left")
    for heading in ("change", "saves", "then"):
        table.add_column(heading, justify="left" if heading == "change" else "right")
    before = plan.total
    for advice in plan.advice:
        saved = size(before - advice.total) if before > advice.total else "-"
        then = size(advice.total) + (": fits" if advice.fits else "")
        table.add_row(advice.change, saved, then)
        before = advice.total
    return table


def _time(plan: Plan) -> str:
    kind = "on average" if plan.tokens_known else "at most (max_length; no data to look at)"
    line = f"tokens of an example: {plan.tokens_per_example:,.0f} {kind}"
    if plan.hours is None:
        return f"{line}; hours: set tokens_per_second (of one GPU)"
    bound = "" if plan.tokens_known else "at most "
    return f"{line}; {bound}{plan.hours:,.1f} hours, without evaluations"
