"""The OpenAPI document: its examples work, and requests made from it never break the service."""

from __future__ import annotations

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

BODIES = {
    "/v1/rerank",
    "/v2/rerank",
    "/v1/search",
    "/v1/compare",
    "/v1/passages",
    "/v1/embeddings",
    "/v1/multi-vector",
}


def test_every_body_has_an_example_that_works(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    tried = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation:
                continue
            if "application/json" not in operation["requestBody"]["content"]:
                # The bytes of a file.
                assert path == "/v1/files"
                continue
            name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            for example in document["components"]["schemas"][name]["examples"]:
                # The toy encoder explains nothing.
                expected = 422 if path == "/v1/explain" else 200
                response = client.request(method, path, json=example)
                assert response.status_code == expected, (path, response.text)
                tried.add(path)
    assert tried == BODIES | {"/v1/explain"}


def test_every_route_and_error_is_described(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["description"], path
            assert operation["tags"], path
            errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
            schemas = [answer["content"]["application/json"]["schema"]["$ref"] for answer in errors.values()]
            allowed = "StatusResponse" if path == "/ready" else "ErrorResponse"
            assert {schema.rpartition("/")[2] for schema in schemas} <= {allowed}, path


@pytest.mark.slow
def test_generated_requests_never_break_the_service(app: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 17
    for operation in operations:
        given(operation.as_strategy())(_check)()


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def _check(case: schemathesis.Case) -> None:
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.status_code_conformance,
        schemathesis.checks.content_type_conformance,
        schemathesis.checks.response_schema_conformance,
    ]
    # A service that is loading models is red on purpose.
    if case.operation.path != "/ready":
        case.call_and_validate(checks=checks)
