import math
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pixelis.data.chat import example_messages
from pixelis.data.encode import IGNORE_INDEX, Encoder, collate
from pixelis.errors import CheckpointError
from pixelis.evaluation.answer_loss import answer_losses, build_answer_losses


def by_hand(model, encoder, example):
    """The loss of one example on its own, token by token."""
    item = encoder.encode(example_messages(example))
    batch = collate([item], encoder)
    labels = batch.pop("labels")[0]
    with torch.inference_mode():
        chances = model(**batch).logits[0].float().log_softmax(-1)
    taken = [
        -chances[place - 1, labels[place]].item()
        for place in range(item.answer_start, len(item))
        if labels[place] != IGNORE_INDEX
    ]
    return sum(taken) / len(taken)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_losses_are_those_of_the_final_turn(nano, encoder, examples, batch_size):
    losses = answer_losses(nano, encoder, examples[:6], batch_size=batch_size)
    expected = [by_hand(nano, encoder, example) for example in examples[:6]]
    assert losses == pytest.approx(expected, abs=1e-4)


def test_turns_before_the_last_do_not_count(lively, encoder, examples):
    plain = examples[0]
    # The trajectory is masked out, not only weighed less: the answer's own words move the loss.
    (loss,) = answer_losses(lively, encoder, [plain], batch_size=1)
    other = replace(plain, answer="something else altogether")
    assert answer_losses(lively, encoder, [other], batch_size=1) != [loss]
    assert loss == pytest.approx(by_hand(lively, encoder, plain), abs=1e-4)


def test_a_wrong_answer_has_a_higher_loss(nano, encoder, examples):
    right = [example for example in examples if example.task == "attribute_recognition"][:1]
    wrong = [replace(right[0], answer="zebra crossing")]
    low, high = answer_losses(nano, encoder, right + wrong, batch_size=2)
    assert low < high


def test_the_loss_of_an_example_that_cannot_be_encoded_is_infinite(nano, encoder, examples):
    short = Encoder(
        encoder.processor, max_length=len(encoder.encode(example_messages(examples[0])))
    )
    reserved = replace(examples[0], question="\ue000")
    long = replace(examples[0], question="red " * 2000)
    thin = replace(examples[0], images=(Image.new("RGB", (1000, 2)),))
    given = [reserved, examples[0], long, thin]
    losses = answer_losses(nano, short, given, batch_size=4)
    assert [math.isinf(loss) for loss in losses] == [True, False, True, True]
    assert answer_losses(nano, encoder, [], batch_size=4) == []


def test_the_models_mode_is_left_as_it_was(lively, encoder, examples):
    lively.train()
    try:
        answer_losses(lively, encoder, examples[:1], batch_size=1)
        assert lively.training
    finally:
        lively.eval()
    answer_losses(lively, encoder, examples[:1], batch_size=1)
    assert not lively.training


def test_a_model_by_name_is_loaded_once(nano, encoder, examples, monkeypatch):
    from pixelis.models import load

    calls = []
    real = load.load_model
    monkeypatch.setattr(load, "load_model", lambda *a, **k: calls.append(a) or real(*a, **k))
    losses = build_answer_losses("pixelis-nano")
    assert calls == []
    values = losses(examples[:3]) + losses(examples[3:5])
    assert calls == [("pixelis-nano",)]
    expected = [by_hand(nano, encoder, example) for example in examples[:5]]
    assert values == pytest.approx(expected, abs=1e-2)


def test_a_model_that_is_not_there(tmp_path, examples):
    losses = build_answer_losses(str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match=f"^no model folder {re.escape(str(tmp_path))}/none"):
        losses(examples[:1])
