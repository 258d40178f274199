"""``cortex.yaml``: every case of the contract, and what the cases leave open."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.core.errors import CortexError, SpecError
from jupyter_cortex.core.scalars import format_duration, parse_duration, parse_quantity
from jupyter_cortex.core.spec import RESERVED_ENDPOINTS, APISpec, check_specs
from jupyter_cortex.project.config_file import doubled, load, read_specs
from jupyter_cortex.project.project import from_config

CASES = yaml.safe_load((Path(__file__).parents[1] / "contract" / "config.yaml").read_text("utf-8"))["cases"]


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "cortex.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def entry(name: str = "iris", **keys: Any) -> dict[str, Any]:
    """A valid entry; ``handler__env={}`` sets a nested key."""
    document: dict[str, Any] = {"name": name, "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}
    for key, value in keys.items():
        outer, _, inner = key.partition("__")
        if inner:
            document.setdefault(outer, {})[inner] = value
        else:
            document[outer] = value
    return document


def tensorflow(**models: Any) -> dict[str, Any]:
    return {"handler__type": "tensorflow", "handler__models": models}


def spec(**keys: Any) -> APISpec:
    return check_specs([entry(**keys)], ["handler.py"])[0]


def refusal(*documents: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        check_specs(list(documents), ["handler.py"])
    return caught.value


def looked_up(resolved: list[dict[str, Any]], path: str) -> Any:
    first, _, rest = path.partition(".")
    value: Any = resolved[int(first)] if first.isdigit() else resolved[0]
    for key in (rest if first.isdigit() else path).split("."):
        value = value[key]
    return value


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_config_case_of_the_contract_holds(case: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, case["yaml"])
    files = case.get("files", ["handler.py"])
    if case["expect"] == "ok":
        specs = read_specs(path, files)
        resolved = [api.resolved() for api in specs]
        for place, value in case.get("resolved", {}).items():
            assert looked_up(resolved, place) == value
        assert [APISpec.from_resolved(json.loads(json.dumps(document, allow_nan=False))) for document in resolved] == specs
        return
    with pytest.raises(SpecError) as caught:
        read_specs(path, files)
    expected = case["expect"]["error"]
    assert {key: caught.value.details.get(key) for key in ("api", "path", "kind")} == {key: expected[key] for key in ("api", "path", "kind")}
    assert caught.value.message.startswith("cortex.yaml: ")
    assert expected["path"] in caught.value.message


@pytest.mark.parametrize(
    ("keys", "path", "kind"),
    [
        ({"name": "a" * 43}, "name", "too_long"),
        ({"name": ""}, "name", "empty"),
        ({"name": "a-"}, "name", "value"),
        ({"kind": "RealtimeAPI"}, "kind", "unsupported_kind"),
        ({"handler": None}, "handler", "null"),
        ({"handler": []}, "handler", "type"),
        ({"handler__processes_per_replica": 101}, "handler.processes_per_replica", "range"),
        ({"handler__threads_per_process": 101}, "handler.threads_per_process", "range"),
        ({"handler__threads_per_process": True}, "handler.threads_per_process", "type"),
        ({"handler__threads_per_process": 2**40}, "handler.threads_per_process", "type"),
        ({"handler__python_path": "./"}, "handler.python_path", "value"),
        ({"handler__python_path": "lib"}, "handler.python_path", "file_missing"),
        ({"handler__image": "no spaces please"}, "handler.image", "value"),
        ({"handler__shm_size": "64K"}, "handler.shm_size", "quantity"),
        ({"handler__protobuf_path": "a.proto"}, "handler.protobuf_path", "unsupported_for_kind"),
        ({"handler__protobuf_path": "a/b.proto"}, "handler.protobuf_path", "value"),
        ({"handler__models": {"path": "m"}}, "handler.models", "unsupported_for_type"),
        (tensorflow(path="../m"), "handler.models.path", "value"),
        (tensorflow(dir="a::s3://b"), "handler.models.dir", "value"),
        (tensorflow(path="s3://key:secret@b/m"), "handler.models.path", "value"),
        (tensorflow(paths=[{"name": "m", "path": "data://x"}]), "handler.models.paths[0].path", "value"),
        (tensorflow(path="m", serving="localhost:8501"), "handler.models.serving", "value"),
        (tensorflow(path="m", serving="http://user:secret@host"), "handler.models.serving", "value"),
        ({"handler__env": {"A": "x\0y"}}, "handler.env.A", "value"),
        ({"handler__env": {"A=B": "x"}}, "handler.env", "value"),
        ({"handler__config": {"a": [{1: 2}]}}, "handler.config.a[0]", "non_string_key"),
        ({"handler__config": {"a": math.nan}}, "handler.config.a", "value"),
        ({"handler__config": {"a": b"bytes"}}, "handler.config.a", "value"),
        ({"handler__config": {"a": 10**5000}}, "handler.config.a", "value"),
        ({"handler__config": {"a": "\ud800"}}, "handler.config.a", "value"),
        ({"networking__allow_origins": "*"}, "networking.allow_origins", "type"),
        ({"networking__allow_origins": ["https://a.b/"]}, "networking.allow_origins[0]", "value"),
        ({"networking__allow_origins": ["*", "https://a.b"]}, "networking.allow_origins", "conflict"),
        ({"networking__allow_origins": ["http://a:70000"]}, "networking.allow_origins[0]", "value"),
        ({"compute__gpu": 1, "compute__inf": 1}, "compute", "conflict"),
        ({"compute__mem": "19Mi"}, "compute.mem", "range"),
        ({"compute__cpu": 10**5000}, "compute.cpu", "quantity"),
        ({"compute__cpu": math.inf}, "compute.cpu", "quantity"),
        ({"compute__cpu": "1e999999999"}, "compute.cpu", "quantity"),
        ({"compute__node_groups": []}, "compute.node_groups", "empty"),
        ({"autoscaling__init_replicas": 1, "autoscaling__min_replicas": 2}, "autoscaling.init_replicas", "conflict"),
        ({"autoscaling__target_replica_concurrency": 1025}, "autoscaling.target_replica_concurrency", "conflict"),
        ({"autoscaling__max_upscale_factor": math.inf}, "autoscaling.max_upscale_factor", "range"),
        ({"autoscaling__window": "5s"}, "autoscaling.window", "range"),
        ({"update_strategy": {"max_surge": 0, "max_unavailable": "0%"}}, "update_strategy", "conflict"),
        ({"retain__payload": "sometimes"}, "retain.payload", "value"),
        ({"retain__days": 8}, "retain.days", "range"),
        ({"retain__max_bytes": -1}, "retain.max_bytes", "range"),
        ({"retain__redact": [1]}, "retain.redact[0]", "type"),
        ({"retain": None}, "retain", "null"),
        ({"max_deliveries": 0}, "max_deliveries", "range"),
        ({"max_deliveries": 101}, "max_deliveries", "range"),
        ({"drain_timeout": "0s"}, "drain_timeout", "range"),
        ({"drain_timeout": "1d"}, "drain_timeout", "duration"),
        ({"drain_timeout": 60}, "drain_timeout", "type"),
        ({"timeout": "0s"}, "timeout", "range"),
        ({"timeout": 30}, "timeout", "type"),
        ({"queue_timeout": "soon"}, "queue_timeout", "duration"),
        ({"queue_timeout": None}, "queue_timeout", "null"),
        ({"cancel": "murder"}, "cancel", "value"),
        ({"cancel": {"grace": "5s"}}, "cancel", "type"),
        ({"rehearse": "yes"}, "rehearse", "type"),
        ({"rehearse": 1}, "rehearse", "type"),
        ({"rehearse": None}, "rehearse", "null"),
        ({"cancel_grace": "-1s"}, "cancel_grace", "range"),
    ],
)
def test_a_bad_value_is_refused_at_its_path(keys: dict[str, Any], path: str, kind: str) -> None:
    error = refusal(entry(**keys))
    assert (error.details["api"], error.details["path"], error.details["kind"]) == (0, path, kind)


def test_the_defaults_are_those_of_the_contract() -> None:
    resolved = spec().resolved()
    assert resolved["handler"]["log_level"] == "info"
    assert resolved["networking"] == {"endpoint": "/iris", "allow_origins": []}
    assert resolved["compute"] == {"cpu": "200m", "mem": None, "gpu": 0, "inf": 0, "node_groups": None}
    assert resolved["autoscaling"] == {
        "min_replicas": 1,
        "max_replicas": 100,
        "init_replicas": 1,
        "max_replica_concurrency": 1024,
        "target_replica_concurrency": 1.0,
        "window": 60.0,
        "downscale_stabilization_period": 300.0,
        "upscale_stabilization_period": 60.0,
        "max_downscale_factor": 0.75,
        "max_upscale_factor": 1.5,
        "downscale_tolerance": 0.05,
        "upscale_tolerance": 0.05,
    }
    assert resolved["update_strategy"] == {"max_surge": "25%", "max_unavailable": "25%"}
    assert resolved["retain"] == {"payload": "failed", "days": 7, "max_bytes": 10_485_760, "redact": []}
    assert (resolved["max_deliveries"], resolved["drain_timeout"]) == (3, 86_400.0)
    assert resolved["rehearse"] is False
    assert (resolved["timeout"], resolved["queue_timeout"], resolved["cancel"], resolved["cancel_grace"]) == (None, None, "interrupt", 1.0)


def test_the_target_concurrency_follows_the_threads() -> None:
    assert spec(handler__threads_per_process=4).autoscaling.target_replica_concurrency == 4.0


def test_an_explicit_null_cpu_is_not_the_default_and_survives_the_round_trip() -> None:
    api = spec(compute__cpu=None)
    assert api.compute.cpu_cores is None
    assert APISpec.from_resolved(api.resolved()) == api


def test_quantities_have_numbers_beside_their_text() -> None:
    compute = spec(compute__cpu=1.5, compute__mem="512Mi").compute
    assert (compute.cpu, compute.cpu_cores, compute.mem_bytes) == ("1.5", 1.5, 512 * 2**20)


def test_specs_are_frozen_and_do_not_share_the_authors_dict() -> None:
    config = {"a": [1]}
    api = spec(handler__config=config)
    config["a"].append(2)
    assert api.handler.config == {"a": [1]}
    with pytest.raises(ValueError, match="frozen"):
        api.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("endpoint", [*RESERVED_ENDPOINTS, "/metrics/x", "_cortex/v1/"])
def test_the_gateways_own_paths_cannot_be_published(endpoint: str) -> None:
    error = refusal(entry(networking__endpoint=endpoint))
    assert (error.details["path"], error.details["kind"]) == ("networking.endpoint", "reserved")


def test_a_name_whose_default_endpoint_is_reserved_needs_another_endpoint() -> None:
    assert refusal(entry("metrics")).details["kind"] == "reserved"
    assert spec(name="metrics", networking__endpoint="/m").networking.endpoint == "/m"
    assert spec(name="metricsx").networking.endpoint == "/metricsx"


def test_origins_are_kept_as_browsers_send_them() -> None:
    given = ["https://A.example:443", "http://localhost:3000", "https://a.example", "http://[::1]:80"]
    assert spec(networking__allow_origins=given).networking.allow_origins == [
        "https://a.example",
        "http://localhost:3000",
        "http://[::1]",
    ]
    assert spec(networking__allow_origins=["*"]).networking.allow_origins == ["*"]


def test_schema_errors_of_all_apis_come_before_rules_between_fields() -> None:
    conflict = entry("first", autoscaling={"min_replicas": 5, "max_replicas": 2})
    error = refusal(conflict, entry("second", max_deliveries=0))
    assert (error.details["api"], error.details["path"]) == (1, "max_deliveries")


def test_a_message_has_file_api_path_and_a_remedy() -> None:
    error = refusal(entry(handler__path="handler.ipynb"))
    remedy = "type notebook runs a notebook for each request"
    assert error.message == f"cortex.yaml: [0].handler.path (iris): 'handler.ipynb' must end in .py or .pickle; {remedy}."


def test_an_unusable_name_is_not_repeated_in_the_message() -> None:
    assert refusal(entry("Bad\nName")).message.startswith("cortex.yaml: [0].name: ")


def test_a_mistyped_key_gets_the_nearest_one() -> None:
    assert "use max_deliveries" in refusal(entry(max_delivery=3)).message


def test_the_value_of_a_variable_is_in_no_message() -> None:
    for env in ({"KEY": 5551234}, {"KEY": "s3cr\0et-5551234"}, {"CORTEX_KEY": "5551234"}, {"K=": "5551234"}):
        error = refusal(entry(handler__env=env))
        assert "5551234" not in json.dumps(error.problem())


def test_ignored_keys_are_named_in_the_warnings() -> None:
    assert spec().warnings == []
    api = spec(handler__image="team/image:1", compute__node_groups=["gpu"], autoscaling__max_replica_concurrency=5, update_strategy__max_surge=0)
    assert [warning.split(" is ignored")[0] for warning in api.warnings] == [
        "handler.image",
        "compute.node_groups",
        "autoscaling.max_replica_concurrency",
        "update_strategy",
    ]


@pytest.mark.parametrize("document", [None, [], "x", {}, {"name": "iris"}, {"name": 1}, spec().resolved() | {"drain_timeout": math.nan}])
def test_a_resolved_spec_that_is_none_is_refused(document: Any) -> None:
    with pytest.raises(SpecError, match="spec: "):
        APISpec.from_resolved(document)


def test_a_resolved_spec_is_held_to_the_same_rules() -> None:
    resolved = spec().resolved()
    resolved["autoscaling"]["min_replicas"] = 0
    with pytest.raises(SpecError) as caught:
        APISpec.from_resolved(resolved)
    assert caught.value.details["path"] == "autoscaling.min_replicas"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("60s", 60),
        ("1h30m", 5400),
        ("0.5h", 1800),
        ("-1.5m", -90),
        (".5s", 0.5),
        ("1µs", 1e-6),
        ("+2ms", 0.002),
    ],
)
def test_durations_are_read_and_written_back(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=0, rel=1e-15)
    assert parse_duration(format_duration(seconds)) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "60", "1d", "s", "1.s.", "1 s", "٣s", "1h-2m", "9" * 500 + "s", "300000h0", "9999999h"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration|longer than"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("200m", 0.2),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1e3", 1000),
        ("1E", 1e18),
        ("1E3", 1000),
        (".5Gi", 2**29),
        ("-1", -1),
    ],
)
def test_quantities_are_exact(text: str, value: float) -> None:
    assert float(parse_quantity(text)) == value


@pytest.mark.parametrize("text", ["", "1K", "1KB", "m", ".", "1e", "1e999", "1 Gi", "inf", "0x10", "9" * 500])
def test_other_text_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


def test_yaml_scalars_are_those_of_the_contract(tmp_path: Path) -> None:
    text = "- {date: 2024-01-01, time: 1:30, small: 1e-3, octal: 010, hex: 0x1F, yes_: yes, word: 1e, many: 1_000}"
    assert load(written(tmp_path, text)) == [
        {
            "date": "2024-01-01",
            "time": "1:30",
            "small": 0.001,
            "octal": 8,
            "hex": 31,
            "yes_": True,
            "word": "1e",
            "many": 1000,
        }
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"\xff\xfe\x00\xd8", "yaml"),
        (b"- a: \x80", "yaml"),
        (b"- a: \x00", "yaml"),
        (b"- " + b"[" * 5000, "yaml"),
        (b"- {a: " + b"9" * 5000 + b"}", "yaml"),
        (b"- !!python/object:os.system {}", "yaml"),
        (b"- {? [a] : b}", "yaml"),
        (b"- {a: !!int x}", "yaml"),
        (b"- {a: !!timestamp x}", "yaml"),
        (b"- {a: !!binary x}", "yaml"),
        (b"- *unknown", "yaml"),
        (b"- {<<: 1}", "yaml"),
        (b"--- []\n--- []", "multiple_documents"),
        (b"- !!set {a, b}", "not_a_list_of_maps"),
        (b"x" * (10 * 2**20 + 1), "too_long"),
    ],
)
def test_a_file_that_is_no_config_is_refused_as_a_whole(tmp_path: Path, text: bytes, kind: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(written(tmp_path, text))
    assert (caught.value.details["kind"], caught.value.details["path"]) == (kind, "")


def test_yaml_errors_name_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"line 2, column 1.*tab") as caught:
        load(written(tmp_path, "- name: a\n\tkind: AsyncAPI\n"))
    assert (caught.value.details["line"], caught.value.details["column"]) == (2, 1)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path, kind in ((tmp_path / "no.yaml", "file_missing"), (tmp_path, "unreadable"), (Path("a\0b"), "unreadable")):
        with pytest.raises(SpecError) as caught:
            load(path)
        assert caught.value.details["kind"] == kind


def test_endless_and_exploding_aliases_are_refused(tmp_path: Path) -> None:
    head = "- name: a\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n    config:\n"
    endless = head + "      x: &x [*x]\n"
    bomb = head + "      a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    bomb += "".join(f"      a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    for text in (endless, bomb):
        with pytest.raises(SpecError) as caught:
            read_specs(written(tmp_path, text), ["handler.py"])
        assert caught.value.details["path"].startswith("handler.config")


def test_merges_work_but_not_those_that_explode(tmp_path: Path) -> None:
    assert load(written(tmp_path, "- {a: &a {k: 1}, b: {<<: *a, c: 2}}")) == [{"a": {"k": 1}, "b": {"k": 1, "c": 2}}]
    bomb = "- a0: &a0 {k: 1}\n" + "".join(f"  a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))
    try:
        merged = load(written(tmp_path, bomb))  # PyYAML from 6.0.4 on takes a key that is merged twice only once
    except SpecError as error:
        said = error.message
    else:
        said = "merges too many keys" if all(value == {"k": 1} for value in merged[0].values()) else "it grew"
    assert "merges too many keys" in said


def test_a_key_that_stands_twice_is_told_since_yaml_lets_the_last_one_count(tmp_path: Path) -> None:
    config = tmp_path / "cortex.yaml"
    config.write_text(
        "- name: a\n  kind: AsyncAPI\n  handler: &h\n    type: python\n    path: handler.py\n    config: {depth: 3}\n"
        "    config: {depth: 4, rate: 1, rate: 2}\n"
        "- name: b\n  kind: AsyncAPI\n  handler:\n    <<: *h\n    <<: *h\n    path: other.py\n"
    )
    (tmp_path / "handler.py").write_text("class Handler: ...\n")
    (tmp_path / "other.py").write_text("class Handler: ...\n")
    assert load(config)[0]["handler"]["config"] == {"depth": 4, "rate": 2}
    assert from_config(config).warnings == [
        "cortex.yaml: config stands at line 6 and again at line 7; only the last one counts.",
        "cortex.yaml: rate stands at line 7 and again at line 7; only the last one counts.",
    ]
    config.write_text("- name: a\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py, config: {1: one, '1': text}}\n")
    assert doubled(config) == []


def test_no_document_brings_out_another_kind_of_error() -> None:
    chance = random.Random(7)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        1,
        10**400,
        1.5,
        math.nan,
        math.inf,
        "",
        "a",
        "1s",
        "1Gi",
        "\ud800",
        "%",
        b"x",
    ]
    values += [
        [],
        [None],
        {},
        {"a": None},
        {1: 2},
        [{"name": "x", "path": None}],
        {"path": []},
        "a" * 2000,
        object(),
        (1,),
    ]
    base = spec(handler__env={"A": "b"}).resolved()
    for _ in range(4000):
        document = json.loads(json.dumps(base))
        document["autoscaling"].update(window="60s", upscale_stabilization_period="0", downscale_stabilization_period="0")
        document["drain_timeout"] = "1h"
        document["handler"] = {key: value for key, value in document["handler"].items() if value is not None}
        for _ in range(chance.randint(1, 3)):
            where = chance.choice([document, *(value for value in document.values() if isinstance(value, dict))])
            where[chance.choice([*where, "zzz"])] = chance.choice(values)
        for check in (lambda d=document: check_specs([d], ["handler.py"]), lambda d=document: APISpec.from_resolved(d)):
            try:
                check()
            except CortexError as error:
                json.dumps(error.problem()).encode()
                error.message.encode()
