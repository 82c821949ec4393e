"""How fast rollouts are against a plain loop: python tests/benchmarks/rollouts.py

The plain loop is what one writes first: an example at a time, every turn encoded anew from the
whole conversation, its images included, and given to transformers' `model.generate` (which keeps a
cache within the turn). Both sides are greedy, in float32, with the embedded base on the same
examples of every task; they take turns for three rounds, so that what else the machine does
falls on both. Exit code 1 where an answer differs or the middle ratio is below 5.
"""

import argparse
import json
import statistics
import time

import torch

from pixelis.config import DataPrepConfig
from pixelis.data.chat import (
    Message,
    observation_message,
    parse_reply,
    prompt_messages,
)
from pixelis.data.encode import Encoder, collate
from pixelis.data.generate import generate_example
from pixelis.data.prepare import plan_samples
from pixelis.data.tasks import TASKS
from pixelis.evaluation.rollout import roll_out
from pixelis.models.load import load_model, load_processor
from pixelis.operations import Observation, execute

NEEDED_RATIO = 5.0
LIMITS = {"max_operations": 8, "max_new_tokens": 96}


@torch.inference_mode()
def generate_turn(model, encoder, messages, max_new_tokens):
    """The model's next turn, the plain way: its text."""
    batch = collate([encoder.encode(messages, add_generation_prompt=True)], encoder)
    del batch["labels"]
    stops = [encoder.end_of_turn_id, encoder.tokenizer.pad_token_id]
    output = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        suppress_tokens=[encoder.image_token_id],
        eos_token_id=stops,
        pad_token_id=stops[1],
    )[0].tolist()
    said = output[batch["input_ids"].shape[1] :]
    said = said[:-1] if said[-1] in stops else said
    return encoder.tokenizer.decode(said, clean_up_tokenization_spaces=False)


def plain_rollout(model, encoder, example, *, max_operations, max_new_tokens):
    """One example, turn by turn: what it answers, and how many turns it took."""
    messages = prompt_messages(example.question, example.images)
    for turn in range(max_operations + 1):
        text = generate_turn(model, encoder, messages, max_new_tokens)
        reply = parse_reply(text)
        if reply.answer is not None:
            return reply.answer, turn + 1
        if reply.error:
            seen = Observation({"error": reply.error})
        else:
            seen = execute(reply.operation, reply.arguments, example.images)
        messages += [Message("assistant", (text,)), observation_message(seen)]
    return None, max_operations + 1


def plain_loop(model, encoder, examples):
    return [plain_rollout(model, encoder, example, **LIMITS) for example in examples]


def engine(model, encoder, examples, batch_size):
    rollouts = roll_out(model, encoder, examples, batch_size=batch_size, **LIMITS)
    return [(rollout.answer, len(rollout.turns)) for rollout in rollouts]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=240)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = load_model("pixelis-nano", torch_dtype="float32").eval()
    encoder = Encoder(load_processor("pixelis-nano", min_pixels=3136, max_pixels=12544))
    # As data-prep mixes them where nothing else is asked for.
    shares = {"self_correction": DataPrepConfig().self_correction_ratio}
    examples = [
        generate_example(seed=17, index=plan.index, task=plan.task, sample_type=plan.sample_type)
        for plan in plan_samples(arguments.examples, 17, list(TASKS), shares)
    ]
    sides = {
        "plain": lambda: plain_loop(model, encoder, examples),
        "engine": lambda: engine(model, encoder, examples, arguments.batch_size),
    }
    ratios, rates, same = [], {name: [] for name in sides}, True
    for number in range(arguments.rounds):
        seconds, found = {}, {}
        for name in sorted(sides, reverse=number % 2 == 0):
            began = time.perf_counter()
            found[name] = sides[name]()
            seconds[name] = time.perf_counter() - began
            rates[name].append(len(examples) / seconds[name])
        pairs = zip(found["plain"], found["engine"], strict=True)
        for index, (plain, ours) in enumerate(pairs):
            if plain != ours:
                same = False
                print(f"example {index}: plain {plain}, engine {ours}", flush=True)
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
        "turns": sum(turns for _, turns in found["engine"]),
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
