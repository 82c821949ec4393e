import copy
import random

import pytest
import torch
from torch import nn

from pixelis.data.chat import Message, prompt_messages, response_message
from pixelis.errors import CheckpointError
from pixelis.evaluation.decoder import Decoder, GeneratedTurn, SlotCache, choose_tokens
from pixelis.evaluation.rollout import Conversation, encode_response, shared_prefix
from pixelis.operations import execute
from tests.evaluation.handmade import make_example

MAX_NEW_TOKENS = 8


class PlainGenerator:
    """Each turn by `model.generate` on the whole conversation, one after the other."""

    def __init__(self, model, encoder, num_slots):
        self.model, self.encoder = model, encoder
        self.history = [([], []) for _ in range(num_slots)]
        self.pending = []

    def reset(self, slot, seed=0):
        self.history[slot] = [], []

    def append(self, slot, tokens, images):
        self.history[slot][0].extend(tokens)
        self.history[slot][1].extend(images)
        self.pending.append(slot)

    @torch.inference_mode()
    def generate(self):
        pending, self.pending = self.pending, []
        return [self._generate(slot) for slot in pending]

    def _generate(self, slot):
        history, images = self.history[slot]
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
        tokens = output[len(history) :]
        ended = tokens[-1] in (end, self.encoder.tokenizer.pad_token_id)
        tokens = tokens[:-1] if ended else tokens
        history.extend([*tokens, end])
        return GeneratedTurn(slot, tuple(tokens), ended)


def responses(example, encoder, count):
    """Encode observations with numbers, an image or an error."""
    rng = random.Random(example.id)
    for _ in range(count):
        x, y = rng.choice((0, 28, 56)), rng.choice((0, 28, 56))
        name = rng.choice(("ZOOM_IN", "GET_PROPERTIES", "SEGMENT_OBJECT_AT"))
        where = {"x": x, "y": y} if "SEGMENT" in name else {"bbox": [x, y, x + 28, y + 40]}
        seen = execute(name, where, example.images)
        yield encode_response(encoder, response_message(seen.result, seen.image))


def generate_turns(generator, encoder, examples, num_slots, num_turns):
    """Generate `num_turns` turns an example; each slot takes the next as soon as it is free."""
    turns = {index: [] for index in range(len(examples))}
    queue, running = list(turns), {}
    answers = [list(responses(example, encoder, num_turns - 1)) for example in examples]

    def start(slot):
        generator.reset(slot)
        if queue:
            running[slot] = index = queue.pop(0)
            prompt = prompt_messages(examples[index].question, examples[index].images)
            first = encoder.encode(prompt, add_generation_prompt=True)
            generator.append(slot, first.input_ids, first.images)

    for slot in range(num_slots):
        start(slot)
    while running:
        for turn in generator.generate():
            index = running[turn.slot]
            turns[index].append((turn.tokens, turn.ended))
            if len(turns[index]) == num_turns:
                del running[turn.slot]
                start(turn.slot)
            else:
                response = answers[index][len(turns[index]) - 1]
                generator.append(turn.slot, response.input_ids, response.images)
    return turns


@pytest.fixture(scope="module")
def expected(lively, encoder, examples):
    return generate_turns(PlainGenerator(lively, encoder, 1), encoder, examples, 1, 4)


@pytest.mark.parametrize("num_slots", [1, 3, 10])
def test_generates_what_a_plain_loop_generates(lively, encoder, examples, expected, num_slots):
    turns = [turn for generated in expected.values() for turn in generated]
    assert len({tokens for tokens, _ in turns}) > len(turns) / 2
    assert {ended for _, ended in turns} == {True, False}
    decoder = Decoder(lively, encoder, num_slots=num_slots, max_new_tokens=MAX_NEW_TOKENS)
    assert generate_turns(decoder, encoder, examples, num_slots, 4) == expected


def test_a_common_prefix_is_computed_once_and_changes_nothing(lively, encoder, examples, expected):
    prefix = shared_prefix(encoder)
    assert encoder.tokenizer.decode(prefix).endswith("<|im_start|>user\n")
    computed = []
    hook = lively.register_forward_pre_hook(
        lambda _, __, given: computed.append(given["input_ids"].numel()), with_kwargs=True
    )
    sums = []
    try:
        for used in (prefix, ()):
            computed.clear()
            decoder = Decoder(
                lively, encoder, num_slots=1, max_new_tokens=MAX_NEW_TOKENS, prefix=used
            )
            assert generate_turns(decoder, encoder, examples, 1, 4) == expected
            sums.append(sum(computed))
    finally:
        hook.remove()
    assert sums[1] - sums[0] == (len(examples) - 1) * len(prefix)


def test_a_conversation_without_the_prefix_is_computed_whole(lively, encoder):
    question = encoder.encode([Message("user", ("Hello",))], add_generation_prompt=True)
    turns = []
    for prefix in ((), shared_prefix(encoder)):
        decoder = Decoder(lively, encoder, num_slots=1, max_new_tokens=4, prefix=prefix)
        decoder.append(0, question.input_ids, ())
        turns.append(decoder.generate())
        assert decoder.generate() == []  # a finished turn waits for further tokens
    assert turns[0] == turns[1]
    assert Decoder(lively, encoder, num_slots=2, max_new_tokens=4).generate() == []


def test_an_adapter_is_used_and_can_be_switched_off(adapted, encoder, examples, expected):
    def generate():
        decoder = Decoder(adapted, encoder, num_slots=4, max_new_tokens=MAX_NEW_TOKENS)
        return generate_turns(decoder, encoder, examples, 4, 4)

    with adapted.disable_adapter():
        assert generate() == expected
    assert generate() != expected


def test_image_tokens_are_never_generated(lively, encoder, examples):
    model = copy.deepcopy(lively)
    model.lm_head.weight.data[encoder.image_token_id] *= 100
    decoder = Decoder(model, encoder, num_slots=5, max_new_tokens=MAX_NEW_TOKENS)
    turns = generate_turns(decoder, encoder, examples[:5], 5, 2)
    assert all(
        encoder.image_token_id not in tokens for each in turns.values() for tokens, _ in each
    )


def test_a_model_without_three_dimensional_positions_is_refused(encoder):
    with pytest.raises(CheckpointError, match=r"Qwen2-VL family .*, got Linear"):
        Decoder(nn.Linear(2, 2), encoder, num_slots=1, max_new_tokens=1)


def draw(logits, count, temperature=1.0, seed=0):
    rows = torch.tensor([logits])
    generator = torch.Generator().manual_seed(seed)
    return [
        choose_tokens(rows, temperature=temperature, generators=[generator])[0]
        for _ in range(count)
    ]


def test_draws_follow_the_softmax_and_the_temperature():
    shares = torch.tensor([0.5, 0.2, 0.3])
    drawn = torch.tensor(draw(shares.log().tolist(), 4000))
    assert torch.allclose(torch.bincount(drawn, minlength=3) / 4000, shares, atol=0.03)
    drawn = torch.tensor(draw([1.0, 0.0], 2000, temperature=0.5))
    expected = torch.softmax(torch.tensor([2.0, 0.0]), 0)[0].item()
    assert (drawn == 0).float().mean().item() == pytest.approx(expected, abs=0.03)
    forbidden = -float("inf")
    assert set(draw([forbidden, 0.0, forbidden, 0.0, forbidden], 500)) == {1, 3}


def test_rows_draw_from_their_own_generators():
    rows = torch.zeros(2, 50)
    alone = draw([0.0] * 50, 5, seed=7)
    generators = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(7)]
    beside = [choose_tokens(rows, temperature=1.0, generators=generators)[1] for _ in range(5)]
    assert beside == alone


def test_seeds_of_draws_differ_by_all_that_names_a_conversation():
    conversations = [
        Conversation(make_example(number), sample, planted)
        for number in (0, 1)
        for sample in (0, 1)
        for planted in (False, True)
    ]
    seeds = {each.seed(seed) for each in conversations for seed in (0, 1)}
    assert len(seeds) == 16 and all(0 <= seed < 2**63 for seed in seeds)


def test_cache_keeps_each_slot_at_its_own_length():
    cache = SlotCache(3)
    states = torch.arange(2 * 1 * 2 * 1, dtype=torch.float32).view(2, 1, 2, 1) + 1
    cache.select(torch.tensor([0, 2]), torch.tensor([[0, 1], [0, 1]]))
    keys, values = cache.update(states, -states, 0)
    assert keys.flatten().tolist() == [1, 2, 3, 4]
    assert values.flatten().tolist() == [-1, -2, -3, -4]
    # Slot 0 overwrites its second column, which was padding; slot 1 begins.
    cache.select(torch.tensor([0, 1]), torch.tensor([[1], [0]]))
    keys, _ = cache.update(states[:, :, :1] * 10, states[:, :, :1], 0)
    assert keys.flatten().tolist() == [1, 10, 30, 0]


def test_cache_grows_and_keeps_what_it_holds():
    cache = SlotCache(1)
    cache.select(torch.tensor([0]), torch.arange(3)[None])
    cache.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), 0)
    cache.select(torch.tensor([0]), torch.arange(3, 303)[None])
    keys, _ = cache.update(torch.zeros(1, 2, 300, 4), torch.zeros(1, 2, 300, 4), 0)
    assert keys.shape == (1, 2, 303, 4)
    assert keys.sum() == 3 * 2 * 4
