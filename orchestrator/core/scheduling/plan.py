"""Where a run file's gang would fit now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.core.runs import NodeShare
from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.core.scheduling.fit import Fits, GangShape, NeverFits, Waits, fit


@dataclass(frozen=True)
class ClusterFit:
    cluster: str
    verdict: Literal["fits", "waits", "never"]
    reason: str
    shares: tuple[NodeShare, ...] = ()


def cluster_fit(shape: GangShape, cluster: ClusterView) -> ClusterFit:
    if not cluster.connected:
        return ClusterFit(cluster.name, "waits", "its agent is not connected")
    answer = fit(shape, cluster.nodes)
    match answer:
        case Fits():
            if cluster.draining:
                return ClusterFit(cluster.name, "waits", "it is draining")
            return ClusterFit(cluster.name, "fits", "all workers can start now", answer.shares)
        case Waits():
            return ClusterFit(cluster.name, "waits", answer.lacks)
        case NeverFits() if cluster.autoscaling:
            return ClusterFit(cluster.name, "waits", f"{answer.why}; Ray's autoscaler would be asked for nodes")
        case NeverFits():
            return ClusterFit(cluster.name, "never", answer.why)
