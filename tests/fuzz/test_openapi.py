"""The control API keeps to its own description: whatever fits it (or nearly) is answered as documented, never by a mistake of ours.

Schemathesis makes the requests from ``/_cortex/openapi.json``, some that fit it and some that do not. Half of
them are pointed at APIs that exist, so that they come further than "not found".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .conftest import Watched

CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
EXAMPLES = 12


@pytest.fixture
def described(watched: Watched, deployed: str) -> Any:
    with watched.environment.http(headers={"authorization": f"Bearer {watched.token}"}) as web:
        return schemathesis.openapi.from_dict(web.get("/_cortex/openapi.json").json())


@pytest.fixture
def session(watched: Watched) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        made.headers["authorization"] = f"Bearer {watched.token}"
        yield made


def at_home(case: Case) -> None:
    """Point a case at what is there. What changes something goes to the API that nobody serves: each change of the other would start replicas."""
    parameters = case.path_parameters
    if "name" in parameters:
        parameters["name"] = "served" if case.method == "GET" else "resting"
    if "version" in parameters:
        parameters["version"] = 1
    if "request_id" in parameters:
        parameters["request_id"] = "failed"


def bounded(case: Case) -> None:
    """An answer that goes on for ever, or waits for news, says no more than a short one."""
    if "follow" in (case.query or {}):
        case.query["follow"] = "false"
    if isinstance(case.body, dict) and isinstance(case.body.get("wait"), int | float):
        case.body["wait"] = min(case.body["wait"], 0.05)


def try_out(operation: Any, mode: GenerationMode, url: str, session: requests.Session) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())
    def run(case: Case, there: bool) -> None:
        if there and case.method != "DELETE":
            at_home(case)
        bounded(case)
        answer = case.call(base_url=url, session=session, timeout=30)
        # A 503 is documented, with its Retry-After; all other 5xx are mistakes of ours.
        case.validate_response(answer, checks=CHECKS if answer.status_code == 503 else [not_a_server_error, *CHECKS])

    run()


def test_every_answer_is_one_that_the_description_has(described: Any, session: requests.Session, watched: Watched, subtests: pytest.Subtests) -> None:
    before = watched.accepted()
    operations = [result.ok() for result in described.get_all_operations()]
    assert len(operations) >= 29
    for operation in operations:
        # Without a query or a body nothing can be wrong: any text is a name.
        modes = [GenerationMode.POSITIVE, *[GenerationMode.NEGATIVE] * bool(list(operation.query) or list(operation.body))]
        for mode in modes:
            with subtests.test(operation=operation.label, mode=mode.name):
                try_out(operation, mode, watched.url, session)
    # The same process as before, which wrote of no mistake; and what was asked of it are no payloads.
    watched.check_alive()
    assert watched.accepted() == before
