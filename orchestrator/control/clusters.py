"""What the server knows of its clusters, kept in memory and written through to the store. Blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from orchestrator.core.records import Cluster
from orchestrator.core.scheduling.admission import Away
from orchestrator.core.scheduling.fit import Node
from orchestrator.errors import NotFound, Refused
from orchestrator.ports import Clock, Store

MAX_AWAY = 64  # hosts of a cluster that are remembered while they are not there


class NewerAgent(Refused):
    """The cluster has an agent of a newer epoch."""

    def __init__(self, cluster: str, epoch: int) -> None:
        super().__init__(f"cluster {cluster} has a newer agent (epoch {epoch}): this one should end")
        self.epoch = epoch


def _away(old: Cluster, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """A host that is back is another node to Ray."""
    here = {each.host for each in nodes}
    latest = {each.host: each for each in (*old.away, *old.nodes) if each.host not in here}
    return tuple(latest.values())[-MAX_AWAY:]


class Clusters:
    """Safe from several threads: an inventory and a drain may come at the same moment."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._known = {each.name: each for each in store.clusters()}
        # Monotonic, by cluster and host. After a restart of the server it begins anew: nobody counted meanwhile.
        self._missed_ns: dict[tuple[str, str], int] = {}
        for each in self._known.values():
            self._note_missed(each)

    def away(self, name: str) -> tuple[Away, ...]:
        """The nodes that a cluster had before, and since when they are missed."""
        with self._lock:
            cluster = self._known.get(name)
            nodes = cluster.away if cluster is not None else ()
            return tuple(Away(each, self._missed_ns[name, each.host] / 1e9) for each in nodes)

    def all(self) -> list[Cluster]:
        with self._lock:
            return sorted(self._known.values(), key=lambda each: each.name)

    def attach(self, name: str, project: str, epoch: int, ray_version: str, *, autoscaling: bool = False) -> Cluster:
        """A new agent speaks for the cluster. Raises NewerAgent, and Refused when another project owns the name."""
        with self._lock:
            old = self._known.get(name)
            if old is not None and old.project != project:
                raise Refused(f"cluster {name} belongs to another project: give this one another --cluster name")
            if old is not None and old.epoch > epoch:
                raise NewerAgent(name, old.epoch)
            fresh = Cluster(name=name, project=project, epoch=epoch)
            said = replace(old or fresh, epoch=epoch, ray_version=ray_version, autoscaling=autoscaling)
            changed = replace(said, last_seen_at=self._clock.now())
            return self._write(changed)

    def inventory(self, name: str, nodes: tuple[Node, ...]) -> Cluster:
        """What the cluster has now. Raises NotFound."""
        now = self._clock.now()
        return self.change(
            name, lambda old: replace(old, nodes=nodes, away=_away(old, nodes) if nodes else old.away, last_seen_at=now)
        )

    def change(self, name: str, how: Callable[[Cluster], Cluster]) -> Cluster:
        """Raises NotFound."""
        with self._lock:
            if name not in self._known:
                raise NotFound(f"no cluster {name!r}; known: {', '.join(sorted(self._known)) or 'none'}")
            return self._write(how(self._known[name]))

    def _write(self, cluster: Cluster) -> Cluster:
        if self._known.get(cluster.name) != cluster:
            self._store.put_cluster(cluster)
            self._known[cluster.name] = cluster
            self._note_missed(cluster)
        return cluster

    def _note_missed(self, cluster: Cluster) -> None:
        now_ns, hosts = self._clock.monotonic_ns(), {(cluster.name, each.host) for each in cluster.away}
        for back in [each for each in self._missed_ns if each[0] == cluster.name and each not in hosts]:
            del self._missed_ns[back]
        for host in hosts:
            self._missed_ns.setdefault(host, now_ns)
