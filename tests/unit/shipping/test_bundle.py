"""Code directories travel whole, and nothing that a stranger packed gets out of its directory."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import bundle
from orchestrator.errors import NotFound, Refused, StorageFailed, TooLarge


@pytest.fixture
def code(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    (root / "package" / "__pycache__").mkdir(parents=True)
    (root / "package" / "model.py").write_text("x = 1\n")
    (root / "package" / "__pycache__" / "model.pyc").write_text("")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("")
    (root / "run.sh").write_text("echo\n")
    (root / "run.sh").chmod(0o755)
    (root / "link.py").symlink_to("package/model.py")
    (root / "empty").mkdir()
    return root


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def test_what_was_packed_is_what_is_unpacked(code: Path, tmp_path: Path) -> None:
    bundle.unpack(bundle.pack(code).data, tmp_path / "out")
    assert (tmp_path / "out" / "package" / "model.py").read_text() == "x = 1\n"
    assert (tmp_path / "out" / "link.py").read_text() == "x = 1\n"
    assert (tmp_path / "out" / "link.py").is_symlink()
    assert (tmp_path / "out" / "empty").is_dir()
    assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
    assert not (tmp_path / "out" / ".git").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "out"]


def test_the_same_files_give_the_same_bytes_whenever_and_by_whomever_packed(code: Path) -> None:
    first = hashlib.sha256(bundle.pack(code).data).hexdigest()
    for path in code.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert hashlib.sha256(bundle.pack(code).data).hexdigest() == first


def test_the_ignore_file_leaves_out_what_it_names(code: Path) -> None:
    (code / ".evertrainignore").write_text("# data\n*.bin\nempty/\npackage/secret.txt\n")
    (code / "weights.bin").write_text("x")
    (code / "package" / "secret.txt").write_text("x")
    assert names(bundle.pack(code).data) == [".evertrainignore", "link.py", "package", "package/model.py", "run.sh"]


def test_credentials_that_lie_beside_the_code_stay_at_home(code: Path) -> None:
    (code / ".ssh").mkdir()
    (code / "package" / ".aws").mkdir()
    for name in (".env", ".netrc", ".ssh/id_rsa", "package/.aws/credentials", "package/.env.local"):
        (code / name).write_text("hush")
    assert names(bundle.pack(code).data) == ["empty", "link.py", "package", "package/model.py", "run.sh"]


def test_a_name_with_a_dot_is_taken_in_where_the_ignore_file_asks_for_it(code: Path) -> None:
    for name in (".env", ".streamlit/config.toml", ".streamlit/.env"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text("x")
    (code / ".evertrainignore").write_text("*.py\n!.streamlit\nempty\n!package/model.py\n")
    taken = [".evertrainignore", ".streamlit", ".streamlit/config.toml", "package", "package/model.py", "run.sh"]
    assert names(bundle.pack(code).data) == taken


def test_how_much_was_packed_is_told(code: Path) -> None:
    packed = bundle.pack(code)
    assert (packed.directory, packed.files, packed.size_bytes) == (code, 2, len("x = 1\n") + len("echo\n"))


def test_a_link_that_leads_out_is_refused_by_name(code: Path) -> None:
    (code / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="passwords leads out"):
        bundle.pack(code)


def test_a_pipe_is_refused(code: Path) -> None:
    os.mkfifo(code / "pipe")
    with pytest.raises(Refused, match="pipe is neither"):
        bundle.pack(code)


def test_an_ignore_file_that_is_no_text_is_refused_by_name(code: Path) -> None:
    (code / ".evertrainignore").write_bytes(b"*.bin\n\xff\xfe\n")
    with pytest.raises(Refused, match=r"\.evertrainignore is not UTF-8 text \(at byte 6\)"):
        bundle.pack(code)


def test_a_file_that_cannot_be_read_is_named(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_path = Path.open

    def fail(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "model.py":
            raise PermissionError(13, "Permission denied", str(self))
        return open_path(self, *args, **options)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StorageFailed, match=r"package/model\.py cannot be packed: Permission denied"):
        bundle.pack(code)


def test_a_file_that_shrinks_while_it_is_packed_is_said(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_path = Path.open

    def shrink(self: Path, *args: Any, **options: Any) -> Any:
        os.truncate(self, 1)
        return open_path(self, *args, **options)

    monkeypatch.setattr(Path, "open", shrink)
    with pytest.raises(StorageFailed, match="became shorter meanwhile: try again"):
        bundle.pack(code)


def test_a_directory_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not a directory"):
        bundle.pack(tmp_path / "nowhere")


def test_too_much_code_is_refused_with_advice(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_UNPACKED_BYTES", 3)
    with pytest.raises(TooLarge, match=r"\.evertrainignore"):
        bundle.pack(code)


def test_random_bytes_beyond_the_limit_are_refused(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 2000)
    (code / "noise").write_bytes(os.urandom(4000))
    with pytest.raises(TooLarge, match="packs to"):
        bundle.pack(code)


def test_unpacking_twice_changes_nothing(code: Path, tmp_path: Path) -> None:
    data = bundle.pack(code).data
    bundle.unpack(data, tmp_path / "out")
    (tmp_path / "out" / "mine").write_text("kept")
    bundle.unpack(data, tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()


# ---- strangers ------------------------------------------------------------------------------------------------------


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"x"
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = len(content) if kind == tarfile.REGTYPE else 0
    return member, content


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, content in entries:
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return buffer.getvalue()


MALICIOUS = {
    "a path that climbs": [entry("../evil")],
    "an absolute path": [entry("/tmp/evertrain-evil")],
    "a climb in the middle": [entry("a/../../evil")],
    "an absolute link": [entry("l", tarfile.SYMTYPE, "/etc")],
    "a link that climbs": [entry("l", tarfile.SYMTYPE, "../..")],
    "a link that climbs behind a directory": [entry("a", tarfile.DIRTYPE), entry("l", tarfile.SYMTYPE, "a/../../x")],
    "a file below a link": [entry("a", tarfile.DIRTYPE), entry("l", tarfile.SYMTYPE, "a"), entry("l/x")],
    "a file over a link": [entry("l", tarfile.SYMTYPE, "x"), entry("l")],
    "a hard link": [entry("a"), entry("b", tarfile.LNKTYPE, "a")],
    "a device": [entry("d", tarfile.CHRTYPE)],
    "a pipe": [entry("p", tarfile.FIFOTYPE)],
    "a file as a directory": [entry("a"), entry("a/b")],
    "the directory itself": [entry(".", tarfile.SYMTYPE, "x")],
}


@pytest.mark.parametrize("entries", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_a_malicious_archive_is_refused_and_leaves_nothing(
    entries: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="this code bundle"):
        bundle.unpack(tar(entries), tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_a_damaged_archive_is_refused(code: Path, tmp_path: Path, cut: int) -> None:
    data = bundle.pack(code).data[:cut] if cut else b"not a gzip at all"
    with pytest.raises(Refused, match="not a whole gzipped tar"):
        bundle.unpack(data, tmp_path / "out")


def test_a_bomb_is_ended_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_UNPACKED_BYTES", 2**20)
    monkeypatch.setattr(bundle, "MAX_ENTRIES", 10)
    with pytest.raises(TooLarge, match="unpacks to more than"):
        bundle.unpack(tar([entry("zeros", content=bytes(4 * 2**20))]), tmp_path / "out")


def test_a_header_that_claims_more_than_there_is_does_not_help(tmp_path: Path) -> None:
    member, _ = entry("x")
    member.size = 2**40
    with pytest.raises(Refused):
        bundle.unpack(gzip.compress(member.tobuf() + b"x" * 512), tmp_path / "out")


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_ENTRIES", 3)
    with pytest.raises(TooLarge, match="entries"):
        bundle.unpack(tar(entry(str(number)) for number in range(5)), tmp_path / "out")
