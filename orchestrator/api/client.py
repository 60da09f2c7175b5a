"""The Python client: everything that the CLI can do, in plain values.

    with Client() as client:
        run = client.submit("job.yaml")
        for update in client.watch(run.id):
            print(update.progress)

Every method raises the errors of `orchestrator.errors`: NotFound, Denied, InvalidSpec, ... and Unavailable when the server
cannot be reached for several seconds. `project` empty means the token's.
"""

from __future__ import annotations

import functools
import itertools
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator import bundle, shipping
from orchestrator.api.calls import Calls
from orchestrator.api.observing import WINDOW, Kind, Replica, within_size
from orchestrator.api.views import (
    ClusterView,
    Comparison,
    NewToken,
    RunUpdate,
    RunView,
    Seen,
    SubmitView,
    TokenView,
)
from orchestrator.core.monitors import Judgement, Watched
from orchestrator.core.observations import Progress
from orchestrator.core.records import AliasMove, Ancestor, Checkpoint, LogLine, ModelVersion, Role
from orchestrator.core.runs import Event
from orchestrator.core.sweeps import Sweep
from orchestrator.errors import Refused
from orchestrator.planning.plan import Plan
from orchestrator.protocol.convert import from_proto
from orchestrator.protocol.decisions import DecisionView, decision_of
from orchestrator.protocol.sweeps import sweep_of
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc
from orchestrator.settings import Connection, find_connection
from orchestrator.spec import read_mapping

RunFile = str | Path | Mapping[str, Any] | shipping.Shipment
"""A path, the text of a run file (a str with a line break or that begins with "{"), its mapping, or one that was prepared
with its overrides by `shipping`."""

_CHUNK_BYTES = 256 * 1024


class Client:
    """Without arguments it talks to the server of EVERTRAIN_SERVER and EVERTRAIN_TOKEN, or of the last `evertrain up`.

    Safe from several threads. `timeout_s` bounds each call that is not a stream.
    """

    def __init__(
        self, server: str = "", token: str = "", *, ca_cert: Path | None = None, timeout_s: float = 30.0
    ) -> None:
        """Raises Refused when nothing says which server."""
        connection = Connection(server, token, ca_cert) if server and token else find_connection(server, token)
        self.server = connection.server
        self._calls = Calls(connection, timeout_s)
        stubs: Any = rpc
        self._runs = stubs.RunsStub(self._calls.channel)
        self._sweeps = stubs.SweepsStub(self._calls.channel)
        self._models = stubs.ModelsStub(self._calls.channel)
        self._monitors = stubs.MonitorsStub(self._calls.channel)
        self._tokens = stubs.TokensStub(self._calls.channel)
        self._secrets = stubs.SecretsStub(self._calls.channel)
        self._clusters = stubs.ClustersStub(self._calls.channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._calls.close()

    # ---- runs -------------------------------------------------------------------------------------------------------

    def submit(
        self,
        run: RunFile,
        *,
        overrides: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        project: str = "",
    ) -> RunView:
        """Ship what the run file names on this disk, and record the run. It survives once this has returned.

        The same `idempotency_key` in a project is the same run. Without one, a fresh one is made, so that a call whose
        answer was lost is repeated without a second run.
        """
        shipment = _prepare(run, overrides)
        self._upload(shipment.bundle, project)
        request = pb.SubmitRequest(
            spec=shipment.text, idempotency_key=idempotency_key or uuid.uuid4().hex, project=project
        )
        return from_proto(self._calls.unary(self._runs.Submit, request).run, RunView)

    def submit_batch(
        self, runs: Sequence[RunFile], *, idempotency_keys: Sequence[str] | None = None, project: str = ""
    ) -> list[SubmitView]:
        """Record all of them, or none: at most 1,000, in one transaction."""
        keys = idempotency_keys if idempotency_keys is not None else [uuid.uuid4().hex for _ in runs]
        pack = functools.cache(bundle.pack)  # a sweep is many runs of one directory
        shipments = [_prepare(run, None, pack) for run in runs]
        for data in {each.bundle for each in shipments}:
            self._upload(data, project)
        submissions = [
            pb.SubmitRequest(spec=shipment.text, idempotency_key=key, project=project)
            for shipment, key in zip(shipments, keys, strict=True)
        ]
        answer = self._calls.unary(self._runs.SubmitBatch, pb.SubmitBatchRequest(submissions=submissions))
        return [from_proto(each, SubmitView) for each in answer.results]

    def plan(self, run: RunFile, *, overrides: Mapping[str, Any] | None = None, project: str = "") -> Plan:
        """What the run file means, whether it can work, where its gang would fit now and what it will take. Nothing is
        recorded."""
        text = _prepare(run, overrides).text
        answer = self._calls.unary(self._runs.Plan, pb.PlanRequest(spec=text, project=project))
        return replace(from_proto(answer, Plan), spec=json.loads(answer.spec_json))

    def get(self, run: str, *, project: str = "") -> RunView:
        """By id, or the newest run of that name."""
        return from_proto(self._calls.unary(self._runs.Get, pb.GetRunRequest(run=run, project=project)), RunView)

    def list(
        self,
        *,
        states: Sequence[str] = (),
        name_prefix: str = "",
        queue: str = "",
        kind: str = "",
        sweep: str = "",
        without_trials: bool = False,
        project: str = "",
        page_size: int = 100,
    ) -> Iterator[RunView]:
        """Newest first, page by page as you go on. They carry neither run file nor attempts.

        `kind`: only runs, sweeps or trials; `sweep`: only trials of the sweep with this id;
        `without_trials`: no sweep's trials.
        """
        page = ""
        while True:
            request = pb.ListRunsRequest(
                project=project,
                states=states,
                name_prefix=name_prefix,
                queue=queue,
                page_size=page_size,
                page=page,
                kind=kind,
                sweep=sweep,
                without_trials=without_trials,
            )
            answer = self._calls.unary(self._runs.List, request)
            for run in answer.runs:
                yield from_proto(run, RunView)
            page = answer.next_page
            if not page:
                return

    def watch(self, run: str, *, after_event: int = 0, project: str = "") -> Iterator[RunUpdate]:
        """The present state at once, then every change, until the run has ended. A broken connection is taken up again."""
        after = after_event

        def updates() -> Iterator[RunUpdate]:
            nonlocal after
            request = pb.WatchRunRequest(run=run, project=project, after_event=after)
            for message in self._calls.stream(self._runs.Watch, request):
                update = _update(message)
                after = update.events[-1].seq if update.events else after
                yield update

        yield from self._calls.resumed(updates)

    def wait(self, run: str, *, project: str = "") -> RunView:
        """Until the run has ended; answers it as it is then."""
        for update in self.watch(run, project=project):
            if update.ended and update.run is not None:
                return update.run
        return self.get(run, project=project)

    def cancel(self, run: str, *, reason: str = "", project: str = "") -> RunView:
        """Idempotent; a run that has ended is answered as it is."""
        request = pb.CancelRunRequest(run=run, project=project, reason=reason)
        return from_proto(self._calls.unary(self._runs.Cancel, request), RunView)

    def pause(self, run: str, *, reason: str = "", project: str = "") -> RunView:
        """It seals a checkpoint, gives its workers back, and waits until it is resumed. Idempotent."""
        request = pb.PauseRunRequest(run=run, project=project, reason=reason)
        return from_proto(self._calls.unary(self._runs.Pause, request), RunView)

    def resume(self, run: str, *, project: str = "") -> RunView:
        """Idempotent; a run that is not paused is answered as it is."""
        request = pb.ResumeRunRequest(run=run, project=project)
        return from_proto(self._calls.unary(self._runs.Resume, request), RunView)

    def stacks(self, run: str, *, ranks: Sequence[int] = (), project: str = "") -> Iterator[Seen]:
        """What the ranks of a living run do at this moment, one answer a rank as they come. No `ranks`: all."""
        return self._inspect(pb.InspectRequest(run=run, project=project, kind="stacks", ranks=ranks))

    def profile(
        self, run: str, *, ranks: Sequence[int] = (), steps: int = 5, within_s: float = 0.0, project: str = ""
    ) -> Iterator[Seen]:
        """Trace the next `steps` optimizer steps of a living run, as many as are done in `within_s` seconds (0: 300)."""
        request = pb.InspectRequest(
            run=run, project=project, kind="profile", ranks=ranks, steps=steps, within_s=within_s
        )
        return self._inspect(request)

    def _inspect(self, request: pb.InspectRequest) -> Iterator[Seen]:
        request.id = uuid.uuid4().hex
        answer = self._calls.unary(self._runs.Inspect, request)
        left = set(answer.inspection.ranks)
        for update in self.watch(answer.run_id, after_event=answer.after_event, project=request.project):
            for event in update.events:
                if event.kind == "inspected" and event.data.get("inspection") == request.id:
                    seen = _seen(event)
                    left -= set(seen.ranks)
                    yield seen
            if not left and update.run is not None:
                return

    def logs(
        self,
        run: str,
        *,
        rank: int | None = None,
        attempt: int | None = None,
        since_at: float | None = None,
        tail: int | None = None,
        follow: bool = False,
        project: str = "",
    ) -> Iterator[LogLine]:
        """Lines in order of arrival. `follow` goes on until the run has ended and its last line was read; a connection
        that breaks meanwhile is taken up again, without a line twice.
        """
        request = pb.LogsRequest(
            run=run, project=project, rank=rank, attempt=attempt, since_at=since_at, tail=tail, follow=follow
        )
        read: dict[tuple[int, str], int] = {}

        def unread() -> Iterator[LogLine]:
            for chunk in self._calls.stream(self._runs.Logs, request):
                for line in chunk.lines:
                    if line.seq and line.seq <= read.get((line.attempt, line.source), 0):
                        continue
                    read[line.attempt, line.source] = line.seq
                    yield from_proto(line, LogLine)
                if chunk.cursor:
                    request.after = chunk.cursor  # read on from here, should the connection break

        yield from self._calls.resumed(unread)

    def events(self, run: str, *, after: int = 0, project: str = "") -> Iterator[Event]:
        """The run's history, oldest first."""
        while True:
            answer = self._calls.unary(self._runs.Events, pb.EventsRequest(run=run, project=project, after=after))
            for event in answer.events:
                yield from_proto(event, Event)
            after = answer.next_after
            if not after:
                return

    def checkpoints(self, run: str, *, project: str = "") -> Sequence[Checkpoint]:
        """Newest step first."""
        found: list[Checkpoint] = []
        page = ""
        while True:
            request = pb.CheckpointsRequest(run=run, project=project, page=page)
            answer = self._calls.unary(self._runs.Checkpoints, request)
            found += [from_proto(each, Checkpoint) for each in answer.checkpoints]
            page = answer.next_page
            if not page:
                return found

    # ---- sweeps -----------------------------------------------------------------------------------------------------

    def sweeps(self, *, project: str = "") -> Iterator[RunView]:
        """The runs that are sweeps, newest first, page by page as you go on."""
        request = pb.ListSweepsRequest(project=project)
        for page in self._pages(self._sweeps.List, request):
            for each in page.sweeps:
                yield from_proto(each, RunView)

    def sweep(self, sweep: str, *, project: str = "") -> Sweep:
        """With all of its trials. By id, or the newest of that name."""
        return sweep_of(self._calls.unary(self._sweeps.Get, pb.GetSweepRequest(sweep=sweep, project=project)))

    def stop_sweep(self, sweep: str, *, reason: str = "", project: str = "") -> RunView:
        """End it with the best that it has found so far. Idempotent."""
        request = pb.StopSweepRequest(sweep=sweep, project=project, reason=reason)
        return from_proto(self._calls.unary(self._sweeps.Stop, request), RunView)

    # ---- models -----------------------------------------------------------------------------------------------------

    def models(self, name: str = "", *, project: str = "") -> Sequence[ModelVersion]:
        """By name, then newest version first."""
        request = pb.ListModelsRequest(project=project, name=name)
        return [
            from_proto(each, ModelVersion) for page in self._pages(self._models.List, request) for each in page.versions
        ]

    def model(self, name: str, version: str = "", *, project: str = "") -> ModelVersion:
        """By number or alias; empty: the newest."""
        request = pb.GetModelRequest(project=project, name=name, version=version)
        return from_proto(self._calls.unary(self._models.Get, request), ModelVersion)

    def set_alias(self, name: str, version: int, alias: str, *, project: str = "") -> ModelVersion:
        """Move `alias` to that version. Refused for the champion's where it stands on another: `promote` moves it."""
        request = pb.SetAliasRequest(project=project, name=name, version=version, alias=alias)
        return from_proto(self._calls.unary(self._models.SetAlias, request), ModelVersion)

    def facts(self, name: str, version: str = "", *, project: str = "") -> Mapping[str, Any]:
        """What is known of a version beside its record, by name: the profile of its data, ..."""
        request = pb.GetModelRequest(project=project, name=name, version=version)
        return _facts(self._calls.unary(self._models.Facts, request))

    def put_fact(self, name: str, version: str, fact: str, value: Any, *, project: str = "") -> Mapping[str, Any]:
        """Set or replace one fact, a JSON value; answers all."""
        request = pb.PutFactRequest(project=project, name=name, version=version, fact=fact, json=json.dumps(value))
        return _facts(self._calls.unary(self._models.PutFact, request))

    def promote(
        self,
        name: str,
        version: str = "",
        *,
        alias: str = "",
        reason: str = "",
        anyway: bool = False,
        project: str = "",
    ) -> AliasMove:
        """Move the alias (`champion` unless said) to a version, by number or alias; empty: the newest. Refused where its
        proof does not hold against the version there, unless `anyway`, which needs a reason."""
        request = pb.PromoteRequest(
            project=project, name=name, version=version, alias=alias, reason=reason, anyway=anyway
        )
        return from_proto(self._calls.unary(self._models.Promote, request), AliasMove)

    def roll_back(
        self, name: str, reason: str, *, alias: str = "", expected: int | None = None, project: str = ""
    ) -> AliasMove:
        """Move the alias back to where it stood before. `expected`: only if that version is the one taken back."""
        request = pb.RollbackRequest(project=project, name=name, alias=alias, reason=reason, expected=expected)
        return from_proto(self._calls.unary(self._models.Rollback, request, again=False), AliasMove)

    def alias_history(self, name: str, *, alias: str = "", project: str = "") -> Sequence[AliasMove]:
        """How its aliases moved, newest first."""
        request = pb.AliasHistoryRequest(project=project, name=name, alias=alias)
        return [
            from_proto(each, AliasMove) for page in self._pages(self._models.History, request) for each in page.moves
        ]

    def compare(self, name: str, challenger: str = "", champion: str = "", *, project: str = "") -> Comparison:
        """What the proof of one version (empty: the newest) says against another (empty: the champion)."""
        request = pb.CompareRequest(project=project, name=name, champion=champion, challenger=challenger)
        return from_proto(self._calls.unary(self._models.Compare, request), Comparison)

    def lineage(self, name: str, version: str = "", *, project: str = "") -> Sequence[Ancestor]:
        """The version, then what it began with, and so on."""
        request = pb.GetModelRequest(project=project, name=name, version=version)
        answer = self._calls.unary(self._models.Lineage, request)
        return [from_proto(each, Ancestor) for each in answer.ancestors]

    # ---- monitors ---------------------------------------------------------------------------------------------------

    def monitors(self, *, project: str = "") -> Sequence[Watched]:
        """By model."""
        request = pb.ListMonitorsRequest(project=project)
        return [
            from_proto(each, Watched) for page in self._pages(self._monitors.List, request) for each in page.monitors
        ]

    def monitor(self, model: str, *, project: str = "") -> Watched:
        """With pictures of the features that differ most."""
        request = pb.GetMonitorRequest(model=model, project=project)
        return from_proto(self._calls.unary(self._monitors.Get, request), Watched)

    def judgements(self, model: str, *, project: str = "") -> Iterator[Judgement]:
        """Newest first, read as they are asked for."""
        request = pb.JudgementsRequest(model=model, project=project)
        while found := self._calls.unary(self._monitors.Judgements, request).judgements:
            yield from (from_proto(each, Judgement) for each in found)
            request.below = found[-1].number

    def pause_monitor(self, model: str, *, reason: str = "", project: str = "") -> Watched:
        """What comes is kept and not judged. Idempotent."""
        request = pb.PauseMonitorRequest(model=model, project=project, reason=reason)
        return from_proto(self._calls.unary(self._monitors.Pause, request), Watched)

    def resume_monitor(self, model: str, *, project: str = "") -> Watched:
        """It goes on where it stopped. Idempotent."""
        request = pb.GetMonitorRequest(model=model, project=project)
        return from_proto(self._calls.unary(self._monitors.Resume, request), Watched)

    # ---- retraining -------------------------------------------------------------------------------------------------

    def decisions(self, model: str, *, project: str = "") -> Iterator[DecisionView]:
        """What was decided on retraining the model, newest first, page by page as you go on."""
        request = pb.DecisionsRequest(project=project, model=model)
        for page in self._pages(self._monitors.Decisions, request):
            for each in page.decisions:
                yield decision_of(each)

    def retrain(self, model: str, *, reason: str = "", idempotency_key: str = "", project: str = "") -> DecisionView:
        """Ask for a retraining; its `standing` says whether there is one. The same `idempotency_key` asks once."""
        request = pb.RetrainRequest(
            project=project, model=model, reason=reason, idempotency_key=idempotency_key or uuid.uuid4().hex
        )
        return decision_of(self._calls.unary(self._monitors.Retrain, request))

    def approve(self, model: str, number: int, *, project: str = "") -> DecisionView:
        """Let the retraining that decision `number` asks for begin. Idempotent."""
        request = pb.AnswerRequest(project=project, model=model, number=number)
        return decision_of(self._calls.unary(self._monitors.Approve, request))

    def reject(self, model: str, number: int, *, reason: str = "", project: str = "") -> DecisionView:
        """End what decision `number` waits for. Idempotent."""
        request = pb.AnswerRequest(project=project, model=model, number=number, reason=reason)
        return decision_of(self._calls.unary(self._monitors.Reject, request))

    # ---- live traffic -----------------------------------------------------------------------------------------------

    def observe(
        self,
        model: str,
        columns: Mapping[str, Sequence[Any]],
        *,
        source: str,
        seq: int,
        version: int = 0,
        project: str = "",
    ) -> int:
        """Rows of live traffic, durable when it returns; answers the next `seq` of the source. For feeds: what serves a
        model uses `Observer`.

        Features are named as in training; `(request)`, `(time)`, `(prediction)`, `(confidence)` and `(label)` are ours, and
        the first and the last alone are labels that became known later. Rows of the same source and `seq` are kept once.
        Raises Refused, with all the rest kept, where the server does not take some of them.
        """
        kind: Kind = "labels" if set(columns) - {"(time)"} == {"(request)", "(label)"} else "rows"
        numbers = itertools.count(seq)
        try:
            batches = within_size(kind, columns, numbers)
        except ValueError as error:
            raise Refused(str(error)) from error
        replica = Replica(self._calls, project=project, model=model, version=version, source=source)
        refused: dict[int, str] = {}
        for start in range(0, len(batches), WINDOW):
            refused |= replica.send(batches[start : start + WINDOW])
        if refused:
            raise Refused(f"{len(refused)} of {len(batches)} batches: {next(iter(refused.values()))}")
        return next(numbers)

    # ---- clusters ---------------------------------------------------------------------------------------------------

    def clusters(self, *, project: str = "") -> Sequence[ClusterView]:
        answer = self._calls.unary(self._clusters.List, pb.ListClustersRequest(project=project))
        return [from_proto(each, ClusterView) for each in answer.clusters]

    def drain(self, cluster: str, *, evict: bool = False, undo: bool = False) -> ClusterView:
        """Place nothing more there; `evict`: also preempt what runs there; `undo`: place again."""
        request = pb.DrainRequest(cluster=cluster, evict=evict, undo=undo)
        return from_proto(self._calls.unary(self._clusters.Drain, request), ClusterView)

    # ---- tokens and secrets -----------------------------------------------------------------------------------------

    def tokens(self, *, project: str = "") -> Sequence[TokenView]:
        request = pb.ListTokensRequest(project=project)
        return [from_proto(each, TokenView) for page in self._pages(self._tokens.List, request) for each in page.tokens]

    def create_token(self, name: str, role: Role, *, project: str = "", expires_s: float | None = None) -> NewToken:
        """The answer's `secret` is shown this once. Never repeated by itself: each call makes a token."""
        request = pb.CreateTokenRequest(name=name, project=project, role=role, expires_s=expires_s)
        return from_proto(self._calls.unary(self._tokens.Create, request, again=False), NewToken)

    def revoke_token(self, token_id: str, *, project: str = "") -> None:
        self._calls.unary(self._tokens.Revoke, pb.RevokeTokenRequest(id=token_id, project=project))

    def secrets(self, *, project: str = "") -> Sequence[str]:
        """Names only; values never come back."""
        answer = self._calls.unary(self._secrets.List, pb.ListSecretsRequest(project=project))
        return tuple(answer.names)

    def put_secret(self, name: str, value: str, *, project: str = "") -> None:
        self._calls.unary(self._secrets.Put, pb.PutSecretRequest(project=project, name=name, value=value))

    def delete_secret(self, name: str, *, project: str = "") -> None:
        request = pb.DeleteSecretRequest(project=project, name=name)
        self._calls.unary(self._secrets.Delete, request, again=False)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _pages(self, method: Any, request: Any) -> Iterator[Any]:
        while True:
            answer = self._calls.unary(method, request)
            yield answer
            if not answer.next_page:
                return
            request.page = answer.next_page

    def _upload(self, data: bytes | None, project: str) -> None:
        if data is not None:
            self._calls.upload(self._runs.UploadBundle, lambda: _chunks(data, project))


def _prepare(run: RunFile, overrides: Mapping[str, Any] | None, pack: shipping.Pack = bundle.pack) -> shipping.Shipment:
    if isinstance(run, shipping.Shipment):
        return run
    if isinstance(run, Path):
        return shipping.prepare(run, overrides, pack)
    if isinstance(run, str) and "\n" not in run and not run.lstrip().startswith("{"):
        return shipping.prepare(Path(run), overrides, pack)
    document = read_mapping(run, source="run file") if isinstance(run, str) else json.loads(json.dumps(dict(run)))
    return shipping.prepare_document(document, Path.cwd(), "run file", overrides, pack)


def _chunks(data: bytes, project: str) -> Iterator[pb.BundleChunk]:
    yield pb.BundleChunk(project=project)
    for start in range(0, len(data), _CHUNK_BYTES):
        yield pb.BundleChunk(data=data[start : start + _CHUNK_BYTES])


def _update(message: pb.RunUpdate) -> RunUpdate:
    return RunUpdate(
        run=from_proto(message.run, RunView) if message.HasField("run") else None,
        events=tuple(from_proto(each, Event) for each in message.events),
        progress=from_proto(message.progress, Progress) if message.HasField("progress") else None,
    )


def _seen(event: Event) -> Seen:
    data = event.data
    return Seen(tuple(data["ranks"]), data["ok"], event.message, data["text"], data["trace"])


def _facts(message: pb.ModelFacts) -> Mapping[str, Any]:
    return {fact: json.loads(value) for fact, value in message.json.items()}
