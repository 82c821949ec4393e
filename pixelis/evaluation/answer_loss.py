"""The base model's loss on answers, for the difficulty scorer `model` and the rank correlation.

torch is imported only when losses are computed, because data-prep needs it for nothing else.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pixelis.data.example import Example

if TYPE_CHECKING:
    from pixelis.data.encode import Encoded, Encoder

MAX_LENGTH = 4096  # tokens of an example; the loss of a longer one is infinite
BATCH_SIZE = 8
UNREADABLE = float("inf")


def build_answer_losses(model_name: str) -> Callable[[Sequence[Example]], list[float]]:
    """Return a function from examples to a model's losses; its first call loads the model.

    The model is loaded in float32, because bfloat16 is coarse, and slow on a CPU.

    Raises:
        CheckpointError: at the first call, when the model cannot be loaded.
    """

    @lru_cache(maxsize=1)
    def load() -> tuple[Any, "Encoder"]:
        from pixelis.data.encode import Encoder
        from pixelis.models.load import best_device, load_model, load_processor

        encoder = Encoder(load_processor(model_name), MAX_LENGTH)
        model: Any = load_model(model_name, torch_dtype="float32")
        return model.to(best_device()), encoder

    return lambda examples: answer_losses(*load(), examples)


def answer_losses(
    model: Any, encoder: "Encoder", examples: Sequence[Example], *, batch_size: int = BATCH_SIZE
) -> list[float]:
    """Return the mean loss per token of each example's final turn, teacher-forced, in nats.

    The final turn holds conclusion and answer, not the trajectory. The loss of an example that
    cannot be encoded (too long, a reserved character, a very thin image) is infinite.
    """
    from pixelis.data.encode import encode_example

    encoded: dict[int, Encoded] = {}
    for index, example in enumerate(examples):
        try:
            encoded[index] = encode_example(example, encoder)
        except ValueError:  # a DataError, or an image of a form that the processor refuses
            continue
    # Sorted by length, so that batches need little padding.
    order = sorted(encoded, key=lambda index: (len(encoded[index]), index))
    losses = [UNREADABLE] * len(examples)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        batch_losses = _batch_losses(model, encoder, [encoded[index] for index in batch])
        for index, loss in zip(batch, batch_losses, strict=True):
            losses[index] = loss
    model.train(was_training)
    return losses


def _batch_losses(model: Any, encoder: "Encoder", items: "Sequence[Encoded]") -> list[float]:
    import torch
    from torch.nn.functional import cross_entropy

    from pixelis.data.encode import IGNORE_INDEX, collate
    from pixelis.models.forward import model_inputs

    device = next(model.parameters()).device
    with torch.inference_mode():
        batch = {name: value.to(device) for name, value in collate(items, encoder).items()}
        labels = batch.pop("labels")
        logits = model(**model_inputs(batch)).logits
        losses = []
        for row, target, item in zip(logits, labels, items, strict=True):
            # Position t predicts token t + 1; right of the answer there is padding without labels.
            targets = target[item.answer_start :]
            supervised = targets != IGNORE_INDEX
            predicted = row[item.answer_start - 1 : -1][supervised].float()
            losses.append(cross_entropy(predicted, targets[supervised]).item())
    return losses
