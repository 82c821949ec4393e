"""Compare the speed of rollouts with a plain loop: python benchmarks/rollouts.py

The plain loop is the simplest program: one example at a time, every turn encoded again from the
complete conversation with its images, and `model.generate` of transformers (which keeps a cache
within the turn). Both sides are greedy, in float32, with the embedded base on the same examples of
every task; they alternate for three rounds, so that other load on the machine affects both. The
exit code is 1 if an answer differs or the median ratio is below 5.

For a difference it prints which side changed between rounds (other shapes or numbers of threads
round differently, which can reverse a tie to about six digits), and the first different token with
the two largest logits of both sides: the plain side's for the same prompt, the engine's for this
conversation alone.
"""

import argparse
import json
import statistics
import time

import torch

from pixelis.config import DataPrepConfig
from pixelis.data.chat import parse_reply, prompt_messages, response_message
from pixelis.data.encode import IGNORE_INDEX, Encoded, Encoder, collate
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.streams import plan_samples
from pixelis.data_prep.tasks import TASKS
from pixelis.evaluation import rollout as rollout_module
from pixelis.evaluation.decoder import Decoder
from pixelis.evaluation.rollout import (
    Conversation,
    RolloutSettings,
    encode_response,
    roll_out,
    run_conversations,
    shared_prefix,
)
from pixelis.models.load import load_model, load_processor
from pixelis.operations import Observation, execute

NEEDED_RATIO = 5.0
LIMITS = {"max_operations": 8, "max_new_tokens": 96}


@torch.inference_mode()
def generate_turn(model, encoder, batch, max_new_tokens, with_logits=False):
    """Generate the next turn with transformers; return tokens and logits (tokens, vocabulary)."""
    batch = collate([batch], encoder)
    del batch["labels"]
    batch.pop("kinds", None)
    stops = [encoder.end_of_turn_id, encoder.tokenizer.pad_token_id]
    output = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        suppress_tokens=[encoder.image_token_id],
        eos_token_id=stops,
        pad_token_id=stops[1],
        return_dict_in_generate=True,
        output_logits=with_logits,
    )
    tokens = output.sequences[0].tolist()[batch["input_ids"].shape[1] :]
    logits = torch.stack(output.logits)[:, 0] if with_logits else None
    return (tokens[:-1] if tokens[-1] in stops else tokens), logits


def plain_rollout(model, encoder, example, *, max_operations, max_new_tokens, tops=None):
    """Roll out one example with the plain loop; return its answer and the tokens of its turns.

    The generated tokens are kept, not encoded again from their text: another tokenisation of the
    same text would be another conversation. Images are encoded again every turn.
    """
    context = encoder.encode(
        prompt_messages(example.question, example.images), add_generation_prompt=True
    )
    turns = []
    for _ in range(max_operations + 1):
        tokens, logits = generate_turn(model, encoder, context, max_new_tokens, tops is not None)
        turns.append(tuple(tokens))
        if tops is not None:
            tops.append([top_two(row) for row in logits])
        text = encoder.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        reply = parse_reply(text)
        if reply.answer is not None:
            return reply.answer, tuple(turns)
        if reply.error:
            observation = Observation({"error": reply.error})
        else:
            observation = execute(reply.operation, reply.arguments, example.images)
        response = encode_response(encoder, response_message(observation.result, observation.image))
        ids = [*context.input_ids, *tokens, encoder.end_of_turn_id, *response.input_ids]
        images = (*context.images, *response.images)
        context = Encoded(ids, [IGNORE_INDEX] * len(ids), 0, images)
    return None, tuple(turns)


def top_two(row):
    """Return the two largest logits with their tokens."""
    values, tokens = row.float().topk(2)
    return list(zip(tokens.tolist(), values.tolist(), strict=True))


def plain_loop(model, encoder, examples):
    return [plain_rollout(model, encoder, example, **LIMITS) for example in examples]


class Watched(Decoder):
    """The engine's decoder, which keeps the tokens of each turn and their top two logits."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.tops, self.turns = [[]], []

    def generate(self):
        finished = super().generate()
        for turn in finished:
            self.turns.append(turn.tokens)
            self.tops.append([])
        return finished


def watch_engine(model, encoder, example):
    """Run the engine on one example; return its turns and the top two logits of every token."""
    decoder = Watched(
        model,
        encoder,
        num_slots=1,
        max_new_tokens=LIMITS["max_new_tokens"],
        prefix=shared_prefix(encoder),
    )

    def keep(_module, _inputs, output):
        if decoder._slots[0].generating:
            row = output.logits[0, 0].clone()
            row[encoder.image_token_id] = -torch.inf
            decoder.tops[-1].append(top_two(row))

    hook = model.register_forward_hook(keep)
    try:
        conversations = [Conversation(example)]
        run_conversations(decoder, encoder, conversations, RolloutSettings(**LIMITS))
    finally:
        hook.remove()
    return tuple(decoder.turns), decoder.tops


def engine(model, encoder, examples, batch_size):
    """Run the engine in batches; return the answers and the tokens of the turns."""
    tokens_by_images = {}
    process_turn = rollout_module.process_turn

    def keep(encoder, generated, images, earlier, **more):
        tokens_by_images.setdefault(id(images), []).append(tuple(generated.tokens))
        return process_turn(encoder, generated, images, earlier, **more)

    rollout_module.process_turn = keep
    try:
        settings = RolloutSettings(**LIMITS, batch_size=batch_size)
        conversations = [Conversation(example) for example in examples]
        rollouts = roll_out(model, encoder, conversations, settings)
    finally:
        rollout_module.process_turn = process_turn
    return [
        (r.answer, tuple(tokens_by_images[id(e.images)]))
        for r, e in zip(rollouts, examples, strict=True)
    ]


def first_difference(one, other):
    """Return the first turn and token at which two rollouts differ; None without a difference."""
    for turn, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            pairs = zip(a, b, strict=False)
            return turn, next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
    return None


def print_difference(model, encoder, example, index, plain, ours, earlier):
    """Print a difference: which side changed since earlier rounds, and the logits of both."""
    print(f"example {index}: plain {plain[0]!r}, engine {ours[0]!r}, threads "
          f"{torch.get_num_threads()}")  # fmt: skip
    for name, now in (("plain", plain), ("engine", ours)):
        before = [answers[name][index] for answers in earlier]
        changed = "no earlier round" if not before else (
            "changed between rounds" if any(b != now for b in before) else "the same in every round"
        )  # fmt: skip
        print(f"  {name}: {changed}")
    position = first_difference(plain[1], ours[1])
    if position is None:
        print("  no token differs", flush=True)
        return
    turn, token = position
    tops = []
    plain_rollout(model, encoder, example, **LIMITS, tops=tops)
    _, engine_tops = watch_engine(model, encoder, example)
    for name, turns, logits in (("plain", plain[1], tops), ("engine", ours[1], engine_tops)):
        chosen = turns[turn][token] if token < len(turns[turn]) else encoder.end_of_turn_id
        top = logits[turn][token] if turn < len(logits) and token < len(logits[turn]) else None
        text = encoder.tokenizer.decode([chosen])
        print(f"  {name}: turn {turn + 1}, token {token + 1}: {chosen} {text!r}; run again "
              f"alone, its two largest logits: {top}", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=240)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = load_model("pixelis-nano", torch_dtype="float32").eval()
    encoder = Encoder(load_processor("pixelis-nano", min_pixels=3136, max_pixels=12544))
    # data-prep's default mix
    shares = {"self_correction": DataPrepConfig().self_correction_ratio}
    examples = [
        generate_example(seed=17, index=plan.index, task=plan.task, sample_type=plan.sample_type)
        for plan in plan_samples(arguments.examples, 17, list(TASKS), shares)
    ]
    sides = {
        "plain": lambda: plain_loop(model, encoder, examples),
        "engine": lambda: engine(model, encoder, examples, arguments.batch_size),
    }
    ratios, rates, same, earlier = [], {name: [] for name in sides}, True, []
    for number in range(arguments.rounds):
        seconds, answers = {}, {}
        for name in sorted(sides, reverse=number % 2 == 0):
            began = time.perf_counter()
            answers[name] = sides[name]()
            seconds[name] = time.perf_counter() - began
            rates[name].append(len(examples) / seconds[name])
        pairs = zip(answers["plain"], answers["engine"], strict=True)
        for index, (plain, ours) in enumerate(pairs):
            if plain[0] != ours[0] or len(plain[1]) != len(ours[1]):
                same = False
                print_difference(model, encoder, examples[index], index, plain, ours, earlier)
        earlier.append(answers)
        ratios.append(seconds["plain"] / seconds["engine"])
        print(
            f"round {number + 1}: "
            + ", ".join(f"{name} {rates[name][-1]:.2f} rollouts/s" for name in sides)
            + f", ratio {ratios[-1]:.2f}",
            flush=True,
        )
    result = {
        "examples": len(examples),
        "threads": torch.get_num_threads(),
        "turns": sum(len(turns) for _, turns in answers["engine"]),
        "same_answers": same,
        "rollouts_per_second": {
            name: [round(value, 2) for value in values] for name, values in rates.items()
        },
        "ratio": {
            "min": round(min(ratios), 2),
            "median": round(statistics.median(ratios), 2),
            "max": round(max(ratios), 2),
        },
    }
    print(json.dumps(result, indent=2))
    return 0 if same and result["ratio"]["median"] >= NEEDED_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
