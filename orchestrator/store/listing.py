"""The queries of a listing. Each walks an index that is already in listing order, so a page costs the same at any depth.

A walk yields numbers, and compares what it meets by the index alone: the row of a run, a hundred times as large as its entry
in the index, is read only for those that are shown. That bounds a search whose matches are all old.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, union_all

from orchestrator.core.records import RunFilter
from orchestrator.core.runs import STATE_NAMES
from orchestrator.store.tables import runs, searches

_FEW = 1000


def page(connection: Connection, where: RunFilter, below: int | None, limit: int) -> Sequence[tuple[int, str]]:
    """Number and record of up to `limit` runs, newest first, all with numbers lower than `below`."""
    clauses = _clauses(connection, where)
    if below is not None:
        clauses.append(runs.c.number < below)
    states = sorted(set(where.states))
    if not states or set(states) >= set(STATE_NAMES):
        numbers = _newest(clauses, limit)
    elif len(states) == 1:
        numbers = _newest([*clauses, runs.c.state == states[0]], limit)
    else:
        # One walk a state, then a merge: with `state IN (...)` the database would sort every run of those states.
        walks = [_newest([*clauses, runs.c.state == state], limit).subquery() for state in states]
        merged = union_all(*(select(walk.c.number) for walk in walks)).subquery()
        numbers = select(merged.c.number).order_by(merged.c.number.desc()).limit(limit)
    query = select(runs.c.number, runs.c.record).where(runs.c.number.in_(numbers)).order_by(runs.c.number.desc())
    return [(row[0], row[1]) for row in connection.execute(query)]


def _newest(clauses: list[ColumnElement[bool]], limit: int) -> Select[Any]:
    return select(runs.c.number).where(*clauses).order_by(runs.c.number.desc()).limit(limit)


def _clauses(connection: Connection, where: RunFilter) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = []
    if where.project != "*":
        clauses.append(runs.c.project == where.project)
    if where.name_prefix:
        clauses.append(_named(connection, clauses, where.name_prefix))
    if where.queue:
        clauses.append(runs.c.queue == where.queue)
    if where.kind:
        others = select(searches.c.run_id).where(*([searches.c.kind == where.kind] if where.kind != "run" else []))
        clauses.append(runs.c.id.not_in(others) if where.kind == "run" else runs.c.id.in_(others))
    if where.without_trials:
        clauses.append(runs.c.id.not_in(select(searches.c.run_id).where(searches.c.kind == "trial")))
    if where.sweep:
        clauses.append(runs.c.id.in_(trials_of(where.sweep)))
    return clauses


def trials_of(sweep: str) -> Select[Any]:
    """The ids of a sweep's trials."""
    return select(searches.c.run_id).where(searches.c.sweep == sweep, searches.c.kind == "trial")


def _named(connection: Connection, project: list[ColumnElement[bool]], prefix: str) -> ColumnElement[bool]:
    """Few matches: gather them by the index on names. Many: walk the newest runs and compare, a page is soon full."""
    in_range = [*project, runs.c.name >= prefix, runs.c.name < prefix + "\U0010ffff"]
    matches = select(runs.c.number).where(*in_range).limit(_FEW)
    if (connection.scalar(select(func.count()).select_from(matches.subquery())) or 0) < _FEW:
        return runs.c.number.in_(matches)
    return func.substr(runs.c.name, 1, len(prefix)) == prefix
