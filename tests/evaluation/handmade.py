"""Builders of examples, turns and rollouts, and a generator of scripted turns."""

from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.evaluation.decoder import GeneratedTurn
from pixelis.evaluation.rollout import Conversation, RolloutSettings, run_conversations
from pixelis.evaluation.turns import Rollout, Turn


def make_example(number=0, *, truth="red", task="attribute_recognition", **changed):
    values = {
        "id": f"e{number}",
        "task": task,
        "sample_type": "positive",
        "question": "?",
        "images": (Image.new("RGB", (28, 28)),),
        "trajectory": (),
        "conclusion": "",
        "answer": truth,
        "ground_truth": truth,
        "difficulty": "simple",
    }
    return Example(**values | changed)


def make_step(operation, arguments, result=None, *, thought="", supervised=True):
    return Step(thought, operation, arguments, result or {}, supervised=supervised)


def make_turn(kind, **changed):
    values = {
        "text": "",
        "operation": "READ_TEXT" if kind == "call" else "",
        "arguments": None,
        "answer": None,
        "result": None,
        "image": None,
        "num_new_tokens": 10,
        "ended": True,
    }
    return Turn(kind=kind, **values | changed)


def make_rollout(example, answer, turns=(), outcome="answered", **changed):
    return Rollout(
        example_id=example.id,
        turns=tuple(turns),
        answer=answer,
        outcome=outcome,
        **changed,
    )


def tokenize(encoder, text):
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


class Script:
    """A generator of given texts, which keeps what is appended to each conversation."""

    def __init__(self, encoder, *scripts):
        """Take one list of texts a conversation, in the order in which they start."""
        self.encoder = encoder
        self.scripts = list(scripts)
        self.texts = {}
        self.appended = {}
        self.pending = []

    def reset(self, slot, seed=0):
        self.texts.pop(slot, None)

    def append(self, slot, tokens, images):
        if slot not in self.texts:
            self.texts[slot] = iter(self.scripts.pop(0))
            self.appended[slot] = []
        self.appended[slot].append((list(tokens), list(images)))
        self.pending.append(slot)

    def generate(self):
        pending, self.pending = self.pending, []
        turns = [(slot, tokenize(self.encoder, next(self.texts[slot]))) for slot in pending]
        return [GeneratedTurn(slot, tuple(tokens), True) for slot, tokens in turns]


def run_script(encoder, example, *texts, max_operations=8, planted=False):
    """Roll out one example with given texts: the rollout, and what was appended before each."""
    script = Script(encoder, texts)
    conversations = [Conversation(example, planted=planted)]
    settings = RolloutSettings(max_operations=max_operations)
    [rollout] = run_conversations(script, encoder, conversations, settings)
    return rollout, script.appended[0]
