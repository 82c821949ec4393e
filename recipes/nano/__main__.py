"""Build the embedded base: tokenizer, vision, blend, measurement, files (`make base`)."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

import torch
from rich.console import Console
from transformers import Qwen2_5_VLForConditionalGeneration

from pixelis.data.encode import Encoder
from pixelis.models.load import EMBEDDED_DIR
from recipes.nano.architecture import build_config, build_model, build_processor
from recipes.nano.blend import build_texts
from recipes.nano.measure import measure
from recipes.nano.tokenizer import train_tokenizer
from recipes.nano.train import Recipe, train_blend, train_lookup, train_vision

HERE = Path(__file__).parent
NUM_TEXTS = 3000
REPORT_EVERY = 25


def build_base(output_dir: Path, recipe: Recipe, num_scenes: int) -> dict[str, float]:
    """Train the base, save it in a folder, and return its scores on held-out scenes."""
    console = Console()
    started = time.monotonic()

    def log(text: str) -> None:
        console.print(f"[{time.monotonic() - started:6.0f} s] {text}", highlight=False)

    def reporter(name: str, steps: int) -> Any:
        recent: list[float] = []

        def report(step: int, loss: float, right: float) -> None:
            recent.append(loss)
            if step % REPORT_EVERY == 0:
                mean = sum(recent[-REPORT_EVERY:]) / REPORT_EVERY
                log(f"{name} {step}/{steps}: loss {mean:.4f}, right {right:.3f}")

        return report

    torch.set_num_threads(recipe.num_threads)
    torch.manual_seed(recipe.seed)
    template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = train_tokenizer(iter(build_texts(recipe.seed, NUM_TEXTS)), template)
    processor = build_processor(tokenizer)
    encoder = Encoder(processor)
    model: Any = build_model(build_config(tokenizer))
    num_parameters = sum(p.numel() for p in model.parameters())
    log(f"{len(tokenizer)} tokens, {num_parameters / 1e6:.2f} M parameters")
    train_vision(model, processor, recipe, reporter("vision", recipe.vision_steps))
    train_lookup(model, encoder, recipe, reporter("lookup", recipe.lookup_steps))
    train_blend(model, encoder, recipe, reporter("blend", recipe.blend_steps))
    trained_seconds = time.monotonic() - started

    output_dir.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(output_dir)
    model.to(torch.bfloat16).save_pretrained(output_dir)
    # Measure the weights as they are shipped, in bf16.
    stored = Qwen2_5_VLForConditionalGeneration.from_pretrained(output_dir, dtype=torch.float32)
    scores = measure(stored.eval(), encoder, num_scenes)
    scores |= {"num_scenes": num_scenes, "minutes": round(trained_seconds / 60, 1)}
    log(json.dumps(scores))
    card = Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(
        asdict(recipe),
        parameters=f"{num_parameters:,}",
        vocabulary=len(tokenizer),
        **{name: f"{scores[name]:.1%}" for name in ("caption", "attribute", "where", "frames")},
        num_scenes=num_scenes,
        minutes=scores["minutes"],
    )
    (output_dir / "README.md").write_text(card, encoding="utf-8")
    return scores


def main() -> None:
    """Parse the command line and build the base."""
    parser = argparse.ArgumentParser(prog="python -m recipes.nano", description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=EMBEDDED_DIR, help="where to write")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default %(default)s")
    parser.add_argument("--num-scenes", type=int, default=500, help="held-out scenes to measure on")
    arguments = parser.parse_args()
    build_base(arguments.output_dir, Recipe(seed=arguments.seed), arguments.num_scenes)


if __name__ == "__main__":
    main()
