"""What ``retain.redact`` names: hidden in a request's own texts while it runs, and in the payload that stays after its end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from jupyter_cortex.core import json_paths
from jupyter_cortex.core.errors import PayloadError
from jupyter_cortex.core.readers import FieldError

from . import payload
from .masking import STARS, spellings

#: Shorter values ("M", "7", "on") stand in every text by chance; a card's check digits are three.
SHORTEST = 3
#: With more values than this the search would take longer than the handler: the whole text goes.
MOST_VALUES = 1000
_ECHO = re.compile(r" \(near .*\)(?=; )", re.DOTALL)


class Mask:
    """The values of one request that must not be read anywhere. Its forms are made when the first text asks."""

    def __init__(self, values: Iterable[Any]) -> None:
        # print() cuts a text of several lines into several records, so each line of it counts as well.
        texts = (part for value in values for text in [_text(value)] for part in (text, *text.splitlines()))
        self._values = {text for text in texts if len(text.strip()) >= SHORTEST}
        self.size = sum(map(len, self._values))
        self._made: tuple[list[str], list[str]] | None = None

    def __bool__(self) -> bool:
        return bool(self._values)

    def text(self, text: str) -> str:
        """``text`` with every value replaced: as it is, as Python shows it, and as JSON has it."""
        if len(self._values) > MOST_VALUES:
            return STARS
        for form in self._forms()[0]:
            if form in text:
                text = text.replace(form, STARS)
        return text

    def is_in_line(self, line: str) -> bool:
        """Whether an encoded JSON line may hold a value."""
        return len(self._values) > MOST_VALUES or any(form in line for form in self._forms()[1])

    def _forms(self) -> tuple[list[str], list[str]]:
        if self._made is None:
            plain = set(self._values)
            for value in self._values:
                plain |= spellings(value) | {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            # Longest first: with "abcd" and "abcdef" known, the longer one must not leave "ef" behind.
            self._made = sorted(plain, key=len, reverse=True), [json.dumps(form)[1:-1] for form in plain]
        return self._made


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    # Nobody learns anything from a boolean or a null, and hiding each "True" would hide the text.
    return "" if value is None or isinstance(value, bool) else json.dumps(value)


class Redaction:
    """The paths of one spec, read once. One that an earlier release took and this one cannot read redacts everything."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._readable = True
        self._paths: list[tuple[json_paths.Step, ...]] = []
        for path in paths:
            try:
                self._paths.append(json_paths.parse(path))
            except FieldError:
                self._readable = False

    def mask(self, arrived: Any, content_type: str | None) -> Mask | None:
        """The values of a payload, as `payload.parse` gave it, that its texts must not show; None when there are none."""
        if not _is_json(content_type):
            return None
        found: list[Any] = []

        def seen(value: Any) -> Any:
            found.extend(json_paths.leaves(value))
            return value

        for steps in self._paths:
            json_paths.replace(arrived, steps, seen)
        return Mask(found) or None

    def applied(self, body: bytes, content_type: str | None) -> bytes | None:
        """The body with ``***`` for what the paths name: the same object when they name nothing in it, None when it is no JSON and must not stay."""
        if not self._readable or not _is_json(content_type):
            return None
        try:
            document = [payload.parse(body, content_type)]
        except PayloadError:
            return None
        changed = False

        def hidden(value: Any) -> str:
            nonlocal changed
            changed = True
            return STARS

        for steps in self._paths:
            json_paths.replace(document[0], steps, hidden)
        if not changed:
            return body
        try:
            return json.dumps(document[0]).encode()
        except RecursionError:
            return None


def without_echo(error: PayloadError) -> PayloadError:
    """The refusal of a payload that nobody could read, without the characters of it that help its sender only."""
    return PayloadError(_ECHO.sub("", error.message), **error.details)


def _is_json(content_type: str | None) -> bool:
    return content_type is not None and payload.parse_content_type(content_type)[0] == "application/json"
