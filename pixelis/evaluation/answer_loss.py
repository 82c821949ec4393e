"""The base model's loss on answers, for the difficulty scorer `model` and the rank correlation.

torch is imported only when losses are computed: data-prep needs it only for these.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pixelis.data.example import Example

if TYPE_CHECKING:
    from pixelis.data.encode import Encoded, Encoder

UNREADABLE = float("inf")


def build_answer_losses(
    model_name: str,
    *,
    torch_dtype: str = "float32",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_length: int = 4096,
    batch_size: int = 8,
    trust_remote_code: bool = False,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> Callable[[Sequence[Example]], list[float]]:
    """Return a function from examples to losses; its first call loads the model.

    Args:
        model_name: `pixelis-nano`, a hub name or a folder.
        torch_dtype: float32 by default: the embedded base's bfloat16 is coarse and slow on a CPU.
        min_pixels: smaller images are enlarged to this area.
        max_pixels: larger images are reduced to this area.
        max_length: of an example in tokens; the loss of a longer one is infinite.
        batch_size: examples in one forward pass.
        trust_remote_code: run code that comes with a hub model.
        progress: wraps the batches of a call, with their number (a progress bar).

    Raises:
        CheckpointError: at the first call, when the model cannot be loaded.
    """
    loaded: list[tuple[Any, Any]] = []

    def losses(examples: Sequence[Example]) -> list[float]:
        if not loaded:
            loaded.append(_load(model_name))
        model, encoder = loaded[0]
        return answer_losses(model, encoder, examples, batch_size=batch_size, progress=progress)

    def _load(name: str) -> tuple[Any, Any]:
        from pixelis.data.encode import Encoder
        from pixelis.models.device import best_device
        from pixelis.models.load import load_model, load_processor

        processor = load_processor(
            name,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            trust_remote_code=trust_remote_code,
        )
        model: Any = load_model(name, torch_dtype=torch_dtype, trust_remote_code=trust_remote_code)
        return model.to(best_device()), Encoder(processor, max_length)

    return losses


def answer_losses(
    model: Any,
    encoder: "Encoder",
    examples: Sequence[Example],
    *,
    batch_size: int,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> list[float]:
    """Return the mean loss per token of each example's final turn, teacher-forced, in nats.

    Conclusion and answer count, the trajectory before them does not. The loss of an example that
    cannot be encoded (too long, a reserved character, an image as thin as a line) is infinite.
    """
    from pixelis.data.encode import encode_example

    encoded: dict[int, Encoded] = {}
    for index, example in enumerate(examples):
        try:
            encoded[index] = encode_example(example, encoder)
        except ValueError:  # a DataError, or an image of a form that the processor refuses
            continue
    # By length, so that little is padded.
    order = sorted(encoded, key=lambda index: (len(encoded[index]), index))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    losses = [UNREADABLE] * len(examples)
    was_training = model.training
    model.eval()
    for batch in progress(batches, len(batches)):
        batch_losses = _batch_losses(model, encoder, [encoded[index] for index in batch])
        for index, loss in zip(batch, batch_losses, strict=True):
            losses[index] = loss
    model.train(was_training)
    return losses


def _batch_losses(model: Any, encoder: "Encoder", items: "Sequence[Encoded]") -> list[float]:
    import torch
    from torch.nn.functional import cross_entropy

    from pixelis.data.encode import IGNORE_INDEX, collate
    from pixelis.models.feed import feed

    device = next(model.parameters()).device
    with torch.inference_mode():
        batch = {name: value.to(device) for name, value in collate(items, encoder).items()}
        labels = batch.pop("labels")
        logits = model(**feed(batch)).logits
        losses = []
        for row, target, item in zip(logits, labels, items, strict=True):
            # Position t predicts token t + 1; right of the answer there is padding without labels.
            wanted = target[item.answer_start :]
            kept = wanted != IGNORE_INDEX
            predicted = row[item.answer_start - 1 : -1][kept].float()
            losses.append(cross_entropy(predicted, wanted[kept]).item())
    return losses
