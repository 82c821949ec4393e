"""Ask an adapter, and its base beside it, about a user's own images."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.config import ModelConfig
from pixelis.data.encode import Encoder
from pixelis.data.example import Example, question_only
from pixelis.data.images import ImageError, encode_image, load_image
from pixelis.errors import DataError
from pixelis.evaluation.cards import Act, turn_act
from pixelis.evaluation.evaluate import ADAPTER, BASE
from pixelis.evaluation.rollout import Conversation, RolloutSettings, roll_out
from pixelis.evaluation.spans import marked_frames
from pixelis.evaluation.turns import MAX_OPERATIONS, NO_ANSWER, Rollout
from pixelis.files import write_atomic
from pixelis.models.load import (
    best_device,
    load_encoder,
    load_model,
    max_positions,
    silence_libraries,
)
from pixelis.models.lora import load_adapter
from pixelis.tracking import find_adapter, resolve_adapter

PICTURE_SIDE = 1024  # pixels: larger images are reduced to it, small ones are enlarged
SETTINGS = RolloutSettings(batch_size=1)
ENDINGS = {
    MAX_OPERATIONS: f"it called an operation again after {SETTINGS.max_operations} turns",
    NO_ANSWER: "its last turn was neither a call nor an answer",
}


@dataclass(frozen=True)
class AskSettings:
    """What is asked, and of which adapter."""

    images: tuple[Path, ...]
    question: str
    adapter: str | None  # None: the adapter of the experiment's newest finished training
    experiment: str
    base: bool  # whether the base is asked too
    output_dir: Path


def run_ask(settings: AskSettings, model_config: ModelConfig) -> None:
    """Ask the adapter; print each turn when it ends, and save where it looked.

    Raises:
        UserError: when an image or the adapter cannot be used, before anything is written.
    """
    silence_libraries()
    images = tuple(_read_image(path) for path in settings.images)
    example = question_only(settings.images[0].name, settings.question, images)
    address = find_adapter(settings.adapter, settings.experiment)
    model, encoder = load_asked(address, model_config)
    for path, image in zip(settings.images, images, strict=True):
        seen = " x ".join(map(str, encoder.seen_size(image)))
        print(f"{path}: {image.width} x {image.height} pixels, which the model sees as {seen}")
    print(f"question: {settings.question}")
    for label in (ADAPTER, BASE) if settings.base else (ADAPTER,):
        print(f"\n{label}")
        rollout = ask(model, encoder, example, label, lambda act: print(act.as_text(), flush=True))
        if ending := describe_ending(rollout):
            print(ending)
        for path in save_marked(rollout, settings, images, label):
            print(f"where it looked: {path}")


def load_asked(address: str, model_config: ModelConfig) -> tuple[Any, Encoder]:
    """Load an adapter on its base, and the encoder of its processor.

    Raises:
        UserError: when there is no such adapter, or it is not for this base.
    """
    name, trust = model_config.model_name, model_config.trust_remote_code
    folder = resolve_adapter(address)
    encoder = load_encoder(model_config, max_positions(name, trust_remote_code=trust))
    base = load_model(name, torch_dtype=model_config.torch_dtype, trust_remote_code=trust)
    model = load_adapter(base, folder, model_name=name).to(best_device())
    return model.eval(), encoder


def ask(
    model: Any, encoder: Encoder, example: Example, label: str, on_turn: Callable[[Act], None]
) -> Rollout:
    """Ask the adapter or, with the label `base`, its base; call `on_turn` when a turn ends."""
    numbers = count(1)
    with model.disable_adapter() if label == BASE else nullcontext():
        (rollout,) = roll_out(
            model,
            encoder,
            [Conversation(example)],
            SETTINGS,
            on_turn=lambda _, turn: on_turn(turn_act(next(numbers), turn)),
        )
    return rollout


def describe_ending(rollout: Rollout) -> str:
    """Return why a rollout has no answer; empty if it has one."""
    return "" if rollout.answer is not None else f"no answer: {ENDINGS[rollout.outcome]}"


def save_marked(
    rollout: Rollout, settings: AskSettings, images: tuple[Image.Image, ...], label: str
) -> list[Path]:
    """Save the images that were looked at, with the numbers of the turns; return their paths."""
    paths = []
    numbered = list(enumerate(rollout.turns, 1))
    for frame, picture in marked_frames(numbered, images, side=PICTURE_SIDE).items():
        number = f"-{frame}" if len(images) > 1 else ""
        path = settings.output_dir / f"{settings.images[frame - 1].stem}{number}-{label}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, encode_image(picture))
        paths.append(path)
    return paths


def _read_image(path: Path) -> Image.Image:
    try:
        return load_image(path.read_bytes())
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error
