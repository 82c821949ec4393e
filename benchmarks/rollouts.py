"""Compare the speed of rollouts with a plain loop: python benchmarks/rollouts.py

The plain loop is the simplest program: one example at a time, every turn encoded again from the
complete conversation with its images, and `model.generate` of transformers (which keeps a cache
within the turn). Both sides are greedy, in float32, with the embedded base on the same examples of
every task; they alternate for three rounds, so that other load on the machine affects both. The
exit code is 1 if an answer or a number of turns differs, or the median ratio is below 5. (Other
shapes or numbers of threads round differently, which can reverse a tie to about six digits.)
"""

import argparse
import json
import statistics
import time

import torch
from rounds import alternate, spread

from pixelis.config import DataPrepConfig
from pixelis.data.chat import parse_reply, prompt_messages, response_message
from pixelis.data.encode import IGNORE_INDEX, Encoded, Encoder, collate
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.plan import plan_samples
from pixelis.data_prep.tasks import TASKS
from pixelis.evaluation.rollout import Conversation, RolloutSettings, encode_response, roll_out
from pixelis.models.load import load_model, load_processor
from pixelis.operations import Observation, execute

NEEDED_RATIO = 5.0
MAX_OPERATIONS, MAX_NEW_TOKENS = 8, 96


@torch.inference_mode()
def generate_turn(model, encoder, context):
    """Generate the tokens of the next turn with transformers."""
    batch = collate([context], encoder)
    del batch["labels"]
    batch.pop("kinds", None)
    stops = [encoder.end_of_turn_id, encoder.tokenizer.pad_token_id]
    output = model.generate(
        **batch,
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        suppress_tokens=[encoder.image_token_id],
        eos_token_id=stops,
        pad_token_id=stops[1],
    )
    tokens = output[0].tolist()[batch["input_ids"].shape[1] :]
    return tokens[:-1] if tokens[-1] in stops else tokens


def plain_rollout(model, encoder, example):
    """Roll out one example with the plain loop; return its answer and the texts of its turns.

    The generated tokens are kept, not encoded again from their text: another tokenisation of the
    same text would be another conversation. Images are encoded again every turn.
    """
    context = encoder.encode(
        prompt_messages(example.question, example.images), add_generation_prompt=True
    )
    texts = []
    for _ in range(MAX_OPERATIONS + 1):
        tokens = generate_turn(model, encoder, context)
        texts.append(encoder.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
        reply = parse_reply(texts[-1])
        if reply.answer is not None:
            return reply.answer, texts
        if reply.error:
            observation = Observation({"error": reply.error})
        else:
            observation = execute(reply.operation, reply.arguments, example.images)
        response = encode_response(encoder, response_message(observation.result, observation.image))
        ids = [*context.input_ids, *tokens, encoder.end_of_turn_id, *response.input_ids]
        images = (*context.images, *response.images)
        context = Encoded(ids, [IGNORE_INDEX] * len(ids), 0, images)
    return None, texts


def engine(model, encoder, examples, batch_size):
    """Roll out the examples in batches; return their answers and the texts of their turns."""
    settings = RolloutSettings(
        max_operations=MAX_OPERATIONS, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size
    )
    rollouts = roll_out(model, encoder, [Conversation(each) for each in examples], settings)
    return [(each.answer, [turn.text for turn in each.turns]) for each in rollouts]


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

    def timed(act):
        began = time.perf_counter()
        answers = act()
        return len(examples) / (time.perf_counter() - began), answers

    sides = {
        "plain": lambda: timed(lambda: [plain_rollout(model, encoder, each) for each in examples]),
        "engine": lambda: timed(lambda: engine(model, encoder, examples, arguments.batch_size)),
    }
    results = alternate(sides, arguments.rounds)
    same = True
    for number, ((_, plain), (_, ours)) in enumerate(zip(*results.values(), strict=True)):
        for index, (one, other) in enumerate(zip(plain, ours, strict=True)):
            if one[0] != other[0] or len(one[1]) != len(other[1]):
                same = False
                print(f"round {number + 1}, example {index}: plain {one}, engine {other}")
    rates = {name: [rate for rate, _ in rounds] for name, rounds in results.items()}
    ratios = [b / a for a, b in zip(rates["plain"], rates["engine"], strict=True)]
    for name, values in rates.items():
        print(f"{name}: {spread(values)} rollouts a second")
    print(f"ratio: {spread(ratios)}")
    result = {
        "examples": len(examples),
        "threads": torch.get_num_threads(),
        "turns": sum(len(texts) for _, texts in results["engine"][-1][1]),
        "same_answers": same,
        "ratio": round(statistics.median(ratios), 2),
    }
    print(json.dumps(result))
    return 0 if same and result["ratio"] >= NEEDED_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
