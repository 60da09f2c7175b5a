"""What a Ray cluster has, and what others hold of it."""

from __future__ import annotations

from typing import Any

from orchestrator.cluster.inventory import held_by, inventory

NODE: dict[str, Any] = {
    "NodeID": "a",
    "Alive": True,
    "NodeManagerHostname": "alpha",
    "NodeManagerAddress": "10.0.0.1",
    "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1000.0, "accelerator_type:H100": 1.0},
}


def test_what_our_gangs_hold_counts_as_free_and_what_others_hold_does_not() -> None:
    groups = [{"bundles": {0: {"CPU": 3.0, "memory": 100.0}}, "bundles_to_node_id": {0: "a"}}]
    (node,) = inventory([NODE], {"a": {"CPU": 1.0, "GPU": 2.0, "memory": 900.0}}, held_by(groups))
    assert (node.cpu, node.free_cpu, node.free_gpu, node.free_memory) == (8.0, 4.0, 2.0, 1000)
    assert (node.host, node.ip, node.accelerator) == ("alpha", "10.0.0.1", "H100")


def test_dead_nodes_are_not_told() -> None:
    assert inventory([{**NODE, "Alive": False}], {}, {}) == ()


def test_what_is_free_is_never_more_than_there_is() -> None:
    (node,) = inventory([NODE], {"a": {"CPU": 8.0}}, {"a": {"CPU": 4.0}})
    assert node.free_cpu == 8.0
