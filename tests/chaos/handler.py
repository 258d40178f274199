"""The Handler of the runs: answers with the digest of what arrived, or misbehaves as its payload says. Published as a file of a project."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from typing import Any

LEAKED: list[bytearray] = []


def throw(payload: dict[str, Any]) -> None:
    raise ValueError(f"no {payload['n']}")


def exit(payload: dict[str, Any]) -> None:
    os._exit(3)


def kill(payload: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash(payload: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(10)


def hang(payload: dict[str, Any]) -> None:
    threading.Event().wait(payload["for"])


def stuck(payload: dict[str, Any]) -> None:
    threading.Event().wait()


def gil(payload: dict[str, Any]) -> None:
    # A foreign function that is called with the GIL held, as careless native code does.
    ctypes.PyDLL(None).usleep(int(payload["for"] * 1e6))


def leak(payload: dict[str, Any]) -> None:
    LEAKED.append(bytearray(os.urandom(4096)) * 2000)


def clone(payload: dict[str, Any]) -> None:
    # The child goes on as if it were the replica: out of the handler, into the runtime.
    os.fork()


def child(payload: dict[str, Any]) -> None:
    subprocess.Popen(["sleep", "600"])


def daemon(payload: dict[str, Any]) -> None:
    subprocess.Popen(["sleep", "600"], start_new_session=True)


DEEDS = {deed.__name__: deed for deed in (throw, exit, kill, crash, hang, stuck, gil, leak, clone, child, daemon)}


class Handler:
    def handle_async(self, payload: Any, request_id: str) -> dict[str, Any]:
        if isinstance(payload, dict):
            if payload.get("note"):
                self.note(payload, request_id)
            if payload.get("do"):
                DEEDS[payload["do"]](payload)
            time.sleep(payload.get("sleep", 0))
        return {"digest": hashlib.sha256(self.sent(payload) + request_id.encode()).hexdigest(), "id": request_id}

    @staticmethod
    def sent(payload: Any) -> bytes:
        """The body that this payload was parsed from."""
        if isinstance(payload, bytes):
            return payload
        if isinstance(payload, str):
            return payload.encode()
        return json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()

    @staticmethod
    def note(payload: dict[str, Any], request_id: str) -> None:
        """Write down when it began, and hold the first one so that it can be killed here."""
        began = time.time()
        with open(payload["note"], "a+") as file:
            file.seek(0)
            again = request_id in file.read()
            file.write(f"{request_id} {began} {os.getpid()}\n")
        if not again:
            time.sleep(5)
