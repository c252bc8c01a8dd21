"""The OpenAPI document against the server: requests that fit it and requests that do not, made by schemathesis."""

from __future__ import annotations

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from servers import PATIENCE, eventually

EXAMPLES = int(os.environ.get("CHARLOOM_EXAMPLES", "5"))
"""Examples for each route and mode; CONTRIBUTING.md says when more are useful."""

ROUTES = [
    *("GET /health", "GET /metrics", "GET /v1/models", "GET /v1/models/{name}", "POST /v1/completions"),
    *("POST /tokenize", "POST /detokenize", "POST /v1/trace", "POST /admin/reload"),
]
ALWAYS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="session")
def document(served):
    """The routes by method and path."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    found = [operation.ok() for operation in schema.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def test_the_routes(document):
    """Catches a route that no test below asks."""
    assert sorted(document) == sorted(ROUTES)


SENT = [route for route in ROUTES if route.startswith("POST")]
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CASES = [*((route, POSITIVE) for route in ROUTES), *((route, NEGATIVE) for route in SENT)]
"""Nothing in a request to read can be wrong."""


@pytest.mark.parametrize(("route", "mode"), CASES, ids=[f"{route} {mode.value}" for route, mode in CASES])
def test_a_route(served, document, route, mode):
    """Catches status 500 for any request, an answer that is not documented, and a wrong request that is accepted."""
    operation = document[route]
    further = [checks.negative_data_rejection] if mode is NEGATIVE else []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
        phases=[Phase.generate, Phase.shrink],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        response = case.call(base_url=served.url, timeout=PATIENCE)
        case.validate_response(response, checks=[*ALWAYS, *further])
        assert response.content.isascii()

    ask()
    eventually(served.idle)
