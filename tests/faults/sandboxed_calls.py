"""A process in which operations are called until one opens a file, starts a process or a socket.

Run as `python -m tests.faults.sandboxed_calls`; prints how many calls were made and refused.
"""

import json
import random
import sys

from PIL import Image, ImageDraw

from pixelis.data.chat import parse_reply
from pixelis.operations import OPERATIONS, execute

WATCHED = (
    *("open", "subprocess.", "socket.", "os.", "shutil.", "ctypes.", "exec", "compile", "urllib"),
    *("ftplib", "http", "smtplib", "tempfile", "pty", "webbrowser", "mmap", "import"),
)
PATHS = ("/etc/passwd", "../x", "file:///etc/passwd", "http://localhost:1/", "$(touch /tmp/x)")


def a_picture():
    image = Image.new("RGB", (128, 96), (235, 235, 235))
    drawing = ImageDraw.Draw(image)
    drawing.ellipse((10, 10, 40, 40), fill=(215, 35, 40))
    drawing.rectangle((60, 20, 90, 50), fill=(35, 70, 215))
    drawing.text((60, 60), "K4", fill=(20, 20, 20))
    return image


def a_box(rng):
    x, y = rng.randrange(-2, 80), rng.randrange(-2, 60)
    return [x, y, x + rng.randrange(-1, 48), y + rng.randrange(-1, 36)]


def a_value(rng):
    return rng.choice(
        [
            *PATHS,
            *(None, True, -1, 10**30, 1.5, [], {}, [[1]], {"path": "/etc/passwd"}),
            *(a_box(rng), {"size": [96, 128], "counts": [5, 10, 96 * 128 - 15]}),
        ]
    )


def a_call(rng):
    """The right arguments, or some of them wrong, missing, or one too many."""
    name = rng.choice(
        [*OPERATIONS, *OPERATIONS, *OPERATIONS, "os.system", "__import__", "open", "ZOOM_IN "]
    )
    arguments = {"bbox": a_box(rng)}
    if name == "ZOOM_IN":
        arguments["factor"] = rng.randrange(0, 6)
    if name == "SEGMENT_OBJECT_AT":
        arguments = {"x": rng.randrange(-2, 130), "y": rng.randrange(-2, 98)}
    if name == "GET_PROPERTIES" and rng.random() < 0.5:
        arguments = {"mask": {"size": [96, 128], "counts": [500, 40, 96 * 128 - 540]}}
    if name == "TRACK_OBJECT":
        arguments["frames"] = rng.choice([[1, 2], [1, 2, 3], [2, 3], [1, 9]])
    if rng.random() < 0.3:
        arguments[rng.choice([*arguments, "path", "command", "url"])] = a_value(rng)
    return name, arguments


def main():
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    images = [a_picture(), a_picture().rotate(3, fillcolor=(235, 235, 235)), a_picture()]
    rng = random.Random(seed)
    # What an operation reads of its own packages, and imports late, it does at its first call.
    for _ in range(300):
        execute(*a_call(rng), images)
    seen = []

    def watch(event, arguments):
        if event.startswith(WATCHED):
            seen.append(f"{event} {arguments!r:.200}")
            raise PermissionError(event)

    sys.addaudithook(watch)
    refused = 0
    for _ in range(count):
        name, arguments = a_call(rng)
        text = json.dumps({"name": name, "arguments": arguments})
        reply = parse_reply(f"<tool_call>{text}</tool_call>")
        refused += execute(reply.operation, reply.arguments, images).is_error
    if "break" in sys.argv:  # that the hook sees what it is there for
        try:
            open("/etc/hostname")
        except PermissionError:
            pass
    sys.stdout.write(json.dumps({"calls": count, "refused": refused, "seen": seen}))


if __name__ == "__main__":
    main()
