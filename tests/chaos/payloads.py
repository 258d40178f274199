"""What the callers send. All of a workload follows from the seed and its number, so that a run can be repeated and nothing has to be kept."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass

#: Share of payloads up to so many bytes: most are small, a few are large.
SIZES = ((0.80, 10, 2_000), (0.15, 2_000, 40_000), (0.04, 40_000, 300_000), (0.01, 1_000_000, 2_000_000))
KINDS = (
    ("application/json", 0.45),
    ("text/plain; charset=utf-8", 0.2),
    ("application/octet-stream", 0.25),
    ("application/x-www-form-urlencoded", 0.1),
)
#: How a caller follows its workload: asks again and again, waits with ``?wait=``, takes it back at once, or leaves it to the count at the end.
STYLES = (("poll", 0.4), ("wait", 0.39), ("leave", 0.2), ("cancel", 0.01))
#: Of a thousand workloads, how many misbehave in which way (see handler.py).
DEEDS = {"throw": 4, "exit": 1, "kill": 1, "crash": 1, "hang": 2, "gil": 1, "leak": 3, "clone": 1, "child": 1, "daemon": 1}
#: These kill their replica each time they run, and end failed with this in the reason.
POISON = {"exit": "exit status 3", "kill": "SIGKILL", "crash": "SIGSEGV"}
#: However many workloads there are, so many hold the GIL at most: a minute each in the long run.
GIL_MOST = 3
TEXT = "Äpfel und Öl, 水 and 🍏; plain words as well. "


@dataclass(frozen=True)
class Workload:
    number: int
    id: str
    api: str
    content_type: str
    body: bytes
    deed: str
    style: str

    def outcome(self) -> tuple[str, str]:
        """(status, what must be in it): of a completed one the digest of its own body and id, of a failed one a part of the error."""
        if self.deed in POISON:
            return "failed", POISON[self.deed]
        if self.deed == "throw":
            return "failed", f"no {self.number}"
        return "completed", hashlib.sha256(self.body + self.id.encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """``held``: seconds for which a handler holds the GIL; one that hangs lets go after a sixth of that."""

    seed: int
    count: int
    apis: tuple[str, ...]
    held: float

    def deeds(self) -> dict[int, str]:
        """Which numbers misbehave: none of the first ten, so that a run begins well."""
        wanted = [deed for deed, share in DEEDS.items() for _ in range(max(1, round(self.count * share / 1000)))]
        while wanted.count("gil") > GIL_MOST:
            wanted.remove("gil")
        dice = random.Random(f"{self.seed} deeds")
        dice.shuffle(wanted)
        return dict(zip(sorted(dice.sample(range(10, self.count), len(wanted))), wanted, strict=True))

    def workload(self, number: int, deed: str = "") -> Workload:
        dice = random.Random(f"{self.seed} {number}")
        kind = "application/json" if deed else _one_of(dice, KINDS)
        size = dice.randint(*dice.choices([(low, high) for _, low, high in SIZES], [share for share, _, _ in SIZES])[0])
        style = "poll" if deed else _one_of(dice, STYLES)
        return Workload(
            number=number,
            id=f"chaos-{self.seed}-{number:06}",
            api=dice.choice(self.apis),
            content_type=kind,
            body=self._body(dice, number, kind, size, deed),
            deed=deed,
            style=style,
        )

    def _body(self, dice: random.Random, number: int, kind: str, size: int, deed: str) -> bytes:
        if kind.startswith("application/json"):
            value: dict[str, object] = {"n": number, "fill": dice.randbytes(size // 2).hex(), "word": "水 é"}
            if deed:
                value |= {"do": deed, "for": self.held if deed == "gil" else self.held / 6, "fill": ""}
            elif dice.random() < 0.3:
                value["sleep"] = 1.0 if dice.random() < 0.01 else dice.randint(2, 20) / 1000
            return canonical(value)
        if kind.startswith("text/plain"):
            start = dice.randrange(len(TEXT))
            return (TEXT[start:] + TEXT * (size // len(TEXT))).encode()
        if kind == "application/octet-stream":
            return dice.randbytes(size)
        return f"n={number}&fill={dice.randbytes(size // 2).hex()}".encode()


def canonical(value: object) -> bytes:
    """JSON that the handler can write again from the parsed value, byte for byte."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _one_of(dice: random.Random, choices: tuple[tuple[str, float], ...]) -> str:
    return dice.choices([name for name, _ in choices], [share for _, share in choices])[0]
