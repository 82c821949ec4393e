"""Examples, turns and rollouts by hand, for tests of what is computed from them; a speaker too."""

from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.evaluation.decoder import Utterance
from pixelis.evaluation.turns import Rollout, Turn


def make_example(number=0, *, truth="red", task="attribute_recognition", **changed):
    told = {
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
    return Example(**told | changed)


def make_step(operation, arguments, result=None, *, thought="", supervised=True):
    return Step(thought, operation, arguments, result or {}, supervised=supervised)


def make_turn(kind, **changed):
    told = {
        "text": "",
        "operation": "READ_TEXT" if kind == "call" else "",
        "arguments": None,
        "answer": None,
        "result": None,
        "image": None,
        "num_new_tokens": 10,
        "ended": True,
    }
    return Turn(kind=kind, **told | changed)


def make_rollout(example, answer, turns=(), outcome="answered", **changed):
    return Rollout(
        example_id=example.id,
        difficulty=example.difficulty,
        task=example.task,
        sample_type=example.sample_type,
        turns=tuple(turns),
        answer=answer,
        outcome=outcome,
        **changed,
    )


def tokenize(encoder, text):
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


class Script:
    """A speaker that says given texts, and keeps what it hears."""

    def __init__(self, encoder, *scripts):
        """One script a conversation, in the order in which they begin."""
        self.encoder = encoder
        self.scripts = list(scripts)
        self.lines = {}
        self.heard = {}
        self.due = []

    def clear(self, slot, seed=0):
        self.lines.pop(slot, None)

    def hear(self, slot, tokens, images):
        if slot not in self.lines:
            self.lines[slot] = iter(self.scripts.pop(0))
            self.heard[slot] = []
        self.heard[slot].append((list(tokens), list(images)))
        self.due.append(slot)

    def speak(self):
        due, self.due = self.due, []
        said = [(slot, tokenize(self.encoder, next(self.lines[slot]))) for slot in due]
        return [Utterance(slot, tuple(tokens), True) for slot, tokens in said]
