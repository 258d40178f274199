"""The author's metrics: a client that never fails a request, deltas for the supervisor, Prometheus text."""

from __future__ import annotations

import bisect
import json
import math
import re
import threading
from collections.abc import Sequence
from typing import Any

from jupyter_cortex.core.errors import MetricError

from .exceptions import UserException

#: Names that belong to the runtime and the mesh around it.
RESERVED_PREFIXES = ("cortex_", "istio_")
#: Series (name and tags) of one registry. A tag that holds a request id would fill the store and every scrape.
MAX_SERIES = 1000
MAX_TAGS = 20
MAX_NAME, MAX_TAG_VALUE = 200, 200
#: Prometheus's usual upper bounds, in the unit of the caller (made for seconds); +Inf is added.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_KINDS = ("counters", "gauges", "histograms")


class ReservedMetric(MetricError, UserException):
    """What Cortex's client raises is a UserException: handlers that were written for it catch that."""


class Registry:
    """The series of one process. Safe for threads; every method is short."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delta: dict[str, Any] = {}
        self._kinds: dict[str, str] = {}  # metric name to kind: Prometheus allows one per name
        self._series: set[str] = set()

    def record(self, kind: str, metric: Any, value: Any, tags: Any) -> None:
        """Add one sample; kind is ``counters``, ``gauges`` or ``histograms``. Bad samples are counted, not raised."""
        try:
            name, key, number = _checked(kind, metric, value, tags)
        except Exception:  # also what an author's __str__ and __float__ raise
            name = None
        with self._lock:
            if name is None or self._kinds.get(name, kind) != kind or not self._admits(key):
                self._delta["dropped"] = self._delta.get("dropped", 0) + 1
                return
            self._kinds[name] = kind
            series = self._delta.setdefault(kind, {})
            if kind == "histograms":
                one = [0] * (len(BUCKETS) + 1)
                one[bisect.bisect_left(BUCKETS, number)] = 1
                _add_histogram(series, key, {"buckets": one, "sum": number, "count": 1})
            elif kind == "counters":
                _add_counter(series, key, number)
            else:
                series[key] = number

    def drain(self) -> dict[str, Any]:
        """What happened since the last call, JSON-safe, for :func:`merge`; ``{}`` when nothing did."""
        with self._lock:
            delta, self._delta = self._delta, {}
            return delta

    def _admits(self, key: str) -> bool:
        if key not in self._series:
            if len(self._series) >= MAX_SERIES:
                return False
            self._series.add(key)
        return True


class MetricsClient:
    """What a Handler gets as ``metrics_client``. Only a reserved name raises (:class:`ReservedMetric`)."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def gauge(self, metric: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Set a value that goes up and down; the last one counts."""
        self._record("gauges", metric, value, tags)

    def increment(self, metric: str, value: float = 1, tags: dict[str, str] | None = None) -> None:
        """Add to a counter."""
        self._record("counters", metric, value, tags)

    def histogram(self, metric: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Record one observation of a distribution."""
        self._record("histograms", metric, value, tags)

    def _record(self, kind: str, metric: Any, value: Any, tags: Any) -> None:
        if isinstance(metric, str) and metric.startswith(RESERVED_PREFIXES):
            raise ReservedMetric(f"metric names that start with cortex_ or istio_ are reserved; rename {ascii(metric)[:60]}", kind="name")
        self._registry.record(kind, metric, value, tags)


def merge(total: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """A new total with the delta added: counters and histograms add up, gauges take the delta's value."""
    result: dict[str, Any] = {kind: dict(total.get(kind) or {}) for kind in _KINDS}
    result["dropped"] = (total.get("dropped") or 0) + (delta.get("dropped") or 0)
    count = sum(len(result[kind]) for kind in _KINDS)
    for kind in _KINDS:
        series = result[kind]
        for key, value in (delta.get(kind) or {}).items():
            if key not in series:
                if count >= MAX_SERIES:
                    result["dropped"] += value["count"] if kind == "histograms" else 1
                    continue
                count += 1
            if kind == "counters":
                _add_counter(series, key, value)
            elif kind == "histograms":
                _add_histogram(series, key, value)
            else:
                series[key] = value
    return result


def render(total: dict[str, Any], labels: dict[str, str]) -> str:
    """Prometheus text of a total; ``labels`` are put on every series and win over a tag of the same name."""
    return render_all([(total, labels)])


def render_all(totals: Sequence[tuple[dict[str, Any], dict[str, str]]]) -> str:
    """The same of several, each with its labels: what has one name is one family, whoever counted it.

    Where a name is of two kinds, the second one's series are left out and counted.
    """
    lines: list[str] = []
    taken: set[str] = set()
    dropped = [float(total.get("dropped") or 0) for total, _ in totals]
    for kind in _KINDS:
        families: dict[str, list[tuple[int, dict[str, str], Any]]] = {}
        for at, (total, labels) in enumerate(totals):
            for key, value in sorted((total.get(kind) or {}).items()):
                name, tags = json.loads(key)
                families.setdefault(name, []).append((at, _merged_labels(tags, labels), value))
        for name, series in families.items():
            # Two processes may use one name differently; a scrape with a name in two families is refused as a whole.
            names = {name} | ({f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histograms" else set())
            if not taken.isdisjoint(names):
                for at, _, _ in series:
                    dropped[at] += 1
                continue
            taken |= names
            lines.append(f"# TYPE {name} {kind[:-1]}")
            for _, merged, value in series:
                lines += _samples(kind, name, merged, value)
    lines += ["# TYPE cortex_metric_samples_dropped counter"] if any(dropped) else []
    for (_, labels), count in zip(totals, dropped, strict=True):
        lines += [f"cortex_metric_samples_dropped{_labels(_merged_labels([], labels))} {_number(count)}"] if count else []
    return "".join(f"{line}\n" for line in lines)


def _checked(kind: str, metric: Any, value: Any, tags: Any) -> tuple[str, str, float]:
    """Name, series key and number of a sample; raises ValueError or TypeError for one that cannot be kept."""
    if not isinstance(metric, str) or not 0 < len(metric) <= MAX_NAME or isinstance(value, (str, bytes)):
        raise TypeError
    number = float(value)
    if not math.isfinite(number) or (kind == "counters" and number < 0):
        raise ValueError
    name = re.sub(r"[^a-zA-Z0-9_:]", "_", metric)
    if name[0].isdigit() or name.startswith(RESERVED_PREFIXES):  # "cortex.x" must not become the runtime's cortex_x
        name = f"_{name}"
    if tags is not None and not isinstance(tags, dict):
        raise TypeError
    if tags and len(tags) > MAX_TAGS:
        raise ValueError
    pairs = {_label_name(str(tag)): _clean(str(item)) for tag, item in tags.items()} if tags else {}
    return name, json.dumps([name, sorted(pairs.items())], separators=(",", ":")), number


def _label_name(tag: str) -> str:
    name = re.sub(r"[^a-zA-Z0-9_]", "_", tag[:MAX_NAME]) or "_"
    # le is a histogram's own label, and names with two underscores belong to Prometheus.
    return f"exported_{name}" if name == "le" or name.startswith("__") else f"_{name}" if name[0].isdigit() else name


def _clean(text: str) -> str:
    return text[:MAX_TAG_VALUE].encode("utf-8", "backslashreplace").decode()


def _add_counter(series: dict[str, Any], key: str, value: float) -> None:
    added = series.get(key, 0.0) + value
    if math.isfinite(added):  # 1e308 twice would be Infinity, which is not JSON
        series[key] = added


def _add_histogram(series: dict[str, Any], key: str, value: dict[str, Any]) -> None:
    before = series.get(key)
    if before is None:
        series[key] = {**value, "buckets": list(value["buckets"])}
    elif len(before["buckets"]) == len(value["buckets"]) and math.isfinite(total := before["sum"] + value["sum"]):
        buckets = [a + b for a, b in zip(before["buckets"], value["buckets"], strict=True)]
        series[key] = {"buckets": buckets, "sum": total, "count": before["count"] + value["count"]}


def _merged_labels(tags: list[list[str]], labels: dict[str, str]) -> dict[str, str]:
    merged = {_label_name(name): _clean(str(value)) for name, value in labels.items()}
    for name, value in tags:
        while name in merged:
            name = f"exported_{name}"
        merged[name] = value
    return merged


def _samples(kind: str, name: str, labels: dict[str, str], value: Any) -> list[str]:
    if kind != "histograms":
        return [f"{name}{_labels(labels)} {_number(value)}"]
    lines, below = [], 0
    for bound, count in zip((*map(_number, BUCKETS), "+Inf"), value["buckets"], strict=False):
        below += count
        lines.append(f"{name}_bucket{_labels({**labels, 'le': bound})} {below}")
    lines.append(f"{name}_sum{_labels(labels)} {_number(value['sum'])}")
    lines.append(f"{name}_count{_labels(labels)} {value['count']}")
    return lines


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    escaped = {k: v.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for k, v in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
