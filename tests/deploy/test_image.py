"""deploy/Dockerfile executed without a container engine: its own instructions in layers over this machine's root. What comes
of them runs as an engine runs it: by its user, without capabilities, on a root file system that cannot be written.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import dockerfile, engine
from tests.deploy.dockerfile import ROOT
from tests.deploy.layers import Image, Mount, in_container, why_not

PYTHON = Path("/usr/bin/python3")  # the base image's has no place of its own here
USER = "10001:10001"
SERVER_BYTES = 250 * 10**6
READY_S = 60.0
DIGITS = ROOT / "deploy" / "examples" / "digits_cnn.yaml"


def pip_cache() -> Path:
    done = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True)
    path = Path(done.stdout.strip())
    path.mkdir(parents=True, exist_ok=True)
    return path


def build(directory: Path) -> dockerfile.Build:
    """With this machine's Python and its ways to packages; all else is the Dockerfile's."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    outside |= {"PYTHON": str(PYTHON), "PIP": f"{sys.executable} -m pip"}
    return dockerfile.Build(dockerfile.TEXT, ROOT, directory, outside=outside, caches={"/root/.cache/pip": pip_cache()})


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    if why_not():
        pytest.skip(why_not())
    asked = subprocess.run(
        [str(PYTHON), "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
    )
    if asked.stdout.strip() != "(3, 11)":
        pytest.skip(f"needs Python 3.11 at {PYTHON}, as the base image has it")
    directory = engine.directory()
    yield directory
    engine.remove(directory)


@pytest.fixture(scope="module")
def image(directory: Path) -> Image:
    return build(directory).image("server")


class Started:
    """Containers of one image that share a volume, as one after the other of the same service do."""

    def __init__(self, image: Image, directory: Path) -> None:
        self.image, self.directory = image, directory
        tokens, data = directory / "tokens", directory / "data"
        tokens.mkdir()
        data.mkdir()
        for role in ("admin", "agent", "viewer"):
            (tokens / f"{role}.token").write_text(role * 10)
        self.grpc_port, self.http_port = free_port(), free_port()
        (volume,) = image.volumes
        self.mounts = [
            Mount(volume, data, read_only=False),
            Mount("/etc/evertrain/tokens", tokens),
            Mount("/etc/evertrain/digits_cnn.yaml", DIGITS),
            Mount("/dev/shm"),
            Mount("/tmp"),
        ]
        self.env = {
            **image.env,
            "HOME": "/tmp",
            "EVERTRAIN_GRPC_HOST": "127.0.0.1",
            "EVERTRAIN_HTTP_HOST": "127.0.0.1",
            "EVERTRAIN_GRPC_PORT": str(self.grpc_port),
            "EVERTRAIN_HTTP_PORT": str(self.http_port),
            "EVERTRAIN_TOKENS_DIR": "/etc/evertrain/tokens",
            "EVERTRAIN_SERVER": f"127.0.0.1:{self.grpc_port}",
            "EVERTRAIN_TOKEN": "admin" * 10,
        }
        self.container = self.start()

    def _command(self, *words: str) -> list[str]:
        box = self.directory / f"box-{time.monotonic_ns()}"
        box.mkdir()
        return in_container(self.image, box, words, env=self.env, user=self.image.user, mounts=self.mounts)

    def start(self) -> engine.Container:
        command = self._command(*self.image.entrypoint, *self.image.command)
        container = engine.Container("server", command, self.directory / "server.log")
        deadline = time.monotonic() + READY_S
        while self.run(*self.image.healthcheck).returncode != 0:
            assert container.process.poll() is None, container.log.read_text()[-3000:]
            assert time.monotonic() < deadline, container.log.read_text()[-3000:]
        return container

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(*words), capture_output=True, text=True, timeout=60)

    def python(self, code: str) -> str:
        done = self.run("/opt/evertrain/bin/python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def server(image: Image, directory: Path) -> Iterator[Started]:
    server = Started(image, directory)
    yield server
    server.container.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_server_stays_under_its_size(image: Image) -> None:
    size = sum(each.lstat().st_size for each in (image.layers[0] / "opt").rglob("*") if not each.is_dir())
    print(f"the server's installation is {size / 1e6:.0f} MB")
    assert size < SERVER_BYTES


def test_the_image_holds_nothing_but_the_installation_its_user_and_its_volume(image: Image) -> None:
    found = {f"/{each.relative_to(layer)}" for layer in image.layers for each in layer.glob("*/*")}
    accounts = {each for each in found if each.startswith("/etc/")}
    assert found - accounts - {"/var/log"} == {"/opt/evertrain", "/home/evertrain", "/var/lib"}


def test_the_server_holds_nothing_of_training_no_pip_and_no_compiler(server: Started) -> None:
    names = ("torch", "ray", "deepspeed", "scipy", "river", "pandas", "pip", "setuptools", "sklearn")
    assert server.python(f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])") == "[]"


def test_a_server_that_watches_no_models_says_what_to_install(server: Started) -> None:
    said = server.python(
        """
from orchestrator.api.observation_intake import _rows
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
try:
    _rows(pb.ObserveRequest(kind="rows", data=b"x"), 0.0)
except Exception as error:
    print(error)
"""
    )
    assert [line.count("evertrain[monitors]") for line in said.splitlines()] == [1]


def test_the_server_runs_without_rights_on_a_file_system_that_cannot_be_written(server: Started) -> None:
    status = Path(f"/proc/{server.container.process.pid}/status").read_text()
    uid, gid = USER.split(":")
    assert re.search(rf"^Uid:\s+{uid}\s+{uid}", status, re.MULTILINE)
    assert re.search(rf"^Gid:\s+{gid}\s+{gid}", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    for path in ("/opt/evertrain/here", "/here", "/home/evertrain/here"):
        assert "Read-only file system" in server.run("touch", path).stderr, path


def test_the_image_knows_when_nobody_answers(server: Started) -> None:
    server.env["EVERTRAIN_HTTP_PORT"] = str(free_port())
    done = server.run(*server.image.healthcheck)
    server.env["EVERTRAIN_HTTP_PORT"] = str(server.http_port)
    assert done.returncode == 1
    assert "refused" in done.stderr


def test_what_it_has_taken_outlives_its_container(server: Started) -> None:
    submitted = server.run("evertrain", "submit", "/etc/evertrain/digits_cnn.yaml")
    assert submitted.returncode == 0, submitted.stderr
    assert server.container.stop() == 0, "it ends in order when it is told to"
    server.container = server.start()
    listed = server.run("evertrain", "list", "-o", "json")
    assert '"digits-cnn"' in listed.stdout, listed.stderr


# ---- the file itself ------------------------------------------------------------------------------------------------


def test_only_what_is_copied_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    _, steps = dockerfile.stages(dockerfile.TEXT)["source"]
    copied = [word for name, words in steps if name == "COPY" for word in words.split()[:-1]]
    assert sorted(line[1:] for line in lines if line.startswith("!")) == sorted(copied)


@pytest.mark.parametrize("name", ["server", "ray-cpu", "ray-cuda"])
def test_no_image_runs_as_root(name: str) -> None:
    _, steps = dockerfile.stages(dockerfile.TEXT)[name]
    assert ("USER", USER) in steps


def test_every_base_is_pinned_by_a_digest_that_has_to_be_given() -> None:
    found = dockerfile.stages(dockerfile.TEXT)
    assert {base for base, _ in found.values()} - found.keys() == {"${PYTHON_IMAGE}@${PYTHON_DIGEST}"}
    assert ("ARG", "PYTHON_DIGEST") in dockerfile.instructions(dockerfile.TEXT)


def test_each_image_says_whether_it_is_well() -> None:
    for name in ("server", "ray"):
        _, steps = dockerfile.stages(dockerfile.TEXT)[name]
        assert any(instruction == "HEALTHCHECK" for instruction, _ in steps)


def test_ray_starts_in_an_image_with_a_token_only() -> None:
    _, steps = dockerfile.stages(dockerfile.TEXT)["ray"]
    assert any("RAY_AUTH_MODE=token" in words.split() for instruction, words in steps if instruction == "ENV")
