"""What people ask for: submit, plan, cancel, drain. Every method blocks; an event loop calls it in a thread."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import spec
from orchestrator.control.board import Board
from orchestrator.control.capacity import views
from orchestrator.control.clusters import Clusters
from orchestrator.control.model_versions import find_version
from orchestrator.control.runs import RunRecords
from orchestrator.core import inspections, lifecycle
from orchestrator.core.aliases import CHAMPION
from orchestrator.core.inspections import Question
from orchestrator.core.money import NO_PRICES, Prices, cannot_hold
from orchestrator.core.records import Cluster, RunFilter, Submission
from orchestrator.core.runs import Inspection, Lineage, Run
from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.core.scheduling.fit import GangShape, NeverFits, fit
from orchestrator.errors import InvalidSpec, NotFound, Refused
from orchestrator.planning.outlook import Past, past_of
from orchestrator.planning.plan import Plan, Review, looked_at, plan, review
from orchestrator.ports import BundleStore, Clock, Store, Submitted
from orchestrator.spec.search import without_searches
from trainers.catalogue import RECIPES
from trainers.shapes import NOTHING, Facts

log = logging.getLogger(__name__)

MAX_BATCH = 1000
LOOK_BACK = 50  # runs of the same name, and as many of any, among which the planner looks for one like the run at hand
_TRAINED = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class SubmitCommand:
    project: str
    spec_text: str
    by: str
    idempotency_key: str | None = None
    lineage: Lineage | None = None  # of a sweep's trial


class Commands:
    def __init__(
        self,
        *,
        store: Store,
        records: RunRecords,
        board: Board,
        clusters: Clusters,
        bundles: BundleStore,
        clock: Clock,
        connected: Callable[[str], bool],
        prices: Prices = NO_PRICES,
    ) -> None:
        self._store, self._records, self._board, self._known = store, records, board, clusters
        self._bundles, self._clock, self._connected, self._prices = bundles, clock, connected, prices

    def submit(self, commands: Sequence[SubmitCommand]) -> list[Submitted]:
        """Check every one, then record all or none.

        Raises InvalidSpec, also for what the planner knows can never work; Refused for a gang that no connected cluster
        can ever take, a bundle, a secret or a model that is not there; Conflict for an idempotency key used with another
        document.
        """
        if len(commands) > MAX_BATCH:
            raise Refused(f"{len(commands)} submissions in one batch: at most {MAX_BATCH}")
        clusters = self._clusters()
        reviews: dict[tuple[str, bytes], Review] = {}  # runs of a batch are often alike
        champions: dict[str, Mapping[str, int]] = {}  # versions by model, by project
        submissions = [self._submission(each, clusters, reviews, champions) for each in commands]
        answers = self._store.submit(submissions)
        self._records.announce([each.run for each in answers if each.created])
        for each, submission in zip(answers, submissions, strict=True):
            if each.created and submission.planned:
                log.info("run %s planned: %s", each.run.id, submission.planned)
        return answers

    def submit_trial(self, command: SubmitCommand, sweep_spec: Mapping[str, Any]) -> Submitted:
        """A sweep's trial. One whose point the rules refuse is recorded all the same, as a run that has failed: its sweep
        goes on without it. One that a node could take which is away now waits for that. Raises Conflict.
        """
        clusters = self._clusters()
        try:
            submission = self._submission(command, clusters, {}, {}, sweep_spec.get(spec.PROOF))
        except (InvalidSpec, Refused, NotFound) as error:
            away = self._for_a_node_that_is_away(command, clusters, sweep_spec)
            submission = away or self._refused(command, sweep_spec, error)
        answer = self._store.submit([submission])[0]
        if answer.created:
            self._records.announce([answer.run])
        return answer

    def _for_a_node_that_is_away(
        self, command: SubmitCommand, clusters: Sequence[ClusterView], sweep_spec: Mapping[str, Any]
    ) -> Submission | None:
        """None where the trial would be refused with all nodes there."""
        away = {each.name: each.away for each in self._known.all() if each.away}
        whole = [replace(each, nodes=(*each.nodes, *away.get(each.name, ()))) for each in clusters]
        reviews: dict[tuple[str, bytes], Review] = {}
        try:
            proof = sweep_spec.get(spec.PROOF)
            submission = self._submission(command, whole, reviews, {}, proof) if away else None
        except (InvalidSpec, Refused, NotFound):
            return None
        if submission is None or submission.lineage is None:
            return None
        (reviewed,) = reviews.values()
        on_cpu = reviewed.memory is not None and not reviewed.spec.resources.gpu
        needed = reviewed.memory.total if on_cpu and reviewed.memory is not None else 0
        return replace(submission, lineage=replace(submission.lineage, memory=needed))

    def _refused(self, command: SubmitCommand, sweep_spec: Mapping[str, Any], error: Exception) -> Submission:
        plain = without_searches(sweep_spec)
        asked = json.loads(command.spec_text)
        why = f"this point cannot work: {error}"
        return replace(self._record_of(command, spec.load(plain), asked, why), name=asked["name"])

    def plan(self, project: str, spec_text: str) -> Plan:
        """What the run file means, whether it can work, and what it takes. Records nothing.
        Raises InvalidSpec, Refused, NotFound.
        """
        parsed = self._with_checkpoint(spec.parse(spec_text), project)
        self._check_cost(parsed)
        mine = [each for each in self._clusters() if each.project in ("*", project)]
        return plan(parsed, mine, self._pasts(project, parsed), self._prices, _found_here(spec.dump(parsed)))

    def cancel(self, project: str, run: str, *, by: str, message: str = "") -> Run:
        """Idempotent; a run that has ended is answered as it is. Raises NotFound."""
        now = self._clock.now()
        found = self._store.run(project, run)
        return self._records.change(
            found.project, found.id, lambda current: lifecycle.cancel(current, by=by, message=message, now=now)
        )

    def pause(self, project: str, run: str, *, by: str, message: str = "") -> Run:
        """Give its workers back, and place nothing of it until it is resumed. Idempotent; a run that has ended is answered
        as it is. Raises NotFound, and Refused for a sweep.
        """
        now = self._clock.now()
        found = self._store.run(project, run)
        if found.kind == "sweep":
            raise Refused(
                f"{found.name} is a sweep, which holds no workers: pause its trials, or `evertrain sweep stop`"
            )
        return self._records.change(
            found.project, found.id, lambda current: lifecycle.pause(current, by=by, message=message, now=now)
        )

    def resume(self, project: str, run: str, *, by: str) -> Run:
        """Idempotent; a run that is not paused is answered as it is. Raises NotFound."""
        now = self._clock.now()
        found = self._store.run(project, run)
        return self._records.change(found.project, found.id, lambda current: lifecycle.resume(current, by=by, now=now))

    def inspect(self, project: str, run: str, question: Question, *, by: str) -> tuple[Inspection, int]:
        """Have ranks looked at, and the number of the event above which their answers are. Idempotent by the question's id.

        Raises NotFound, and Refused with the reason where the run, or a rank, cannot be looked at.
        """
        now = self._clock.now()
        found = self._store.run(project, run)
        repeated = any(each.id == question.id for each in found.inspections)  # some answers may be there already
        after = 0 if repeated else self._store.newest_event(found.id)

        def think(current: Run) -> lifecycle.Transition | lifecycle.Ignored:
            if any(each.id == question.id for each in current.inspections):
                return lifecycle.Ignored("it has been asked before")
            admitted = inspections.admit(current, question, by=by, now=now)
            if isinstance(admitted, str):
                raise Refused(admitted)
            return lifecycle.inspect(current, admitted)

        kept = self._records.change(found.project, found.id, think)
        return next(each for each in kept.inspections if each.id == question.id), after

    def drain(self, cluster: str, *, evict: bool, undo: bool, by: str) -> Cluster:
        """Place nothing more on it; `evict`: also preempt what runs there. Raises NotFound."""
        changed = self._known.change(cluster, lambda old: replace(old, draining=not undo))
        if evict and not undo:
            self._evict(cluster, by)
        self._records.wake()
        return changed

    def _evict(self, cluster: str, by: str) -> None:
        now = self._clock.now()
        message = f"cluster {cluster} is being drained by {by}"
        for holding in self._board.holdings(cluster):
            self._records.change(
                holding.project, holding.run_id, lambda run: lifecycle.preempt(run, by=by, message=message, now=now)
            )

    def _submission(
        self,
        command: SubmitCommand,
        clusters: Sequence[ClusterView],
        reviews: dict[tuple[str, bytes], Review],
        champions: dict[str, Mapping[str, int]],
        proof: Mapping[str, Any] | None = None,
    ) -> Submission:
        """`proof`: of the sweep whose trial it is, all of which are compared with the same version."""
        parsed = spec.parse(command.spec_text)
        document = spec.dump(parsed)
        key = command.project, looked_at(document)
        if key not in reviews:
            mine = [each for each in clusters if each.project in ("*", command.project)]
            pasts = self._pasts(command.project, parsed) if parsed.parallelism.auto else ()
            reviews[key] = review(parsed, mine, _found_here(document), pasts)
        reviewed = reviews[key]
        try:
            self._check_cost(parsed)
            if not _fitted_before(command):
                self._check_fits(spec.gang_shape(parsed), command.project, clusters)
            self._check_secrets(command.project, parsed.secrets)
            self._check_bundle(command.project, parsed.bundle)
            if reviewed.problems:
                raise InvalidSpec(reviewed.problems)
            resolved = self._with_checkpoint(self._with_warm_start(parsed, command.project), command.project)
            if resolved is not parsed:
                document = spec.dump(resolved)
        except (InvalidSpec, Refused, NotFound):
            if not self._was_recorded(command):
                raise
        resolved_document = {
            **document,
            "parallelism": reviewed.spec.parallelism.model_dump(mode="json"),
            **({spec.PROOF: dict(proof)} if proof else self._proof(command, parsed, champions)),
        }
        planned = "; ".join(each for each in (reviewed.reason, *reviewed.warnings) if each)
        return replace(self._record_of(command, parsed, resolved_document), planned=planned)

    def _record_of(
        self, command: SubmitCommand, parsed: spec.RunSpec, document: Mapping[str, Any], refused: str = ""
    ) -> Submission:
        return Submission(
            run_id=f"run-{base64.b32encode(os.urandom(7)).decode()[:10].lower()}",
            project=command.project,
            name=parsed.name,
            spec=document,
            submitted_by=command.by,
            submitted_at=self._clock.now(),
            queue=parsed.queue,
            priority=parsed.priority,
            idempotency_key=command.idempotency_key,
            spec_sha256=hashlib.sha256(command.spec_text.encode()).hexdigest(),
            kind="trial" if command.lineage is not None else "sweep" if parsed.search is not None else "run",
            lineage=command.lineage,
            refused=refused,
        )

    def _pasts(self, project: str, parsed: spec.RunSpec) -> list[Past]:
        """Of runs that have ended: those of the same name first, then the newest."""
        found: dict[str, Past | None] = {}
        for name in (parsed.name, "") if parsed.kind != "script" else ():
            page = self._store.runs(RunFilter(project, _TRAINED, name), limit=LOOK_BACK)
            for each in page.runs:
                if each.id not in found:
                    found[each.id] = past_of(self._store.run(project, each.id))
        return [each for each in found.values() if each is not None]

    def _was_recorded(self, command: SubmitCommand) -> bool:
        """A repeated submission is answered with its run, whatever has changed since."""
        key = command.idempotency_key
        return key is not None and key in self._store.used_keys(command.project, [key])

    def _check_fits(self, shape: GangShape, project: str, clusters: Sequence[ClusterView]) -> None:
        """Refuse at once what can never start; with no cluster connected, or one that grows, nobody knows: it may wait."""
        connected = [each for each in clusters if each.connected and each.nodes and each.project in ("*", project)]
        if any(each.autoscaling for each in connected):
            return
        answers = [(each.name, fit(shape, each.nodes)) for each in connected]
        never = [f"{name}: {answer.why}" for name, answer in answers if isinstance(answer, NeverFits)]
        if connected and len(never) == len(connected):
            raise Refused("resources: this gang can never be placed. " + "; ".join(never))

    def _check_cost(self, parsed: spec.RunSpec) -> None:
        if parsed.max_cost is None:
            return
        why = cannot_hold(spec.gang_shape(parsed), parsed.max_cost.currency, self._prices)
        if why is not None:
            raise Refused(f"max_cost: {why}")

    def _with_checkpoint(self, parsed: spec.RunSpec, project: str) -> spec.RunSpec:
        """`init_from.model` with its version's checkpoint: what an alias means is settled when the run is submitted."""
        init = parsed.init_from
        if init is None or init.model is None:
            return parsed
        name, _, wanted = init.model.partition("@")
        try:
            version = find_version(self._store.models(project, name), project, name, wanted)
        except NotFound as error:
            raise NotFound(f"init_from.model: {error}") from None
        return parsed.model_copy(update={"init_from": init.model_copy(update={"checkpoint": version.checkpoint})})

    def _proof(
        self, command: SubmitCommand, parsed: spec.RunSpec, champions: dict[str, Mapping[str, int]]
    ) -> dict[str, Any]:
        """The section that has the ranks compare their result with the model's champion, as it is now; none without one."""
        project = command.project
        if parsed.kind == "script" or command.lineage is not None:
            return {}
        if project not in champions:
            champions[project] = self._store.standing(project, CHAMPION)
        champion = champions[project].get(parsed.name)
        if champion is None:
            return {}
        version = find_version(self._store.models(project, parsed.name), project, parsed.name, str(champion))
        return {spec.PROOF: {"champion": champion, "checkpoint": version.checkpoint}}

    def _with_warm_start(self, parsed: spec.RunSpec, project: str) -> spec.RunSpec:
        """`search.warm_start` by its id: a name would mean the newest sweep of it, which may soon be this one."""
        search = parsed.search
        if search is None or search.warm_start is None:
            return parsed
        try:
            found = self._store.run(project, search.warm_start)
        except NotFound as error:
            raise NotFound(f"search.warm_start: {error}") from None
        if found.kind != "sweep":
            raise Refused(f"search.warm_start: {found.name} is a {found.kind}, not a sweep: see `evertrain sweep list`")
        return parsed.model_copy(update={"search": search.model_copy(update={"warm_start": found.id})})

    def _check_bundle(self, project: str, sha256: str | None) -> None:
        """It must be there before the run is, and be the project's own."""
        if sha256 is not None and not self._bundles.has(project, sha256):
            raise NotFound(f"code: no code bundle {sha256} in project {project}: submit the code's directory itself")

    def _check_secrets(self, project: str, names: Sequence[str]) -> None:
        if not names:
            return
        missing = sorted(set(names) - set(self._store.secret_names(project)))
        if missing:
            raise Refused(
                f"secrets: {', '.join(missing)} not known in project {project}: `evertrain secret put {missing[0]}` first"
            )

    def _clusters(self) -> list[ClusterView]:
        return views(self._known.all(), self._board, self._connected)


def _fitted_before(command: SubmitCommand) -> bool:
    """A trial asks for what its sweep was let in with, unless its point asks for something else: where that does not fit now,
    a node is away, and the trial waits for it.
    """
    return command.lineage is not None and not command.lineage.sized


def _found_here(document: Mapping[str, Any]) -> Facts:
    """What files on the server's machine say of a run's model and data, where they are there."""
    recipe = document["recipe"]
    return NOTHING if recipe is None else RECIPES[recipe].found_here(document["model"], document["data"])
