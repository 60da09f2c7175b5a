from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.errors import Refused
from orchestrator.settings import (
    Connection,
    Settings,
    find_connection,
    forget_connection,
    load_settings,
    save_connection,
)


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("SERVER", "TOKEN", "CA_CERT"):
        monkeypatch.delenv(f"EVERTRAIN_{name}", raising=False)
    path = tmp_path / "home" / "context"
    monkeypatch.setenv("EVERTRAIN_CONTEXT", str(path))
    return path


def test_every_setting_has_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVERTRAIN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("EVERTRAIN_GRPC_PORT", "1234")
    settings = load_settings()
    assert (settings.grpc_port, settings.database_url) == (1234, f"sqlite:///{tmp_path / 'evertrain.db'}")
    assert settings.storage_root == str(tmp_path / "storage")


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTRAIN_GRPC_PORT", "99999")
    monkeypatch.setenv("EVERTRAIN_LOG_LEVEL", "LOUD")
    with pytest.raises(Refused, match=r"(?s)EVERTRAIN_GRPC_PORT.*99999.*EVERTRAIN_LOG_LEVEL.*LOUD"):
        load_settings()


def test_webhooks_are_urls_with_commas_between_and_signed_by_a_secret_of_the_servers_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EVERTRAIN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("EVERTRAIN_WEBHOOKS", "https://ops.example/hook, http://127.0.0.1:9000/")
    settings = load_settings()
    assert settings.webhook_urls == ("https://ops.example/hook", "http://127.0.0.1:9000/")
    assert settings.webhook_secret == tmp_path / "webhook.secret"
    monkeypatch.setenv("EVERTRAIN_WEBHOOKS", "https://ops.example/hook,file:///etc/passwd")
    with pytest.raises(Refused, match="'file:///etc/passwd' is none"):
        load_settings()


def test_the_url_of_the_store_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:secret@db/evertrain\n")
    monkeypatch.setenv("EVERTRAIN_STORE_URL_FILE", str(tmp_path / "url"))
    assert load_settings().database_url == "postgresql://u:secret@db/evertrain"
    monkeypatch.setenv("EVERTRAIN_STORE_URL", "sqlite:///x")
    with pytest.raises(Refused, match="both set"):
        load_settings()
    monkeypatch.delenv("EVERTRAIN_STORE_URL")
    monkeypatch.setenv("EVERTRAIN_STORE_URL_FILE", str(tmp_path / "missing"))
    with pytest.raises(Refused, match="missing cannot be read"):
        load_settings()


@pytest.mark.parametrize(("host", "answer"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)])
def test_metrics_are_open_on_loopback_only(host: str, answer: bool) -> None:
    assert Settings(data_dir=Path("/x"), http_host=host).open_metrics is answer
    assert Settings(data_dir=Path("/x"), http_host=host, metrics_without_token=not answer).open_metrics is not answer


def test_a_saved_connection_is_private_and_found_again(context: Path) -> None:
    saved = Connection("127.0.0.1:7460", "evt_secret")
    assert save_connection(saved) == context
    assert stat.S_IMODE(context.stat().st_mode) == 0o600
    assert find_connection() == saved


def test_the_environment_wins_over_the_file(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_connection(Connection("127.0.0.1:7460", "evt_secret"))
    monkeypatch.setenv("EVERTRAIN_SERVER", "other:1")
    monkeypatch.setenv("EVERTRAIN_TOKEN", "evt_other")
    assert find_connection() == Connection("other:1", "evt_other")


def test_a_saved_token_is_not_shown_to_another_server(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_connection(Connection("127.0.0.1:7460", "evt_secret"))
    monkeypatch.setenv("EVERTRAIN_SERVER", "other:1")
    with pytest.raises(Refused, match="EVERTRAIN_TOKEN"):
        find_connection()


def test_no_server_says_what_to_do(context: Path) -> None:
    with pytest.raises(Refused, match="evertrain up"):
        find_connection()


@pytest.mark.parametrize("text", ["", "[]", '{"server": 1}', "{", '{"token": "x"}'])
def test_a_broken_context_names_its_path(context: Path, text: str) -> None:
    context.parent.mkdir(parents=True)
    context.write_text(text)
    with pytest.raises(Refused, match="context"):
        find_connection()


def test_only_the_context_of_that_server_is_forgotten(context: Path) -> None:
    save_connection(Connection("one:1", "t"))
    forget_connection("two:2")
    assert context.exists()
    forget_connection("one:1")
    assert not context.exists()


def test_a_token_is_not_printed() -> None:
    assert "evt_secret" not in repr(Connection("one:1", "evt_secret"))
