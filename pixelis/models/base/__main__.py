"""Rebuild the embedded base: tokenizer, vision, blend, measurement, files (`make base`)."""

import argparse
import json
import time
from pathlib import Path
from string import Template
from typing import Any

import torch
from rich.console import Console
from transformers import Qwen2_5_VLForConditionalGeneration

from pixelis.data.encode import Encoder
from pixelis.models.base.architecture import build_config, build_model, build_processor
from pixelis.models.base.blend import build_texts
from pixelis.models.base.measure import measure
from pixelis.models.base.tokenizer import train_tokenizer
from pixelis.models.base.train import PHASES, Phase, Recipe, train_blend, train_vision

HERE = Path(__file__).parent
DEFAULT_OUTPUT = HERE.parent / "nano"
NUM_TEXTS = 3000
REPORT_EVERY = 25


def _load(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def build_base(
    output_dir: Path, recipe: Recipe, num_scenes: int, first_phase: int = 0
) -> dict[str, float]:
    """Train the base and write it to `output_dir`; returns what was measured on held-out scenes.

    With `first_phase` > 0 the earlier phases are taken from the weights in `output_dir`.
    """
    console = Console()
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - started:6.0f} s] {text}", highlight=False)

    torch.set_num_threads(recipe.phases[0].num_threads)
    torch.manual_seed(recipe.seed)
    template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = train_tokenizer(iter(build_texts(recipe.seed, NUM_TEXTS)), template)
    processor = build_processor(tokenizer)
    model = build_model(build_config(tokenizer))
    num_parameters = sum(p.numel() for p in model.parameters())
    say(f"{len(tokenizer)} tokens, {num_parameters / 1e6:.2f} M parameters")

    def report_vision(step: int, loss: float, accuracy: float) -> None:
        if step % 20 == 0:
            say(f"vision {step}/{recipe.vision_steps}: loss {loss:.4f}, cells {accuracy:.3f}")

    output_dir.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(output_dir)
    encoder = Encoder(processor)
    if first_phase == 0:
        train_vision(model, processor, recipe, report_vision)
    else:
        model = _load(output_dir)
    for phase in recipe.phases[first_phase:]:
        recent: list[float] = []

        def report(
            step: int, loss: float, place: float, phase: Phase = phase, recent: Any = recent
        ) -> None:
            recent.append(loss)
            if step % REPORT_EVERY == 0:
                mean = sum(recent[-REPORT_EVERY:]) / REPORT_EVERY
                say(f"{phase.name} {step}/{phase.steps}: loss {mean:.4f}, place {place:.4f}")

        torch.set_num_threads(phase.num_threads)
        train_blend(model, encoder, recipe, phase, report)
        module: torch.nn.Module = model
        module.to(torch.bfloat16)
        model.save_pretrained(output_dir)
        # A phase begins from what is on disk, so that it can be redone alone.
        model = _load(output_dir)
    trained_seconds = time.monotonic() - started
    figures = measure(model.eval(), encoder, num_scenes)
    figures |= {"num_scenes": num_scenes, "minutes": round(trained_seconds / 60, 1)}
    say(json.dumps(figures))
    card = Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(
        parameters=f"{num_parameters:,}",
        vocabulary=len(tokenizer),
        caption=f"{figures['caption']:.1%}",
        attribute=f"{figures['attribute']:.1%}",
        num_scenes=num_scenes,
        minutes=figures["minutes"],
        phases=", then ".join(
            f"{phase.steps} steps of {phase.name} (peak learning rate {phase.learning_rate:g})"
            for phase in recipe.phases
        ),
        vision_steps=recipe.vision_steps,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
    )
    (output_dir / "README.md").write_text(card, encoding="utf-8")
    return figures


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(prog="python -m pixelis.models.base", description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=DEFAULT_OUTPUT, help="where to write")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default %(default)s")
    parser.add_argument(
        "--first-phase",
        type=int,
        choices=range(len(PHASES)),
        default=0,
        help="redo only from this phase, on the weights in the output folder",
    )
    parser.add_argument("--num-scenes", type=int, default=500, help="held-out scenes to measure on")
    arguments = parser.parse_args()
    recipe = Recipe(seed=arguments.seed)
    build_base(arguments.output_dir, recipe, arguments.num_scenes, arguments.first_phase)


if __name__ == "__main__":
    main()
