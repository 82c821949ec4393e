import copy
import random

import pytest
import torch
from torch import nn

from pixelis.data.chat import Message, prompt_messages, response_message
from pixelis.errors import CheckpointError
from pixelis.evaluation.decoder import Decoder, Utterance
from pixelis.evaluation.rollout import encode_response, shared_prefix
from pixelis.evaluation.slot_cache import SlotCache
from pixelis.operations import execute

MAX_NEW_TOKENS = 8


class GenerateSpeaker:
    """The slow way: each turn anew by `model.generate` on all that was said, one by one."""

    def __init__(self, model, encoder, num_slots):
        self.model, self.encoder = model, encoder
        self.heard = [([], []) for _ in range(num_slots)]
        self.due = []

    def clear(self, slot, seed=0):
        self.heard[slot] = [], []

    def hear(self, slot, tokens, images):
        self.heard[slot][0].extend(tokens)
        self.heard[slot][1].extend(images)
        self.due.append(slot)

    @torch.inference_mode()
    def speak(self):
        due, self.due = self.due, []
        return [self._speak(slot) for slot in due]

    def _speak(self, slot):
        history, images = self.heard[slot]
        input_ids = torch.tensor([history])
        end = self.encoder.end_of_turn_id
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            mm_token_type_ids=(input_ids == self.encoder.image_token_id).long(),
            **self.encoder.image_processor(images=images, return_tensors="pt"),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            suppress_tokens=[self.encoder.image_token_id],
            eos_token_id=[end, self.encoder.tokenizer.pad_token_id],
        )[0].tolist()
        said = output[len(history) :]
        ended = said[-1] in (end, self.encoder.tokenizer.pad_token_id)
        said = said[:-1] if ended else said
        history.extend([*said, end])
        return Utterance(slot, tuple(said), ended)


def responses(example, encoder, count):
    """Observations of growing variety: numbers, an image, an error."""
    rng = random.Random(example.id)
    for _ in range(count):
        x, y = rng.choice((0, 28, 56)), rng.choice((0, 28, 56))
        name = rng.choice(("ZOOM_IN", "GET_PROPERTIES", "SEGMENT_OBJECT_AT"))
        where = {"x": x, "y": y} if "SEGMENT" in name else {"bbox": [x, y, x + 28, y + 40]}
        seen = execute(name, where, example.images)
        yield encode_response(encoder, response_message(seen.result, seen.image))


def talk(speaker, encoder, examples, num_slots, num_turns):
    """Every example for `num_turns` turns, each slot taking the next as soon as it is free."""
    said = {index: [] for index in range(len(examples))}
    queue, running = list(said), {}
    heard = [list(responses(example, encoder, num_turns - 1)) for example in examples]

    def begin(slot):
        speaker.clear(slot)
        if queue:
            running[slot] = index = queue.pop(0)
            prompt = prompt_messages(examples[index].question, examples[index].images)
            first = encoder.encode(prompt, add_generation_prompt=True)
            speaker.hear(slot, first.input_ids, first.images)

    for slot in range(num_slots):
        begin(slot)
    while running:
        for utterance in speaker.speak():
            index = running[utterance.slot]
            said[index].append((utterance.tokens, utterance.ended))
            if len(said[index]) == num_turns:
                del running[utterance.slot]
                begin(utterance.slot)
            else:
                following = heard[index][len(said[index]) - 1]
                speaker.hear(utterance.slot, following.input_ids, following.images)
    return said


@pytest.fixture(scope="module")
def expected(lively, encoder, examples):
    return talk(GenerateSpeaker(lively, encoder, 1), encoder, examples, 1, 4)


@pytest.mark.parametrize("num_slots", [1, 3, 10])
def test_says_what_generate_says(lively, encoder, examples, expected, num_slots):
    decoder = Decoder(lively, encoder, num_slots=num_slots, max_new_tokens=MAX_NEW_TOKENS)
    assert talk(decoder, encoder, examples, num_slots, 4) == expected


def test_a_beginning_that_is_fed_once_changes_nothing(lively, encoder, examples, expected):
    prefix = shared_prefix(encoder)
    fed = []
    hook = lively.register_forward_pre_hook(
        lambda _, __, given: fed.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        decoder = Decoder(
            lively, encoder, num_slots=1, max_new_tokens=MAX_NEW_TOKENS, prefix=prefix
        )
        assert talk(decoder, encoder, examples, 1, 4) == expected
        with_prefix, fed[:] = sum(fed), []
        plain = Decoder(lively, encoder, num_slots=1, max_new_tokens=MAX_NEW_TOKENS)
        talk(plain, encoder, examples, 1, 4)
    finally:
        hook.remove()
    assert encoder.tokenizer.decode(prefix).endswith("<|im_start|>user\n")
    # Fed alone the first time; of what is said after it, nothing changes.
    assert sum(fed) - with_prefix == (len(examples) - 1) * len(prefix)


def test_a_conversation_that_begins_otherwise_is_heard_whole(lively, encoder, examples):
    question = encoder.encode([Message("user", ("Hello",))], add_generation_prompt=True)
    said = []
    for prefix in ((), shared_prefix(encoder)):
        decoder = Decoder(lively, encoder, num_slots=1, max_new_tokens=4, prefix=prefix)
        decoder.hear(0, question.input_ids, ())
        said.append(decoder.speak())
    assert said[0] == said[1]


def test_the_test_model_puts_decoding_to_the_test(expected):
    turns = [turn for said in expected.values() for turn in said]
    assert len({tokens for tokens, _ in turns}) > len(turns) / 2
    assert {ended for _, ended in turns} == {True, False}


def test_an_adapter_speaks_and_can_be_switched_off(adapted, encoder, examples, expected):
    def say():
        decoder = Decoder(adapted, encoder, num_slots=4, max_new_tokens=MAX_NEW_TOKENS)
        return talk(decoder, encoder, examples, 4, 4)

    with adapted.disable_adapter():
        assert say() == expected
    assert say() != expected


def test_image_tokens_are_never_said(lively, encoder, examples):
    model = copy.deepcopy(lively)
    model.lm_head.weight.data[encoder.image_token_id] *= 100
    decoder = Decoder(model, encoder, num_slots=5, max_new_tokens=MAX_NEW_TOKENS)
    said = talk(decoder, encoder, examples[:5], 5, 2)
    assert all(
        encoder.image_token_id not in tokens for turns in said.values() for tokens, _ in turns
    )


def test_says_nothing_where_nothing_was_heard(lively, encoder):
    assert Decoder(lively, encoder, num_slots=2, max_new_tokens=4).speak() == []


def test_a_finished_turn_waits_for_what_comes_next(lively, encoder):
    decoder = Decoder(lively, encoder, num_slots=1, max_new_tokens=1)
    prompt = encoder.encode([Message("user", ("Hello",))], add_generation_prompt=True)
    decoder.hear(0, prompt.input_ids, ())
    assert len(decoder.speak()) == 1
    assert decoder.speak() == []


def test_a_model_without_three_dimensional_positions_is_refused(encoder):
    with pytest.raises(CheckpointError, match=r"Qwen2-VL family .*, got Linear"):
        Decoder(nn.Linear(2, 2), encoder, num_slots=1, max_new_tokens=1)


def test_cache_keeps_each_slot_at_its_own_length():
    cache = SlotCache(3)
    states = torch.arange(2 * 1 * 2 * 1, dtype=torch.float32).view(2, 1, 2, 1) + 1
    cache.aim(torch.tensor([0, 2]), torch.tensor([[0, 1], [0, 1]]))
    keys, values = cache.update(states, -states, 0)
    assert keys.flatten().tolist() == [1, 2, 3, 4]
    assert values.flatten().tolist() == [-1, -2, -3, -4]
    # Slot 0 overwrites its second column, which was padding; slot 1 begins.
    cache.aim(torch.tensor([0, 1]), torch.tensor([[1], [0]]))
    keys, _ = cache.update(states[:, :, :1] * 10, states[:, :, :1], 0)
    assert keys.flatten().tolist() == [1, 10, 30, 0]


def test_cache_grows_and_keeps_what_it_holds():
    cache = SlotCache(1)
    cache.aim(torch.tensor([0]), torch.arange(3)[None])
    cache.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), 0)
    cache.aim(torch.tensor([0]), torch.arange(3, 303)[None])
    keys, _ = cache.update(torch.zeros(1, 2, 300, 4), torch.zeros(1, 2, 300, 4), 0)
    assert keys.shape == (1, 2, 303, 4)
    assert keys.sum() == 3 * 2 * 4
