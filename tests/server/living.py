"""A handler that does what its payload says, and a reader of event streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

HANDLER = """
import ctypes
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from cortex_internal.lib.log import logger

from jupyter_cortex import cancelled, progress


def note(request_id, word):
    with open(os.environ["TRACE"], "a") as file:
        file.write(f"{request_id} {word} {os.getpid()} {time.time()}\\n")


class Handler:
    def handle_async(self, payload, request_id):
        note(request_id, "began")
        try:
            return getattr(self, payload["do"])(payload)
        except BaseException as error:
            note(request_id, type(error).__name__)
            raise

    def echo(self, payload):
        return payload

    def wait(self, payload):
        while not os.path.exists(payload["for"]):
            time.sleep(0.01)
        return {"waited": True}

    def steps(self, payload):
        for step in range(payload["steps"]):
            logger.info(f"step {step}")
            progress(step / payload["steps"], f"step {step}", partial={"done": step} if payload.get("partial") else None)
            time.sleep(payload.get("pause", 0.12))
        progress(1, "done")
        return {"steps": payload["steps"]}

    def polite(self, payload):
        while not cancelled():
            time.sleep(0.01)
        return {"polite": True}

    def tells(self, payload):
        while True:
            progress(0.5, "on my way")
            time.sleep(0.02)

    def loop(self, payload):
        while True:
            pass

    def sleep(self, payload):
        time.sleep(payload.get("seconds", 600))
        return {"slept": True}

    def child(self, payload):
        subprocess.run(["sleep", "600"], check=True)

    def recv(self, payload):
        one, other = socket.socketpair()
        other.recv(1)

    def lock(self, payload):
        threading.Event().wait()

    def gil(self, payload):
        ctypes.PyDLL(None).sleep(payload.get("seconds", 600))
        return {"slept": True}

    def stubborn(self, payload):
        end = time.monotonic() + payload.get("seconds", 600)
        while time.monotonic() < end:
            try:
                time.sleep(0.05)
            except:
                pass
        return {"stubborn": True}
"""

ASYNC_HANDLER = """
import asyncio, os, time


def note(request_id, word):
    with open(os.environ["TRACE"], "a") as file:
        file.write(f"{request_id} {word} {os.getpid()} {time.time()}\\n")


class Handler:
    async def handle_async(self, payload, request_id):
        note(request_id, "began")
        try:
            await asyncio.sleep(payload.get("seconds", 600))
        except asyncio.CancelledError:
            note(request_id, "CancelledError")
            raise
        return {"slept": True}
"""


@dataclass
class Event:
    id: str
    kind: str
    data: Any


def events(http: httpx.Client, path: str, last: str = "", **headers: str) -> Iterator[Event]:
    """What a stream says until it ends; a comment is None of it."""
    with http.stream("GET", path, headers={**({"last-event-id": last} if last else {}), **headers}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
                fields = {}
