"""Models, tokens, secrets and clusters."""

from __future__ import annotations

import pytest

from orchestrator import Client
from orchestrator.api import pages
from orchestrator.core.records import Role
from orchestrator.core.runs import Run
from orchestrator.core.scheduling.fit import Node
from orchestrator.errors import Denied, InvalidSpec, NotFound, Refused, Unauthenticated
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from tests import proofs
from tests.integration.api.stack import Stack

NODE = Node("node-a", "alpha", "10.0.0.1", 4.0, 0.0, 2**33, 4.0, 0.0, 2**33)


@pytest.fixture
def trained(stack: Stack) -> Run:
    return stack.end(stack.place(stack.submit("zoo", name="cat")))


def test_a_finished_run_is_a_model_version(client: Client, trained: Run) -> None:
    newest = client.model("cat", project="zoo")
    assert (newest.run_id, newest.metrics, newest.checkpoint) == (trained.id, {"test_accuracy": 0.98}, "/seal")
    assert newest in client.models(project="zoo")
    assert client.model("cat", str(newest.version), project="zoo") == newest


def test_an_alias_moves(client: Client, trained: Run) -> None:
    version = client.model("cat", project="zoo").version
    assert client.set_alias("cat", version, "champion", project="zoo").aliases == ("champion",)
    assert client.model("cat", "champion", project="zoo").version == version


def test_a_champion_is_replaced_by_a_promotion_alone(stack: Stack, client: Client) -> None:
    for _ in range(2):
        stack.end(stack.place(stack.submit("zoo", name="ocelot")))
    assert client.set_alias("ocelot", 1, "champion", project="zoo").aliases == ("champion",)
    with pytest.raises(Refused, match="`evertrain model promote ocelot@2`"):
        client.set_alias("ocelot", 2, "champion", project="zoo")
    assert client.set_alias("ocelot", 1, "champion", project="zoo").aliases == ("champion",), "where it stands"
    assert client.set_alias("ocelot", 2, "blue", project="zoo").aliases == ("blue",)


@pytest.mark.parametrize("alias", ["", "7", "Upper", "a b"])
def test_an_alias_that_could_be_a_version_is_refused(client: Client, trained: Run, alias: str) -> None:
    with pytest.raises(InvalidSpec, match="alias"):
        client.set_alias("cat", 1, alias, project="zoo")


def test_facts_are_kept_with_a_version(client: Client, trained: Run) -> None:
    version = client.model("cat", project="zoo").version
    assert client.facts("cat", project="zoo") == {}
    client.put_fact("cat", "", "importance", {"whiskers": 0.7}, project="zoo")
    assert client.facts("cat", str(version), project="zoo") == {"importance": {"whiskers": 0.7}}


def test_a_fact_that_is_too_long_or_no_name_is_refused(client: Client, trained: Run) -> None:
    with pytest.raises(InvalidSpec, match="fact"):
        client.put_fact("cat", "", "Two words", 1, project="zoo")
    with pytest.raises(InvalidSpec, match="at most 1048576"):
        client.put_fact("cat", "", "profile", "x" * 2**20, project="zoo")
    with pytest.raises(NotFound, match="999"):
        client.put_fact("cat", "999", "profile", 1, project="zoo")


def test_a_proof_is_written_by_its_run_alone(client: Client, trained: Run) -> None:
    with pytest.raises(InvalidSpec, match="by the version's run alone"):
        client.put_fact("cat", "", "proof", {"format": 1}, project="zoo")


def test_a_challenger_is_compared_promoted_and_taken_back(stack: Stack, client: Client) -> None:
    for _ in range(2):
        stack.end(stack.place(stack.submit("zoo", name="lynx")), checkpoint="/lynx")
    stack.store.put_fact("zoo", "lynx", 2, "proof", proofs.better(champion=1))
    assert client.promote("lynx", "1", project="zoo").before == 0

    compared = client.compare("lynx", project="zoo")
    assert (compared.champion.version, compared.challenger.version) == (1, 2)
    assert compared.judgement["promote"] is True
    assert client.promote("lynx", project="zoo").version == 2
    assert client.model("lynx", "champion", project="zoo").version == 2

    back = client.roll_back("lynx", "it lied", expected=2, project="zoo")

    assert (back.version, back.before, back.by) == (1, 2, "first-admin")
    moves = client.alias_history("lynx", project="zoo")
    assert [(each.before, each.version) for each in moves] == [(2, 1), (1, 2), (0, 1)]
    assert moves[1].report == stack.store.alias_history("zoo", "lynx")[1].report
    (only,) = client.lineage("lynx", "1", project="zoo")
    assert (only.version.version, only.run, only.weights) == (1, "lynx", "")


def test_moves_that_cannot_be_are_refused(stack: Stack, client: Client) -> None:
    for _ in range(2):
        stack.end(stack.place(stack.submit("zoo", name="puma")))
    client.promote("puma", "1", project="zoo")
    with pytest.raises(Refused, match="puma@2 is not promoted"):
        client.promote("puma", project="zoo")
    with pytest.raises(Refused, match="compared with itself"):
        client.compare("puma", "1", project="zoo")
    with pytest.raises(InvalidSpec, match="must say why"):
        client.roll_back("puma", "", project="zoo")
    with pytest.raises(InvalidSpec, match="alias"):
        client.promote("puma", alias="7", project="zoo")


def test_a_model_that_is_not_there(client: Client, trained: Run) -> None:
    with pytest.raises(NotFound, match="dog"):
        client.model("dog", project="zoo")
    with pytest.raises(NotFound, match="999"):
        client.model("cat", "999", project="zoo")


def test_long_listings_come_in_pages_that_new_entries_do_not_shift(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE", 2)
    for _ in range(5):
        stack.end(stack.place(stack.submit("library", name="owl")))
        stack.token("library", Role.VIEWER)
    assert [each.version for each in client.models(project="library")] == [5, 4, 3, 2, 1]
    assert len({each.id for each in client.tokens(project="library")}) == 5
    call, request = client._calls.unary, pb.ListModelsRequest(project="library")
    first = call(client._models.List, request)
    stack.end(stack.place(stack.submit("library", name="owl")))
    request.page = first.next_page
    assert [each.version for each in first.versions] == [5, 4]
    assert [each.version for each in call(client._models.List, request).versions] == [3, 2]
    with pytest.raises(InvalidSpec, match="next_page"):
        call(client._models.List, pb.ListModelsRequest(page="x"))
    with pytest.raises(InvalidSpec, match="next_page"):
        call(client._tokens.List, pb.ListTokensRequest(page="x"))


def test_a_token_lets_in_until_it_is_revoked(stack: Stack, client: Client) -> None:
    made = client.create_token("ci", Role.USER, project="team", expires_s=3600)
    assert made.secret not in repr(made)
    with stack.client(made.secret) as user:
        assert list(user.list()) == []
        with pytest.raises(Denied, match="admin"):
            user.tokens()
        client.revoke_token(made.token.id)
        client.revoke_token(made.token.id)
        with pytest.raises(Unauthenticated, match="revoked"):
            list(user.list())
    shown = next(each for each in client.tokens(project="team") if each.id == made.token.id)
    assert shown.revoked_at is not None


def test_a_token_without_a_project_is_never_of_every_project(client: Client) -> None:
    assert client.create_token("narrow", Role.VIEWER).token.project == "default"
    assert client.create_token("wide", Role.VIEWER, project="*").token.project == "*"


@pytest.mark.parametrize(
    ("name", "role", "expires_s"),
    [
        ("", "user", None),
        ("Ümlaut", "user", None),
        ("x", "king", None),
        ("x", "user", -1.0),
        ("x", "user", float("nan")),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(client: Client, name: str, role: Role, expires_s: float | None) -> None:
    with pytest.raises(InvalidSpec):
        client.create_token(name, role, expires_s=expires_s)


def test_a_secret_goes_in_and_only_its_name_comes_out(client: Client) -> None:
    client.put_secret("HF_TOKEN", "hush", project="hidden")
    client.put_secret("HF_TOKEN", "hush again", project="hidden")
    assert client.secrets(project="hidden") == ("HF_TOKEN",)
    client.delete_secret("HF_TOKEN", project="hidden")
    assert client.secrets(project="hidden") == ()
    with pytest.raises(NotFound):
        client.delete_secret("HF_TOKEN", project="hidden")


@pytest.mark.parametrize(("name", "value"), [("1X", "v"), ("A=B", "v"), ("OK", ""), ("OK", "a\0b")])
def test_a_secret_that_cannot_be_an_environment_variable_is_refused(client: Client, name: str, value: str) -> None:
    with pytest.raises(InvalidSpec):
        client.put_secret(name, value)


def test_a_run_that_asks_for_an_unknown_secret_is_refused(client: Client) -> None:
    with pytest.raises(Refused, match="NOPE"):
        client.submit({"name": "x", "recipe": "digits_cnn", "train": {"epochs": 1}, "secrets": ["NOPE"]})


def test_a_cluster_is_listed_and_drained(stack: Stack, client: Client) -> None:
    stack.parts.fleet.clusters.attach("drainable", "*", 1, "2.60.0")
    shown = next(each for each in client.clusters() if each.name == "drainable")
    assert (shown.connected, shown.draining, shown.ray_version) == (False, False, "2.60.0")
    assert client.drain("drainable").draining
    assert not client.drain("drainable", undo=True).draining


def test_a_shared_cluster_is_seen_by_a_project_and_not_drained_by_it(stack: Stack) -> None:
    stack.parts.fleet.clusters.attach("shared", "*", 1, "2.60.0")
    with stack.client(stack.token("team", Role.ADMIN)) as team:
        assert "shared" in [each.name for each in team.clusters()]
        with pytest.raises(Denied, match="every project"):
            team.drain("shared")
