"""The image of the server, without a container engine: its install script run in a directory of its own, and its entrypoint
in there as the image runs it, by a user without rights on a file system that cannot be written.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PYTHON = Path("/usr/bin/python3")  # that every user may run; a virtual environment's may lie in somebody's home
USER = 10001
SERVER_BYTES = 250 * 10**6
READY_S = 60.0


def stage(name: str) -> list[str]:
    """The instructions of one stage, continued lines joined."""
    text = DOCKERFILE.replace("\\\n", " ")
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return [line.strip() for line in found[1].splitlines() if line.strip() and not line.startswith("#")]


def copied() -> list[str]:
    """What the Dockerfile copies from the repository."""
    lines = [line.split()[1:-1] for line in stage("source") if line.startswith("COPY")]
    return [word for words in lines for word in words]


def bytes_below(path: Path) -> int:
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="evertrain-image-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def installed(directory: Path) -> Path:
    """The prefix that the build stage of the target `server` makes."""
    version = subprocess.run([str(PYTHON), "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True)
    if version.stdout.strip() != b"True":
        pytest.skip(f"needs Python 3.11 at {PYTHON}, which every user may run")
    source, prefix = directory / "src", directory / "opt"
    source.mkdir()
    for word in copied():
        target = source / word
        if (ROOT / word).is_dir():
            shutil.copytree(ROOT / word, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / word, target)
    environment = {**os.environ, "PYTHON": str(PYTHON), "PIP": f"{sys.executable} -m pip", "PIP_CACHE_DIR": pip_cache()}
    steps = [line.removeprefix("RUN ") for line in stage("build-server") if line.startswith("RUN")]
    for step in steps:
        # Only the target differs, and that pip may use what it has fetched before.
        words = step.replace("/opt/evertrain", str(prefix)).replace("deploy/", f"{source}/deploy/")
        done = subprocess.run(words, shell=True, env=environment, cwd=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    return prefix


def pip_cache() -> str:
    done = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True)
    return done.stdout.strip()


def python(prefix: Path, code: str) -> str:
    done = subprocess.run([str(prefix / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_server_holds_nothing_of_training_no_pip_and_no_compiler(installed: Path) -> None:
    names = ("torch", "ray", "deepspeed", "scipy", "river", "pandas", "pip", "setuptools", "sklearn")
    found = python(installed, f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])")
    assert found == "[]"


def test_a_server_that_watches_no_models_says_what_to_install(installed: Path) -> None:
    said = python(
        installed,
        """
from orchestrator.api.observation_intake import _rows
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
try:
    _rows(pb.ObserveRequest(kind="rows", data=b"x"), 0.0)
except Exception as error:
    print(error)
""",
    )
    assert [line.count("evertrain[monitors]") for line in said.splitlines()] == [1]


def test_the_server_stays_under_its_size(installed: Path) -> None:
    size = bytes_below(installed)
    print(f"the server's installation is {size / 1e6:.0f} MB")
    assert size < SERVER_BYTES


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def as_in_the_image(data: Path, *command: str) -> list[str]:
    """Without root, capabilities and any file system to write to but the volume: namespaces do what an engine does."""
    confine = (
        f'mount --bind "{data}" "{data}" && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    )
    user = [
        f"--reuid={USER}",
        f"--regid={USER}",
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", confine, "sh", "setpriv", *user, "--", *command]


def may_confine(directory: Path) -> bool:
    return os.geteuid() == 0 and subprocess.run(as_in_the_image(directory, "true"), capture_output=True).returncode == 0


class RunningServer:
    def __init__(self, prefix: Path, directory: Path) -> None:
        data, tokens = directory / "data", directory / "tokens"
        data.mkdir()
        os.chown(data, USER, USER)
        tokens.mkdir()
        for role in ("admin", "agent", "viewer"):
            (tokens / f"{role}.token").write_text(role * 10)
        self.prefix, self.data = prefix, data
        self.grpc_port, self.http_port = free_port(), free_port()
        self.environment = {
            "PATH": f"{prefix}/bin:/usr/bin:/bin",
            "HOME": str(data),
            "PYTHONDONTWRITEBYTECODE": "1",
            "EVERTRAIN_DATA_DIR": str(data),
            "EVERTRAIN_TOKENS_DIR": str(tokens),
            "EVERTRAIN_GRPC_PORT": str(self.grpc_port),
            "EVERTRAIN_HTTP_PORT": str(self.http_port),
        }
        self.log = (directory / "server.log").open("wb")
        self.process = self.start("server", output=self.log)

    def start(self, *words: str, output: object = subprocess.PIPE) -> subprocess.Popen[str]:
        command = as_in_the_image(self.data, str(self.prefix / "bin" / "evertrain-entrypoint"), *words)
        return subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT, text=True)  # type: ignore[call-overload, no-any-return]

    def run(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while self.run("healthy", "server")[0] != 0:
            assert self.process.poll() is None, Path(self.log.name).read_text()[-3000:]
            assert time.monotonic() < deadline, Path(self.log.name).read_text()[-3000:]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def server(installed: Path, directory: Path) -> Iterator[RunningServer]:
    if not may_confine(directory):
        pytest.skip("needs root, and mount namespaces that are permitted")
    server = RunningServer(installed, directory)
    server.wait_ready()
    yield server
    server.process.kill()
    server.process.wait()


def test_the_server_runs_without_rights_on_a_file_system_that_cannot_be_written(server: RunningServer) -> None:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert re.search(rf"^Uid:\s+{USER}\s+{USER}", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    code, said = server.run("sh", "-c", f"touch {server.prefix}/here")
    assert code != 0
    assert "Read-only file system" in said


def test_the_command_line_of_the_image_reaches_the_server(server: RunningServer) -> None:
    server.environment |= {"EVERTRAIN_SERVER": f"127.0.0.1:{server.grpc_port}", "EVERTRAIN_TOKEN": "admin" * 10}
    code, said = server.run("evertrain", "token", "list", "-o", "json")
    assert code == 0, said
    assert {"deployed-admin", "deployed-agent", "deployed-viewer"} <= set(re.findall(r"deployed-\w+", said))


def test_the_image_knows_when_nobody_answers(server: RunningServer) -> None:
    server.environment["EVERTRAIN_HTTP_PORT"] = str(free_port())
    code, said = server.run("healthy", "server")
    server.environment["EVERTRAIN_HTTP_PORT"] = str(server.http_port)
    assert code == 1
    assert "refused" in said


def test_the_server_ends_in_order_when_it_is_told_to(server: RunningServer) -> None:
    assert server.stop() == 0


# ---- the file itself ------------------------------------------------------------------------------------------------


def test_only_what_is_copied_reaches_the_build() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(let_in) == sorted(copied())


@pytest.mark.parametrize("name", ["server", "ray-cpu", "ray-cuda"])
def test_no_image_runs_as_root(name: str) -> None:
    assert f"USER {USER}:{USER}" in stage(name)


def test_every_base_is_pinned_by_a_digest_that_has_to_be_given() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    for base in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert base in stages or base == "${PYTHON_IMAGE}@${PYTHON_DIGEST}"
    assert re.search(r"^ARG PYTHON_DIGEST$", DOCKERFILE, re.MULTILINE)


def test_each_image_says_whether_it_is_well() -> None:
    for name in ("server", "ray"):
        assert any(line.startswith("HEALTHCHECK") for line in stage(name))
