"""The author's metrics: what counts, what is dropped, and the text that Prometheus reads."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from jupyter_cortex.core.errors import MetricError
from jupyter_cortex.handler import metrics
from jupyter_cortex.handler.exceptions import UserException
from jupyter_cortex.handler.metrics import MetricsClient, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def client(registry: Registry) -> MetricsClient:
    return MetricsClient(registry)


def text(*deltas: dict[str, Any], **labels: str) -> str:
    total: dict[str, Any] = {}
    for delta in deltas:
        total = metrics.merge(total, json.loads(json.dumps(delta, allow_nan=False)))
    return metrics.render(total, labels)


def test_increment_adds_one_by_default(client: MetricsClient, registry: Registry) -> None:
    client.increment("seen")
    client.increment("seen", 2)
    assert text(registry.drain()) == "# TYPE seen counter\nseen 3\n"


def test_deltas_of_several_drains_and_processes_add_up(client: MetricsClient, registry: Registry) -> None:
    client.increment("seen")
    client.gauge("depth", 5)
    client.histogram("time", 0.3)
    first = registry.drain()
    client.increment("seen")
    client.gauge("depth", 2.5)
    client.histogram("time", 20)
    other = text(first, registry.drain())
    assert "seen 2\n" in other
    assert "depth 2.5\n" in other
    assert "time_sum 20.3\ntime_count 2\n" in other
    assert registry.drain() == {}


def test_histograms_have_cumulative_standard_buckets(client: MetricsClient, registry: Registry) -> None:
    for value in (0.005, 0.3, 100):
        client.histogram("time", value)
    counts = re.findall(r'time_bucket\{le="([^"]+)"\} (\d+)', text(registry.drain()))
    assert [bound for bound, _ in counts] == [
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf",
    ]  # fmt: skip
    assert [int(count) for _, count in counts] == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_merge_changes_neither_of_its_arguments(client: MetricsClient, registry: Registry) -> None:
    client.histogram("time", 1)
    client.increment("n")
    delta = registry.drain()
    total = metrics.merge({}, delta)
    before = json.dumps([total, delta])
    metrics.merge(total, delta)
    assert json.dumps([total, delta]) == before


@pytest.mark.parametrize("name", ["cortex_x", "istio_y"])
@pytest.mark.parametrize("method", ["gauge", "increment", "histogram"])
def test_reserved_names_are_refused(client: MetricsClient, name: str, method: str) -> None:
    with pytest.raises(MetricError, match=name) as refused:
        getattr(client, method)(name, 1)
    # Handlers that were written for Cortex catch that.
    assert isinstance(refused.value, UserException)


def test_what_two_apis_count_by_one_name_is_one_family(client: MetricsClient, registry: Registry) -> None:
    client.gauge("score", 1, {"of": "a"})
    client.increment("seen")
    other = Registry()
    MetricsClient(other).gauge("score", 2)
    MetricsClient(other).gauge("seen", 3)
    said = metrics.render_all([(registry.drain(), {"api_name": "one"}), (other.drain(), {"api_name": "two"})])
    assert said.splitlines() == [
        "# TYPE seen counter",
        'seen{api_name="one"} 1',
        "# TYPE score gauge",
        'score{api_name="one",of="a"} 1',
        'score{api_name="two"} 2',
        "# TYPE cortex_metric_samples_dropped counter",
        'cortex_metric_samples_dropped{api_name="two"} 1',
    ]


class Hopeless:
    def __str__(self) -> str:
        raise RuntimeError

    __float__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize("value", [None, "3", b"3", float("nan"), float("inf"), 10**400, [], Hopeless(), 1j])
@pytest.mark.parametrize("method", ["gauge", "increment", "histogram"])
def test_a_bad_value_is_counted_and_never_raises(client: MetricsClient, registry: Registry, value: Any, method: str) -> None:
    getattr(client, method)("m", value)
    assert registry.drain() == {"dropped": 1}


@pytest.mark.parametrize(
    ("metric", "value", "tags"),
    [
        (None, 1, None),
        ("", 1, None),
        ("x" * 201, 1, None),
        ("m", -1, None),
        ("m", 1, "a:b"),
        ("m", 1, {"a": Hopeless()}),
    ],
)
def test_a_bad_sample_is_counted_and_never_raises(client: MetricsClient, registry: Registry, metric: Any, value: Any, tags: Any) -> None:
    client.increment(metric, value, tags)
    assert registry.drain() == {"dropped": 1}


def test_tags_become_escaped_labels_and_the_runtimes_labels_win(client: MetricsClient, registry: Registry) -> None:
    client.increment("n", tags={"b-c": 'q"\\\n', "api_name": "mine", "le": "1", "\ud800": "\ud800"})  # type: ignore[dict-item]
    line = text(registry.drain(), api_name="iris").splitlines()[1]
    assert 'api_name="iris"' in line
    assert 'exported_api_name="mine"' in line
    assert r'b_c="q\"\\\n"' in line
    assert 'exported_le="1"' in line
    line.encode()


def test_names_are_sanitised_and_cannot_become_the_runtimes(client: MetricsClient, registry: Registry) -> None:
    for name in ("a.b-c", "1x", "cortex.queue", "é"):
        client.increment(name)
    assert set(re.findall(r"^(\w+) 1$", text(registry.drain()), re.M)) == {"a_b_c", "_1x", "_cortex_queue", "_"}


def test_one_name_has_one_kind(client: MetricsClient, registry: Registry) -> None:
    client.increment("n")
    client.gauge("n", 1)
    assert registry.drain()["dropped"] == 1


def test_names_beyond_the_limit_are_not_remembered(client: MetricsClient, registry: Registry) -> None:
    for number in range(3000):
        client.increment(f"n{number}")
    assert len(registry._kinds) == metrics.MAX_SERIES


def test_names_that_clash_between_processes_are_rendered_once() -> None:
    one, two, three = Registry(), Registry(), Registry()
    MetricsClient(one).increment("n")
    MetricsClient(two).gauge("n", 7)
    MetricsClient(three).histogram("n", 7)
    out = text(one.drain(), two.drain(), three.drain())
    assert out.count("# TYPE n ") == 1


def test_series_are_bounded_in_a_process_and_in_a_total(client: MetricsClient, registry: Registry) -> None:
    total: dict[str, Any] = {}
    for process in range(2):
        registry = Registry()
        for number in range(1500):
            MetricsClient(registry).increment("n", tags={"id": f"{process}-{number}"})
        delta = registry.drain()
        assert (len(delta["counters"]), delta["dropped"]) == (1000, 500)
        total = metrics.merge(total, delta)
    assert (len(total["counters"]), total["dropped"]) == (1000, 2000)
    assert "cortex_metric_samples_dropped 2000" in metrics.render(total, {})


def test_sums_that_leave_the_numbers_stay_json(client: MetricsClient, registry: Registry) -> None:
    for _ in range(3):
        client.increment("n", 1e308)
        client.histogram("h", 1e308)
    delta = registry.drain()
    total = metrics.merge(delta, delta)
    assert json.loads(json.dumps(total, allow_nan=False)) == total


def test_threads_lose_no_sample(client: MetricsClient, registry: Registry) -> None:
    def work() -> None:
        for _ in range(1000):
            client.increment("n")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert text(registry.drain()) == "# TYPE n counter\nn 8000\n"


def test_an_empty_total_renders_as_nothing() -> None:
    assert metrics.render({}, {"api_name": "x"}) == ""
