"""A TensorFlow Serving small enough for a test: the REST protocol of the real one, over HTTP, with models made of Python functions."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]+))?(/metadata|:predict)?")


def tensor(dtype: str, *sizes: int) -> dict[str, Any]:
    """A tensor of a signature, as the metadata route tells it; -1: any size."""
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in sizes], "unknown_rank": False}, "name": "x:0"}


ANY_SHAPE = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "x:0"}


class Version:
    """One version of a model: its signatures, and what it answers to inputs by column."""

    def __init__(self, signatures: dict[str, Any], answer: Callable[[dict[str, Any]], Any], state: str = "AVAILABLE") -> None:
        # TensorFlow's own module adds this one to what it exports.
        self.signatures = {"__saved_model_init_op": {"inputs": {}, "outputs": {}, "method_name": ""}, **signatures}
        self.answer, self.state = answer, state


def signature(inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, models: dict[str, dict[str, Version]]) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.models = models
        #: (path, body) of every request, in order.
        self.asked: list[tuple[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Routes(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route(None)

    def do_POST(self) -> None:
        self._route(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _route(self, body: Any) -> None:
        self.server.asked.append((self.path, body))
        match = _PATH.fullmatch(self.path)
        name, number, verb = match.groups() if match else ("", None, None)
        versions = self.server.models.get(name or "")
        if versions is None or (number and number not in versions):
            self._answer(404, {"error": f"Servable not found for request: Specific({name}, {number})"})
        elif verb is None:
            rows = [{"version": key, "state": one.state, "status": {"error_code": "OK", "error_message": ""}} for key, one in versions.items()]
            self._answer(200, {"model_version_status": rows})
        elif verb == "/metadata":
            about = {"signature_def": {"signature_def": versions[str(number)].signatures}}
            self._answer(200, {"model_spec": {"name": name, "signature_name": "", "version": number}, "metadata": about})
        else:
            try:
                self._answer(200, {"outputs": versions[str(number)].answer(body["inputs"])})
            except ValueError as error:
                self._answer(400, {"error": str(error)})

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(models: dict[str, dict[str, Version]]) -> Iterator[Server]:
    server = Server(models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def irises(scale: int = 1) -> Version:
    """Takes four measurements per flower; tells the class and its chances, in several types."""

    def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        rows = inputs["measurements"]
        if any(number < 0 for row in rows for number in row):
            raise ValueError("a flower has no negative length")
        return {"class_ids": [[scale * len(row)] for row in rows], "chances": [[0.1, 0.9] for _ in rows], "names": ["setosa" for _ in rows]}

    outputs = {"class_ids": tensor("DT_INT64", -1, 1), "chances": tensor("DT_FLOAT", -1, 2), "names": tensor("DT_STRING", -1)}
    return Version({"predict": signature({"measurements": tensor("DT_FLOAT", -1, 4)}, outputs)}, answer)
