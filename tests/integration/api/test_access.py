"""Who is let in, over every method that the wire has. A new method without a rule fails here."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from orchestrator.api.auth import RULES, allows, digest
from orchestrator.core.records import Role
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from tests.integration.api.stack import SPEC, Stack
from tests.integration.api.wire import METHODS, Method, call, code

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def role_for(method: Method) -> Role:
    """The lowest that may call it."""
    return next(role for role in tuple(Role) if allows(RULES[method.path], role))


def too_low(method: Method) -> list[Role]:
    return [role for role in Role if not allows(RULES[method.path], role)]


def request_for(method: Method, run: str, project: str) -> Any:
    """A request that would do something, in that project."""
    made: Any = method.request()
    values = {"run": run, "project": project, "spec": SPEC, "name": "digits", "version": "1", "alias": "best"}
    values |= {"role": "viewer", "value": "x", "id": "no-such-token", "cluster": "alpha-cluster"}
    for field in method.request.DESCRIPTOR.fields:
        if field.name in values and field.type == field.TYPE_STRING:
            setattr(made, field.name, values[field.name])
    if method.name == "Runs/SubmitBatch":
        made.submissions.add(spec=SPEC, project=project)
    if method.name == "Runs/Inspect":
        made.id, made.kind = "question", "stacks"
    if method.name == "Clusters/Attach":
        made.hello.CopyFrom(pb.Hello(cluster="alpha-cluster", epoch=2**62))
    if method.name == "Clusters/ShipLogs":
        made.lines.add(run_id=run, attempt=1, seq=1, source="host", text="stolen place")
    return made


@pytest.fixture(scope="module")
def victim(stack: Stack) -> str:
    """A run of project alpha, with a cluster of alpha's."""
    run = stack.submit("alpha")
    stack.parts.fleet.clusters.attach("alpha-cluster", "alpha", 1, "2.60.0")
    stack.store.put_secret("alpha", "HF_TOKEN", "hush")
    return run.id


def test_there_is_a_rule_for_every_method() -> None:
    ours = {path for path in RULES if path.startswith("/evertrain.v1.")}
    assert ours == {method.path for method in METHODS}


@every_method
def test_no_token_is_denied(stack: Stack, victim: str, method: Method) -> None:
    assert code(stack.channel, method, request_for(method, victim, "alpha"), None) == UNAUTHENTICATED


@every_method
@pytest.mark.parametrize("secret", ["", "evt_wrong", "x" * 4000])
def test_a_wrong_token_is_denied(stack: Stack, victim: str, method: Method, secret: str) -> None:
    assert code(stack.channel, method, request_for(method, victim, "alpha"), secret) == UNAUTHENTICATED


@every_method
def test_the_stored_hash_is_no_token(stack: Stack, victim: str, method: Method) -> None:
    secret = digest(stack.token("alpha", role_for(method)))
    assert code(stack.channel, method, request_for(method, victim, "alpha"), secret) == UNAUTHENTICATED


@every_method
def test_a_revoked_token_is_denied_at_once(stack: Stack, victim: str, method: Method) -> None:
    secret = stack.token("alpha", role_for(method))
    stack.parts.authenticator.authenticate(secret)  # now its record is in the cache
    token = stack.store.token_by_hash(digest(secret))
    assert token is not None
    with stack.client() as admin:
        admin.revoke_token(token.id, project="alpha")
    assert code(stack.channel, method, request_for(method, victim, "alpha"), secret) == UNAUTHENTICATED


@every_method
def test_an_expired_token_is_denied(stack: Stack, victim: str, method: Method) -> None:
    secret = stack.token("alpha", role_for(method), expires_s=3600)
    stack.parts.authenticator.authenticate(secret)
    stack.clock.ahead_s += 3601
    try:
        assert code(stack.channel, method, request_for(method, victim, "alpha"), secret) == UNAUTHENTICATED
    finally:
        stack.clock.ahead_s -= 3601


@every_method
def test_a_role_that_is_too_low_is_denied(stack: Stack, victim: str, method: Method) -> None:
    assert too_low(method), "every method keeps somebody out"
    for role in too_low(method):
        secret = stack.token("alpha", role)
        assert code(stack.channel, method, request_for(method, victim, "alpha"), secret) == DENIED, role


ANSWERED = {"Clusters/ShipLogs"}  # acknowledged and not kept; see the test below
UNNAMED = {"Clusters/Attach", "Clusters/Drain", "Clusters/GetBundle"}  # the request names no project


@every_method
def test_a_token_of_another_project_is_denied(stack: Stack, victim: str, method: Method) -> None:
    if method.name in ANSWERED | UNNAMED:
        return
    for role in [role for role in Role if allows(RULES[method.path], role)]:
        secret = stack.token("beta", role)
        assert code(stack.channel, method, request_for(method, victim, "alpha"), secret) == DENIED


@every_method
@pytest.mark.parametrize("project", ["../../../../tmp/pwned", "a/b", "Alpha", "a b", "..", "x" * 64, "-", "a\n"])
def test_a_project_that_cannot_be_a_name_is_refused_to_everybody(
    stack: Stack, victim: str, method: Method, project: str
) -> None:
    request = request_for(method, victim, project)
    if "project" not in method.request.DESCRIPTOR.fields_by_name and method.name != "Runs/SubmitBatch":
        return  # its request names none
    for role in [role for role in Role if allows(RULES[method.path], role)]:
        refused = code(stack.channel, method, request, stack.token("*", role))
        assert refused == grpc.StatusCode.INVALID_ARGUMENT, role


@every_method
def test_another_projects_run_is_not_found_without_naming_its_project(
    stack: Stack, victim: str, method: Method
) -> None:
    if "run" not in method.request.DESCRIPTOR.fields_by_name:
        return
    secret = stack.token("beta", Role.ADMIN)
    assert code(stack.channel, method, request_for(method, victim, ""), secret) == NOT_FOUND


def test_another_projects_cluster_can_neither_be_taken_over_nor_drained(stack: Stack, victim: str) -> None:
    attach, drain = (next(m for m in METHODS if m.name == f"Clusters/{name}") for name in ("Attach", "Drain"))
    taken = code(stack.channel, attach, request_for(attach, victim, ""), stack.token("beta", Role.AGENT))
    assert taken == grpc.StatusCode.FAILED_PRECONDITION
    assert code(stack.channel, drain, request_for(drain, victim, ""), stack.token("beta", Role.ADMIN)) == NOT_FOUND


def test_another_projects_code_can_neither_be_fetched_nor_run(stack: Stack) -> None:
    get, submit = (next(m for m in METHODS if m.name == name) for name in ("Clusters/GetBundle", "Runs/Submit"))
    with stack.client(stack.token("alpha", Role.USER)) as alpha:
        sha256 = alpha._calls.upload(
            alpha._runs.UploadBundle, lambda: iter([pb.BundleChunk(data=b"alpha's code")])
        ).sha256
    request = pb.SubmitRequest(spec=json.dumps({"name": "a", "script": "train.py", "code": f"bundle:{sha256}"}))
    for project, answer in (("alpha", grpc.StatusCode.OK), ("*", grpc.StatusCode.OK), ("beta", NOT_FOUND)):
        assert code(stack.channel, get, pb.Bundle(sha256=sha256), stack.token(project, Role.AGENT)) == answer
    for project, answer in (("alpha", grpc.StatusCode.OK), ("beta", NOT_FOUND)):
        assert code(stack.channel, submit, request, stack.token(project, Role.USER)) == answer


def test_log_lines_for_another_projects_run_are_not_kept(stack: Stack, victim: str) -> None:
    ship = next(method for method in METHODS if method.name == "Clusters/ShipLogs")
    answer: Any = call(stack.channel, ship, request_for(ship, victim, ""), stack.token("beta", Role.AGENT))[0]
    assert answer.seq == 1
    with stack.client() as admin:
        assert list(admin.logs(victim)) == []


def test_listings_show_nothing_of_another_project(stack: Stack, victim: str) -> None:
    with stack.client(stack.token("beta", Role.ADMIN)) as beta:
        assert [run for run in beta.list() if run.project != "beta"] == []
        assert [each for each in beta.tokens() if each.project != "beta"] == []
        assert (beta.secrets(), beta.models(), beta.clusters()) == ((), [], [])


def test_a_project_admin_cannot_make_a_token_of_another_or_of_every_project(stack: Stack) -> None:
    create = next(method for method in METHODS if method.name == "Tokens/Create")
    for project in ("beta", "*"):
        request = pb.CreateTokenRequest(name="wide", project=project, role="viewer")
        assert code(stack.channel, create, request, stack.token("alpha", Role.ADMIN)) == DENIED


def test_an_agent_token_does_nothing_but_attach(stack: Stack, victim: str) -> None:
    allowed = {method.name for method in METHODS if allows(RULES[method.path], Role.AGENT)}
    assert allowed == {"Clusters/Attach", "Clusters/ShipLogs", "Clusters/GetBundle"}
    assert all(not allows(RULES[method.path], Role.ADMIN) for method in METHODS if method.name in allowed)


def test_health_check_needs_no_token_and_its_watch_does(stack: Stack) -> None:
    stub: Any = health_pb2_grpc.HealthStub(stack.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service="evertrain.v1.Runs"), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20))
    assert refused.value.code() == UNAUTHENTICATED


def test_reflection_needs_a_token_and_lists_every_service(stack: Stack) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(stack.channel)
    ask = [reflection_pb2.ServerReflectionRequest(list_services="")]
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.ServerReflectionInfo(iter(ask), timeout=20))
    assert refused.value.code() == UNAUTHENTICATED
    metadata = (("authorization", f"Bearer {stack.token('alpha', Role.VIEWER)}"),)
    answer = next(stub.ServerReflectionInfo(iter(ask), metadata=metadata, timeout=20))
    names = {each.name for each in answer.list_services_response.service}
    assert {f"evertrain.v1.{name}" for name in ("Runs", "Models", "Tokens", "Secrets", "Clusters")} <= names


def test_a_method_that_does_not_exist_is_unimplemented(stack: Stack) -> None:
    ghost = Method("/evertrain.v1.Runs/Ghost", pb.GetRunRequest, pb.Run, False, False)
    assert code(stack.channel, ghost, pb.GetRunRequest(), stack.admin) == grpc.StatusCode.UNIMPLEMENTED


def test_a_method_that_has_no_rule_is_denied(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/evertrain.v1.Runs/Events"
    monkeypatch.delitem(RULES, path)
    events = next(method for method in METHODS if method.path == path)
    assert code(stack.channel, events, pb.EventsRequest(run="x"), stack.admin) == DENIED


def test_a_token_that_is_revoked_ends_an_open_stream(stack: Stack) -> None:
    run = stack.submit("alpha")
    made = stack.client().create_token("short", Role.VIEWER, project="alpha")
    with stack.client(made.secret) as viewer, stack.client() as admin:
        updates = viewer.watch(run.id)
        next(updates)
        admin.revoke_token(made.token.id)
        stack.place(run)
        with pytest.raises(Exception, match="revoked"):
            next(updates)
