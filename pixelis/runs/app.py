"""A page in the browser that asks an adapter, and its base beside it, about uploaded images."""

import email
import email.policy
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pixelis.config import ModelConfig
from pixelis.data.encode import Encoder
from pixelis.data.example import Example, question_only
from pixelis.data.images import load_image
from pixelis.errors import ConfigError, DataError, UserError
from pixelis.evaluation.cards import Act, draw_frames, render, render_macro, turn_calls
from pixelis.evaluation.evaluate import ADAPTER, BASE
from pixelis.evaluation.rollout import Conversation, encode_prompt
from pixelis.models.load import silence_libraries
from pixelis.runs.ask import ask, describe_ending, load_asked
from pixelis.tracking import find_adapter

HOST = "127.0.0.1"  # nobody else reaches it

logger = logging.getLogger(__name__)


def run_app(adapter: str | None, experiment: str, port: int, model_config: ModelConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: when there is no such adapter, or the port is in use.
    """
    silence_libraries()
    address = find_adapter(adapter, experiment)
    model, encoder = load_asked(address, model_config)
    about = f"adapter {address}, base {model_config.model_name}"
    with AskServer(port, model, encoder, about) as server:
        print(f"app: http://{HOST}:{server.server_port}; Ctrl-C ends it", flush=True)
        server.serve_forever()


class AskServer(ThreadingHTTPServer):
    """A server for this machine alone, whose model answers one question at a time."""

    daemon_threads = True

    def __init__(self, port: int, model: Any, encoder: Encoder, about: str) -> None:
        """Listen on a port; 0 takes any that is free."""
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(f"port must be free, got {port} ({error.strerror})") from error
        self.model, self.encoder, self.about = model, encoder, about
        self.answering = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    """The page with the form, and a page for each question that is sent by it."""

    server: AskServer

    def do_GET(self) -> None:
        """Send the form."""
        if self.path != "/":
            self.send_error(404)
            return
        self._begin(200)
        self._write(render("app.html.jinja", about=self.server.about))

    def do_POST(self) -> None:
        """Answer a question, and send each turn when it ends."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            with self.server.answering:
                self._answer_form(body)
        except ConnectionError:
            logger.info("the browser did not wait for the answer")

    def _answer_form(self, body: bytes) -> None:
        try:
            example, labels = read_form(self.headers.get("Content-Type", ""), body)
            encode_prompt(self.server.encoder, Conversation(example))
        except UserError as error:
            self._begin(400)
            self._write(render("answer.html.jinja", question="", error=str(error)))
            return
        self._begin(200)
        self._write(render("answer.html.jinja", question=example.question, error=""))
        for label in labels:
            self._answer(example, label)

    def _answer(self, example: Example, label: str) -> None:
        def send(act: Act) -> None:
            self._write(render_macro("acts", [act]))

        self._write(f"<section><h2>{label}</h2>\n")
        rollout = ask(self.server.model, self.server.encoder, example, label, send)
        self._write(f"<p><b>{describe_ending(rollout)}</b></p>\n")
        self._write(render_macro("pictures", draw_frames(example, turn_calls(rollout.turns))))
        self._write("</section>\n")

    def _begin(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()

    def _write(self, text: str) -> None:
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing for each request."""


def read_form(content_type: str, body: bytes) -> tuple[Example, tuple[str, ...]]:
    """Read a question from the form's multipart/form-data (RFC 7578).

    Returns:
        The example, and which models are asked: the adapter, and the base if it is ticked.

    Raises:
        DataError: when the question or the images are missing, or an image does not open.
    """
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    values: dict[str, list[bytes]] = {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        if isinstance(content, bytes) and content:
            name = str(part.get_param("name", header="content-disposition"))
            values.setdefault(name, []).append(content)
    if "image" not in values or "question" not in values:
        raise DataError("choose an image and write a question")
    question = values["question"][0].decode(errors="replace")
    images = tuple(load_image(content) for content in values["image"])
    labels = (ADAPTER, BASE) if "base" in values else (ADAPTER,)
    return question_only("of the form", question, images), labels
