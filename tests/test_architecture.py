"""What holds for the code as a whole: sizes, words at the top, arrows between layers, and what is generated."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WIRE = ROOT / "orchestrator/protocol/v1"
MODULES = sorted(
    path
    for package in ("orchestrator", "trainers")
    for path in (ROOT / package).rglob("*.py")
    if "generated" not in path.parts
)
PURE = [
    path
    for path in MODULES
    if any(path.is_relative_to(ROOT / "orchestrator" / folder) for folder in ("core", "planning", "spec"))
]
PURE_MAY_IMPORT = (
    "orchestrator.core",
    "orchestrator.planning",
    "orchestrator.spec",
    "orchestrator.errors",
    "trainers.catalogue",
    "trainers.contract",
    "trainers.shapes",
    "trainers.layout",
    "pydantic",
    "yaml",
)
NOT_PURE = {
    "os",
    "time",
    "random",
    "logging",
    "socket",
    "subprocess",
    "threading",
    "asyncio",
    "pathlib",
    "secrets",
    "uuid",
}
PICKLING = ("_object", "_object_list")
LONGEST_FUNCTION = 70


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), named(path))


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=str(source), names=names):
                yield from (f"{source}.{each.name}" for each in names)


def test_no_function_is_longer_than_seventy_lines() -> None:
    long = [
        f"{named(path)}:{node.lineno} {node.name}: {length} lines"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []


def test_every_module_says_at_its_top_what_it_is() -> None:
    silent = [named(path) for path in MODULES if (module := tree(path)).body and not ast.get_docstring(module)]
    assert silent == []


def test_core_spec_and_planning_import_nothing_that_acts() -> None:
    wrong = [
        f"{named(path)} imports {name}"
        for path in PURE
        for name in imported(tree(path))
        if not name.startswith(PURE_MAY_IMPORT)
        and ((root := name.split(".")[0]) not in sys.stdlib_module_names or root in NOT_PURE)
    ]
    assert len(PURE) > 10
    assert wrong == []


def test_no_rank_unpickles_what_another_sent() -> None:
    pickling = [
        f"{named(path)}:{node.lineno} {node.attr}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr.endswith(PICKLING)
    ]
    assert pickling == []


def test_the_arrows_between_the_layers_hold() -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="grpcio-tools is not installed")
def test_the_wires_code_is_that_of_its_proto(tmp_path: Path) -> None:
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(WIRE), *outputs, str(WIRE / "evertrain.proto")]
    subprocess.run(protoc, check=True, timeout=60)
    package = "from orchestrator.protocol.v1.generated import evertrain_pb2"
    for fresh in tmp_path.iterdir():
        expected = fresh.read_text().replace("\nimport evertrain_pb2", f"\n{package}")
        assert (WIRE / "generated" / fresh.name).read_text() == expected, f"{fresh.name} is stale: run `make proto`"


def test_commits_are_checked_by_what_make_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    recipe = (ROOT / "Makefile").read_text()
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in recipe, hook["id"]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy", "import-linter"}
