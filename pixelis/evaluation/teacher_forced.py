"""Chosen examples measured as validation measures them: with the right words before each token."""

from collections.abc import Sequence
from typing import Any

import torch

from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.evaluation.batches import Batches, by_length
from pixelis.evaluation.intervals import Fraction
from pixelis.evaluation.validation import Tally, in_this_process, measure


class _Chosen(CurriculumDataset):
    """Examples at hand in place of a split's rows, by their place."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder) -> None:
        super().__init__({}, encoder)
        self.examples = examples

    def example(self, key: Key) -> Example:
        return self.examples[key[1]]


@torch.inference_mode()
def tally_examples(
    model: Any, encoder: Encoder, examples: Sequence[Example], *, batch_size: int
) -> list[Tally]:
    """One forward pass over every example; the model's training mode is left as it was.

    Raises:
        DataError: when an example cannot be encoded, naming it.
    """
    chosen = _Chosen(examples, encoder)
    keys = by_length(chosen, [(example.difficulty, i) for i, example in enumerate(examples)])
    batches = Batches(chosen, keys, batch_size, max_kept_bytes=0)
    was_training = model.training
    model.eval()
    found = {key[1]: tally for key, tally in measure(model, batches, in_this_process)}
    model.train(was_training)
    return [found[index] for index in range(len(examples))]


def forced_fractions(tallies: Sequence[Tally]) -> dict[str, list[Fraction]]:
    """Accuracies of the next token given the right ones before it (Williams and Zipser 1989).

    Returns:
        `teacher_forced_token_accuracy`: supervised tokens whose most likely prediction is right,
        among all; `teacher_forced_answer_accuracy`: share of examples with every token of the last
        turn right. As in the strata of a training, on the chosen examples.
    """
    return {
        "teacher_forced_token_accuracy": [(t.right, t.tokens) for t in tallies],
        "teacher_forced_answer_accuracy": [(t.answered, 1) for t in tallies],
    }
