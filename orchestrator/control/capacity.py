"""The clusters as the scheduler sees them: what nodes have, less what our living attempts hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.control.board import Board
from orchestrator.core.records import Cluster
from orchestrator.core.scheduling.admission import ClusterView, Yielding
from orchestrator.core.scheduling.fit import reserve


def views(clusters: Sequence[Cluster], board: Board, connected: Callable[[str], bool]) -> list[ClusterView]:
    """One view a cluster. `connected` says whether its agent is attached now."""
    return [_view(each, board, connected(each.name)) for each in clusters]


def _view(cluster: Cluster, board: Board, connected: bool) -> ClusterView:
    holdings = board.holdings(cluster.name)
    nodes = list(cluster.nodes)
    for holding in holdings:
        nodes = reserve(nodes, holding.shape, holding.shares)
    return ClusterView(
        name=cluster.name,
        project=cluster.project,
        connected=connected,
        draining=cluster.draining,
        nodes=tuple(nodes),
        holders=tuple(each.name for each in holdings),
        trials=tuple(
            Yielding(each.run_id, each.name, each.priority, each.shape, each.shares, each.since_s)
            for each in holdings
            if each.sweep
        ),
        autoscaling=cluster.autoscaling,
    )
