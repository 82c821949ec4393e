"""Build the embedded base: tokenizer, phases of training, measurement, files (`make base`)."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch.multiprocessing.spawn import start_processes
from transformers import Qwen2_5_VLForConditionalGeneration

from pixelis.data.encode import Encoder
from pixelis.files import fsync_folder
from pixelis.models.load import EMBEDDED_DIR
from recipes.nano.architecture import build_config, build_processor
from recipes.nano.blend import build_texts
from recipes.nano.decisions import STAGES
from recipes.nano.measure import measure
from recipes.nano.tokenizer import train_tokenizer
from recipes.nano.train import (
    Recipe,
    Report,
    train_blend,
    train_decisions,
    train_lookup,
    train_vision,
)

HERE = Path(__file__).parent
NUM_TEXTS = 3000
REPORT_EVERY = 25
# In their order; `<name>_steps` of the recipe is the length of each.
PHASES: dict[str, Callable[[Any, Encoder, Recipe, Report], None]] = {
    "vision": train_vision,
    **{stage: partial(train_decisions, stage=stage) for stage in STAGES},
    "lookup": train_lookup,
    "blend": train_blend,
}
WORK_DIR = Path("build/nano")


def build_base(
    output_dir: Path, recipe: Recipe, num_scenes: int, work_dir: Path
) -> dict[str, float]:
    """Train the base, save it in a folder, and return its scores on held-out scenes.

    Each process of a group calls it; all but the first return no scores.

    Args:
        output_dir: where the base is written, with its card.
        recipe: the settings.
        num_scenes: held-out scenes to measure on.
        work_dir: keeps the weights after each phase; a later call goes on after the last phase that
            was finished with the same recipe.
    """
    torch.set_num_threads(1)
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    console = Console(quiet=not is_main)
    started = time.monotonic()

    def log(text: str) -> None:
        console.print(f"[{time.monotonic() - started:6.0f} s] {text}", highlight=False)

    def reporter(name: str, steps: int) -> Any:
        recent: list[tuple[float, float]] = []

        def report(step: int, loss: float, right: float) -> None:
            recent.append((loss, right))
            if step % REPORT_EVERY == 0:
                losses, shares = zip(*recent[-REPORT_EVERY:], strict=True)
                mean, share = sum(losses) / REPORT_EVERY, sum(shares) / REPORT_EVERY
                log(f"{name} {step}/{steps}: loss {mean:.4f}, right {share:.3f}")

        return report

    template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = train_tokenizer(iter(build_texts(recipe.seed, NUM_TEXTS)), template)
    processor = build_processor(tokenizer)
    encoder = Encoder(processor)
    torch.manual_seed(recipe.seed)
    model: Any = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    num_parameters = sum(p.numel() for p in model.parameters())
    log(f"{len(tokenizer)} tokens, {num_parameters / 1e6:.2f} M parameters")
    trained_seconds = 0.0
    for number, (name, train) in enumerate(PHASES.items(), 1):
        kept = work_dir / f"{number}-{name}"
        settings = asdict(recipe) | {"phases": list(PHASES)[:number]}
        if (kept / "recipe.json").is_file():
            stored = json.loads((kept / "recipe.json").read_text(encoding="utf-8"))
            if {key: stored.get(key) for key in settings} == settings:
                model = Qwen2_5_VLForConditionalGeneration.from_pretrained(kept)
                trained_seconds += stored["seconds"]
                log(f"{name}: taken from {kept}")
                continue
        torch.manual_seed(recipe.seed)
        begun = time.monotonic()
        train(model, encoder, recipe, reporter(name, getattr(recipe, f"{name}_steps")))
        seconds = time.monotonic() - begun
        trained_seconds += seconds
        if is_main:
            model.save_pretrained(kept)
            stored = json.dumps(settings | {"seconds": seconds}, indent=2)
            (kept / "recipe.json").write_text(stored, encoding="utf-8")
    if not is_main:
        return {}

    torch.set_num_threads(recipe.num_processes)  # the other processes have ended
    output_dir.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(output_dir)
    model.to(torch.bfloat16).save_pretrained(output_dir)
    # Measure the weights as they are shipped, in bf16.
    shipped = Qwen2_5_VLForConditionalGeneration.from_pretrained(output_dir, dtype=torch.float32)
    scores = measure(shipped.eval(), encoder, num_scenes)
    log(json.dumps(scores))
    card = Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(
        asdict(recipe),
        parameters=f"{num_parameters:,}",
        vocabulary=len(tokenizer),
        **{name: f"{score:.1%}" for name, score in scores.items()},
        num_scenes=num_scenes,
        minutes=round(trained_seconds / 60, 1),
    )
    (output_dir / "README.md").write_text(card, encoding="utf-8")
    fsync_folder(output_dir)  # also gives the weights the mode of other files
    return scores


def build_in_processes(output_dir: Path, recipe: Recipe, num_scenes: int, work_dir: Path) -> None:
    """Build the base (`build_base`) in a group of `recipe.num_processes` processes."""
    with TemporaryDirectory() as folder:
        given = (f"file://{folder}/group", output_dir, recipe, num_scenes, work_dir)
        start_processes(_join_and_build, given, recipe.num_processes, start_method="fork")


def _join_and_build(rank: int, group: str, output_dir: Path, recipe: Recipe, *given: Any) -> None:
    dist.init_process_group("gloo", init_method=group, rank=rank, world_size=recipe.num_processes)
    build_base(output_dir, recipe, *given)
    dist.destroy_process_group()


def main() -> None:
    """Parse the command line and build the base."""
    parser = argparse.ArgumentParser(prog="python -m recipes.nano", description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=EMBEDDED_DIR, help="where to write")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default %(default)s")
    parser.add_argument("--num-scenes", type=int, default=500, help="held-out scenes to measure on")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=WORK_DIR,
        help="keeps the weights after each phase, so that a build that was stopped goes on",
    )
    arguments = parser.parse_args()
    recipe = Recipe(seed=arguments.seed)
    build_in_processes(arguments.output_dir, recipe, arguments.num_scenes, arguments.work_dir)


if __name__ == "__main__":
    main()
