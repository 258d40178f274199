"""``.cortexignore``: patterns with the syntax and the behaviour of ``.gitignore``.

Matching is on bytes, as in git: ``?`` is one byte. Ask top-down, directories and files separately, and do not descend
into what is excluded: that is what makes "nothing below an excluded directory can be re-included" true.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_SPECIAL = b"*?[\\"

#: The byte sets of ``[[:name:]]`` in the C locale.
_CLASSES: dict[bytes, Callable[[int], bool]] = {
    b"alnum": lambda c: chr(c).isalnum(),
    b"alpha": lambda c: chr(c).isalpha(),
    b"blank": lambda c: c in b" \t",
    b"cntrl": lambda c: c < 32 or c == 127,
    b"digit": lambda c: c in b"0123456789",
    b"graph": lambda c: 32 < c < 127,
    b"lower": lambda c: chr(c).islower(),
    b"print": lambda c: 32 <= c < 127,
    b"punct": lambda c: 32 < c < 127 and not chr(c).isalnum(),
    b"space": lambda c: c in b" \t\n\v\f\r",
    b"upper": lambda c: chr(c).isupper(),
    b"xdigit": lambda c: c in b"0123456789abcdefABCDEF",
}


class _Invalid(ValueError):
    """The glob can match nothing."""


@dataclass(frozen=True)
class Rule:
    """One line: what it matches and what a match means."""

    pattern: re.Pattern[bytes]
    negative: bool
    directories_only: bool
    whole_path: bool  #: matched against the path from the root; otherwise against the last component


class IgnoreRules:
    """The lines of one ``.cortexignore``; a line that cannot match anything is dropped without an error."""

    def __init__(self, data: bytes = b"") -> None:
        lines = data.removeprefix(_BOM).split(b"\n")
        self.rules = [rule for line in lines if (rule := _rule(line)) is not None]

    def excludes(self, path: str, *, is_directory: bool) -> bool:
        """Whether the last line that matches ``path`` (posix, from the root) excludes it. A link is not a directory."""
        whole = os.fsencode(path)
        last = whole.rpartition(b"/")[2]
        for rule in reversed(self.rules):
            if rule.directories_only and not is_directory:
                continue
            if rule.pattern.fullmatch(whole if rule.whole_path else last):
                return not rule.negative
        return False


def _rule(line: bytes) -> Rule | None:
    line = _trimmed(line.removesuffix(b"\r").partition(b"\0")[0])
    if line.startswith(b"#"):
        return None
    negative = line.startswith(b"!")
    glob = line[negative:]
    directories_only = glob.endswith(b"/")
    if directories_only:
        glob = glob[:-1]
    whole_path = b"/" in glob
    glob = glob.removeprefix(b"/")
    if not glob:
        return None
    try:
        pattern = re.compile(_translate(glob), re.DOTALL)
    except _Invalid:
        return None
    return Rule(pattern, negative, directories_only, whole_path)


def _trimmed(line: bytes) -> bytes:
    """Without the spaces at the end, except one that a backslash escapes."""
    end = index = 0
    while index < len(line):
        index += 2 if line[index] == ord("\\") else 1
        if line[index - 1 : index] != b" " or line[index - 2 : index - 1] == b"\\":
            end = index
    return line[:end]


def _translate(glob: bytes) -> bytes:
    """The regular expression (bytes) of one glob; raises _Invalid when it can match nothing."""
    return b"".join(_Translation(glob).pieces())


class _Translation:
    """Walks over one glob. ``*`` becomes an atomic group that takes the first place where what follows it fits.

    That is exact (a later star can make up for an early choice) and keeps ``*a*a*a*a*b`` from taking exponential time.
    """

    def __init__(self, glob: bytes) -> None:
        self.glob, self.position = glob, 0
        # git compares the part before the first special character by itself; what follows it then counts as the
        # beginning of the glob, so that a ** right after it is delimited.
        self.start = next((index for index, char in enumerate(glob) if char in _SPECIAL), len(glob))

    def pieces(self) -> list[bytes]:
        pieces: list[bytes] = []
        fixed: list[bytes] = []  #: what came since the last star of this path component
        star = False

        def close() -> None:
            nonlocal star
            run = b"".join(fixed)
            pieces.append(b"(?>[^/]*?" + run + b")" if star else run)
            fixed.clear()
            star = False

        while self.position < len(self.glob):
            char = self.glob[self.position]
            if char == ord("*"):
                close()
                special = self._stars()
                star = special is None
                if special is not None:
                    pieces.append(special)
            else:
                fixed.append(self._single(char))
                if char == ord("/"):
                    close()
        if star:
            # The last star must reach the end of its component: its fixed part is sought from the back.
            pieces.append(b"[^/]*" + b"".join(fixed))
        else:
            close()
        return pieces

    def _stars(self) -> bytes | None:
        """Step over stars: None for an ordinary one, or the expression of a ``**`` that stands for directories."""
        glob, begin = self.glob, self.position
        end = begin
        while end < len(glob) and glob[end] == ord("*"):
            end += 1
        self.position = end
        free_before = begin in (0, self.start) or glob[begin - 1] == ord("/")
        if end - begin < 2 or not free_before:
            return None
        if end == len(glob):
            return b".*"
        if glob[end] == ord("/"):
            self.position = end + 1
            return b"(?:.*/)?"
        # Before an escaped slash it is still delimited, but then that slash must be there.
        return b".*" if glob[end : end + 2] == b"\\/" else None

    def _single(self, char: int) -> bytes:
        """The expression of one character that is not a star, or of one bracket."""
        self.position += 1
        if char == ord("?"):
            return b"[^/]"
        if char == ord("["):
            return self._bracket()
        if char == ord("\\"):
            char = self._next()
        return re.escape(bytes([char]))

    def _next(self) -> int:
        if self.position >= len(self.glob):
            raise _Invalid
        self.position += 1
        return self.glob[self.position - 1]

    def _bracket(self) -> bytes:
        """A set of bytes; the position is after its ``[``."""
        negated = self.glob[self.position : self.position + 1] in (b"!", b"^")
        self.position += negated
        members: set[int] = set()
        previous, char = 0, self._next()
        while True:
            if char == ord("-") and previous and self.glob[self.position : self.position + 1] not in (b"", b"]"):
                last = self._next()
                members.update(range(previous, (self._next() if last == ord("\\") else last) + 1))
                previous = 0
            elif char == ord("[") and self.glob[self.position : self.position + 1] == b":":
                previous = self._named_class(members)
            else:
                previous = self._next() if char == ord("\\") else char
                members.add(previous)
            char = self._next()
            if char == ord("]"):
                break
        chosen = (set(range(256)) - members if negated else members) - {ord("/")}
        if not chosen:
            raise _Invalid
        return b"[" + b"".join(b"\\x%02x" % member for member in sorted(chosen)) + b"]"

    def _named_class(self, members: set[int]) -> int:
        """``[:alpha:]`` into ``members``, returning 0; without its ``:]`` the ``[`` is an ordinary character."""
        end = self.glob.find(b"]", self.position + 1)
        if end < 0:
            raise _Invalid
        if end == self.position + 1 or self.glob[end - 1 : end] != b":":
            members.add(ord("["))
            return ord("[")
        test = _CLASSES.get(self.glob[self.position + 1 : end - 1])
        if test is None:
            raise _Invalid
        members.update(char for char in range(128) if test(char))
        self.position = end + 1
        return 0
