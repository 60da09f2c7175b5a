"""The files of a Ray node go when the node is dead, and only then."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.keeper import Keeper
from orchestrator.cluster.local_dirs import NodeDirs, remove_dead_nodes


def owned(root: Path, node_id: str, pid: int) -> NodeDirs:
    dirs = NodeDirs(str(root), node_id)
    dirs.create()
    dirs.own(pid)
    return dirs


@pytest.fixture
def dead(tmp_path: Path) -> NodeDirs:
    raylet = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dirs = owned(tmp_path, "dead-node", raylet.pid)
    raylet.kill()
    raylet.communicate()
    return dirs


def test_a_keeper_takes_away_what_dead_nodes_of_its_machine_left(dead: NodeDirs, tmp_path: Path) -> None:
    other = owned(tmp_path, "other-living", os.getpid())
    keeper = Keeper(NodeDirs(str(tmp_path), "living-node"), os.getpid())
    asyncio.run(keeper.sweep([], []))
    assert not dead.base.exists()
    assert other.base.exists()
    assert NodeDirs(str(tmp_path), "living-node").base.exists()
    assert other.environments.exists()
    assert other.bundles.exists()


def test_a_process_id_that_came_again_is_not_the_owner(tmp_path: Path) -> None:
    dirs = owned(tmp_path, "node", os.getpid())
    mark = dirs.base / "owner.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "started": 1}))
    assert remove_dead_nodes(tmp_path) == [dirs.base]


@pytest.mark.parametrize("text", ['{"pid": 1}', "", None])
def test_a_directory_whose_owner_is_not_known_stays(tmp_path: Path, text: str | None) -> None:
    dirs = NodeDirs(str(tmp_path), "node")
    dirs.create()
    if text is not None:
        (dirs.base / "owner.json").write_text(text)
    assert remove_dead_nodes(tmp_path) == []
    assert dirs.base.exists()


def test_a_directory_of_another_container_stays(dead: NodeDirs, tmp_path: Path) -> None:
    mark = dead.base / "owner.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "pid_namespace": "pid:[1]"}))
    assert remove_dead_nodes(tmp_path) == []
