"""``.env``: one ``VARIABLE=value`` per line. A parser, never a shell: nothing is executed, no value is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..core.errors import EnvFileError

#: What Linux takes as one ``NAME=value`` of a new process; also the end of values that double themselves line by line.
MAX_VARIABLE = 128 * 1024 - 1
RESERVED_PREFIX = "CORTEX_"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)
_EXPORT = re.compile(r"export[ \t]+")
_COMMENT = re.compile(r"[ \t]#")
_BLANKS = " \t"
_ESCAPED = '"\\$`'


def parse(data: bytes, base_env: Mapping[str, str], source: str = ".env") -> dict[str, str]:
    """The variables that the file ``data`` sets, in its order; the last of a repeated name wins.

    ``$NAME`` and ``${NAME}`` come from earlier lines, then from ``base_env``; an unknown one is empty.

    Raises EnvFileError with ``line`` (1-based, absent when it is the whole file) and ``kind`` encoding, no_equals,
    invalid_name, reserved_name, space_after_equals, unterminated_quote, text_after_quote, command_substitution,
    invalid_character or too_long. The message never has a value, nor a name that may be a misplaced value.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise EnvFileError(f"{source}: the file is not UTF-8; save it with that encoding.", kind="encoding") from None
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            pair = _Line(line.removesuffix("\r"), variables, base_env).pair()
        except _Problem as problem:
            sentence = f"{source}, line {number}: {problem.sentence}"
            raise EnvFileError(sentence, kind=problem.kind, line=number) from None
        if pair is not None:
            variables[pair[0]] = pair[1]
    return variables


class _Problem(ValueError):
    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence


class _Line:
    """One line of the file, and where its references are looked up."""

    def __init__(self, line: str, earlier: Mapping[str, str], base_env: Mapping[str, str]) -> None:
        self.line, self.earlier, self.base_env = line, earlier, base_env
        self.expanded = 0  #: characters that references have brought so far

    def pair(self) -> tuple[str, str] | None:
        """The variable and its value; None for a blank line and a comment."""
        line = self.line.lstrip(_BLANKS)
        if not line or line.startswith("#"):
            return None
        if "\0" in line or "\r" in line:
            raise _Problem("invalid_character", "NUL characters and lone carriage returns are not allowed; remove them.")
        line = _EXPORT.sub("", line, count=1) if _EXPORT.match(line) else line
        name, equals, rest = line.partition("=")
        if not equals:
            raise _Problem("no_equals", "there is no '='; write NAME=value.")
        if not _NAME.fullmatch(name):
            raise _Problem(
                "invalid_name",
                "what stands before '=' is not a name: letters, digits and underscores, no digit first, no blanks.",
            )
        if name.startswith(RESERVED_PREFIX):
            raise _Problem("reserved_name", f"names starting with {RESERVED_PREFIX} are reserved; choose another.")
        value = self._value(rest)
        # Counted as it is passed on; os.environ carries bytes that are not UTF-8 as surrogates.
        if len(name) + len(value.encode("utf-8", "surrogatepass")) + 1 > MAX_VARIABLE:
            raise _too_long()
        return name, value

    def _value(self, rest: str) -> str:
        if rest.startswith("'"):
            return self._single_quoted(rest)
        if rest.startswith('"'):
            return self._double_quoted(rest)
        if rest[:1] in (" ", "\t"):
            if rest.strip(_BLANKS)[:1] in ("", "#"):
                return ""
            raise _Problem("space_after_equals", "there is a blank after '='; remove it, or put the value into quotes.")
        comment = _COMMENT.search(rest)
        plain = (rest[: comment.start()] if comment else rest).rstrip(_BLANKS)
        pieces: list[str] = []
        self._expand(plain, pieces)
        return "".join(pieces)

    @staticmethod
    def _single_quoted(rest: str) -> str:
        end = rest.find("'", 1)
        if end < 0:
            raise _unterminated("'")
        _check_end(rest[end + 1 :])
        return rest[1:end]

    def _double_quoted(self, rest: str) -> str:
        pieces: list[str] = []
        start = index = 1
        while index < len(rest):
            char = rest[index]
            if char == "\\" and rest[index + 1 : index + 2] in tuple(_ESCAPED):
                self._expand(rest[start:index], pieces)
                pieces.append(rest[index + 1])
                start = index = index + 2
            elif char == '"':
                self._expand(rest[start:index], pieces)
                _check_end(rest[index + 1 :])
                return "".join(pieces)
            else:
                index += 1
        raise _unterminated('"')

    def _expand(self, text: str, pieces: list[str]) -> None:
        """Append ``text`` with its references replaced."""
        if "$(" in text or "`" in text:
            raise _Problem("command_substitution", "commands are not executed here; use single quotes if it is text.")
        position = 0
        for match in _REFERENCE.finditer(text):
            name = match[1] or match[2]
            value = self.earlier[name] if name in self.earlier else self.base_env.get(name, "")
            pieces += (text[position : match.start()], value)
            position = match.end()
            self.expanded += len(value)
            if self.expanded > MAX_VARIABLE:
                raise _too_long()
        pieces.append(text[position:])


def _too_long() -> _Problem:
    return _Problem("too_long", f"the variable has more than {MAX_VARIABLE:,} bytes; put it into a file of the project.")


def _unterminated(quote: str) -> _Problem:
    return _Problem("unterminated_quote", f"the closing {quote} is missing; a value ends on its own line.")


def _check_end(rest: str) -> None:
    """After a closing quote there may be blanks, and after a blank a comment."""
    after = rest.lstrip(_BLANKS)
    if after and not (after.startswith("#") and after != rest):
        raise _Problem("text_after_quote", "there is text after the closing quote; put all of the value into the quotes.")
