"""All that the command line draws. Values in, text out: no calls, no clock (`now` is an argument)."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.bundle import IGNORE_FILE, Packed
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.observations import Progress
from orchestrator.core.records import Checkpoint, LogLine, ModelVersion
from orchestrator.core.runs import Attempt, Event, Failure
from orchestrator.core.words import counted

if TYPE_CHECKING:
    from orchestrator.adapters.checkpoints import Report
    from orchestrator.api.views import ClusterView, RunView, TokenView
    from orchestrator.core.scheduling.plan import ClusterFit
    from orchestrator.planning.memory import Memory
    from orchestrator.planning.outlook import Outlook
    from orchestrator.planning.plan import Plan

_WIDTH_OF_FILES = 240  # what is read by programs should not be folded at the width of a terminal that is not there
_SENTENCE_CHARS = 300
_CHECKPOINTS_DESCRIBED = 3
_FIRST_EVENTS, _LAST_EVENTS = 20, 180  # what a description shows of a history that is longer than both
_STATE_STYLE = {
    "RUNNING": "green",
    "SUCCEEDED": "bold green",
    "RECOVERING": "yellow",
    "STARTING": "cyan",
    "FAILED": "bold red",
    "CANCELLED": "magenta",
}
_EVENT_STYLE = {"rank_failed": "red", "recovering": "yellow", "queued": "yellow", "stopping": "magenta"}


def console(*, stderr: bool = False) -> Console:
    # Names and messages come from users: brackets in them are no markup.
    found = Console(markup=False, highlight=False, stderr=stderr)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = _WIDTH_OF_FILES
    return found


# ---- values as data -------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Dataclasses as mappings, all the way down; a run's file as a mapping and not as text within text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if "spec_json" in fields:
            text = fields.pop("spec_json")
            return {**fields, **({"spec": json.loads(text)} if text else {})}
        return fields
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    return value


def as_json(value: Any, *, indent: int | None = 2) -> str:
    return json.dumps(_finite(plain(value)), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON has no word for a loss that is not a number: null, as for one that nobody has measured."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True)


# ---- small words ----------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def shipped(code: Packed) -> str:
    files = "1 file" if code.files == 1 else f"{code.files} files"
    hint = f"what is hidden stays here; {IGNORE_FILE} can leave out more"
    return f"shipped as its code: {files}, {size(code.size_bytes)}, of {code.directory} ({hint})"


def clock(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).strftime("%H:%M:%S")


def date(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def harmless(text: str) -> str:
    """One line, without the control characters by which somebody's log could steer a terminal."""
    shown = text.replace("\n", " ")
    return "".join(each for each in shown if each == "\t" or (ord(each) >= 32 and not 127 <= ord(each) < 160))


def sentence(text: str) -> str:
    """What a list of events has room for; `-o json` has all of it."""
    text = harmless(text)
    return text if len(text) <= _SENTENCE_CHARS else text[: _SENTENCE_CHARS - 1] + "…"


def metrics_text(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _state(state: str) -> Text:
    return Text(state, style=_STATE_STYLE.get(state, ""))


def _facts(rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), value)
    return table


# ---- runs -----------------------------------------------------------------------------------------------------------


def runs_table(runs: Sequence[RunView], now: float, none: str = "no runs") -> RenderableType:
    if not runs:
        return Text(none)
    table = _table("NAME", "ID", "STATE", "AGE", "STEP", "REASON", right=("AGE", "STEP"))
    for run in runs:
        step = run.progress.step if run.progress is not None else run.furthest_step
        age, reason = duration(now - run.submitted_at), Text(sentence(run.reason.message))
        table.add_row(run.name, run.id, _state(run.state), age, str(step), reason)
    return table


def submitted(run: RunView) -> Text:
    return Text(f"run {run.name} recorded as {run.id}; it is {run.state}: {run.reason.message}")


def run_line(run: RunView) -> Text:
    return Text(f"run {run.name} ({run.id}) is {run.state}: {sentence(run.reason.message)}")


@dataclasses.dataclass(frozen=True)
class Description:
    """A run with all that belongs to it."""

    run: RunView
    events: Sequence[Event]
    checkpoints: Sequence[Checkpoint]
    models: Sequence[ModelVersion]

    def document(self) -> dict[str, Any]:
        parts = {"events": self.events, "checkpoints": self.checkpoints, "model_versions": self.models}
        return {**plain(self.run), **{name: plain(value) for name, value in parts.items()}}


def description(told: Description, now: float) -> RenderableType:
    run = told.run
    parts: list[RenderableType] = [_head(run, now)]
    if run.progress is not None:
        parts += [_title("Progress"), Text(progress_line(run.progress, now))]
    if run.failure is not None:
        parts += [_title("Failure"), failure(run.failure)]
    if run.attempts:
        parts += [_title("Attempts"), _attempts(run.attempts, now)]
    if told.events:
        parts += [_title("Timeline"), _timeline(told.events)]
    if told.checkpoints:
        parts += [_title(f"Newest checkpoints of {len(told.checkpoints)} sealed")]
        parts += [checkpoints_table(told.checkpoints[:_CHECKPOINTS_DESCRIBED], now)]
    if told.models:
        parts += [_title("Model"), models_table(told.models, now)]
    parts += [_title("Where the time went"), ledger_table(run.ledger)]
    return Group(*parts)


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _head(run: RunView, now: float) -> RenderableType:
    state = _state(run.state)
    if run.ended_at is None:
        state.append(f" for {duration(now - run.state_since_at)}, {run.liveness}", style="dim")
    spent = [f"{count} {cause}" for cause, count in dataclasses.asdict(run.spent).items()]
    rows: list[tuple[str, str | Text]] = [
        ("run", f"{run.name} ({run.id})"),
        ("state", state),
        ("reason", Text(f"{sentence(run.reason.message)} [{run.reason.code}]")),
        ("project", f"{run.project}, queue {run.queue}, priority {run.priority}"),
        ("submitted", f"{date(run.submitted_at)} by {run.submitted_by}"),
        ("restarts", ", ".join(spent)),
        ("furthest step", str(run.furthest_step)),
    ]
    if run.ended_at is not None:
        rows.append(("ended", f"{date(run.ended_at)}, {duration(run.ended_at - run.submitted_at)} after submission"))
    if run.cost is not None:
        limit = run.spec.get("max_cost")
        of = f" of {limit['amount']:g} {limit['currency']}" if limit else ""
        rows.append(("cost", f"{run.cost.amount:.2f} {run.cost.currency}{of}"))
    if run.result is not None:
        rows.append(("result", Text(metrics_text(run.result.metrics) or "no metrics")))
        if run.result.stopped_early:
            rows.append(("stopped early", Text(run.result.stopped_early)))
    return _facts(rows)


def failure(what: Failure) -> RenderableType:
    where = [f"rank {what.rank}" if what.rank is not None else "", f"on {what.host}" if what.host else ""]
    place = " ".join(each for each in where if each)
    head = Text(f"{what.kind.value} at step {what.step}{': ' + place if place else ''}\n{harmless(what.message)}")
    if not what.traceback:
        return head
    return Group(head, Text("\n".join(f"  {harmless(line)}" for line in what.traceback.splitlines()), style="dim"))


def _attempts(attempts: Sequence[Attempt], now: float) -> RenderableType:
    table = _table(
        "ATTEMPT", "CLUSTER", "HOSTS", "RANKS", "RESUMED AT", "RECOVERY", "ENDED BY", right=("RANKS", "RESUMED AT")
    )
    for attempt in attempts:
        hosts = ", ".join(f"{share.host}:{share.ranks}" for share in attempt.shares)
        end = (
            attempt.ended.message if attempt.ended is not None else f"lives since {duration(now - attempt.started_at)}"
        )
        for each in attempt.incarnations:
            recovery = f"{each.recovery_s:.2f}s" if each.recovery_s is not None else ""
            cause = each.failure.message if each.failure is not None else end
            number = f"{attempt.number}.{each.number}"
            table.add_row(
                number,
                attempt.cluster,
                hosts,
                str(each.world_size),
                str(each.resumed_step),
                recovery,
                Text(sentence(cause)),
            )
        if not attempt.incarnations:
            table.add_row(str(attempt.number), attempt.cluster, hosts, "", "", "", Text(sentence(end)))
    return table


def _timeline(events: Sequence[Event]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    left_out = len(events) - _FIRST_EVENTS - _LAST_EVENTS
    for place, event in enumerate(events):
        if left_out > 0 and place == _FIRST_EVENTS:
            table.add_row("", "", Text(f"… {left_out} more events: `-o json` has all of them", style="dim"))
        if _FIRST_EVENTS <= place < _FIRST_EVENTS + left_out:
            continue
        kind = Text(event.kind, style=_EVENT_STYLE.get(event.kind, "cyan"))
        table.add_row(Text(clock(event.at), style="dim"), kind, Text(sentence(event.message)))
    return table


def event_line(event: Event) -> Text:
    line = Text().append(f"{clock(event.at)}  ", style="dim")
    line.append(f"{event.kind:<18}", style=_EVENT_STYLE.get(event.kind, "cyan"))
    return line.append(f" {sentence(event.message)}")


# ---- progress -------------------------------------------------------------------------------------------------------


def progress_line(progress: Progress, now: float) -> str:
    """Phase, epoch, step, samples/s, loss, the last epoch's validation, ETA."""
    if not progress.incarnation:  # before there is any rank
        return progress.phase
    epoch = f"epoch {progress.epoch + 1}" + (f"/{progress.total_epochs}" if progress.total_epochs else "")
    step = f"step {progress.step}" + (f"/{progress.total_steps}" if progress.total_steps else "")
    parts = [progress.phase, epoch, step, f"{progress.samples_per_s:.0f} samples/s"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    parts += [f"{name} {value:.4f}" for name, value in sorted(progress.metrics.items()) if name.startswith("val_")]
    left_s = remaining_s(progress, now)
    if left_s is not None:
        parts.append(f"ETA {duration(left_s)}")
    if progress.silent_s > 30:
        parts.append(f"no progress for {duration(progress.silent_s)}")
    return "  ".join(parts)


def remaining_s(progress: Progress, now: float) -> float | None:
    """Until the planned end, by the present speed; None while nobody can say."""
    if progress.total_steps is None or progress.step_s <= 0:
        return None
    left_s = (progress.total_steps - progress.step) * progress.step_s
    return max(0.0, left_s - max(0.0, now - progress.at))


def progress_bar(progress: Progress, now: float, width: int = 28) -> Text:
    share = progress.step / progress.total_steps if progress.total_steps else 0.0
    filled = min(width, int(share * width))
    bar = Text(no_wrap=True, overflow="ellipsis").append("━" * filled, style="green")
    bar.append("─" * (width - filled), style="dim")
    return bar.append(f" {progress_line(progress, now)}")


def ending(run: RunView) -> RenderableType:
    """The last words on a run that was watched to its end."""
    parts: list[RenderableType] = [run_line(run)]
    if run.failure is not None and run.state == "FAILED":
        parts.append(failure(run.failure))
    if run.result is not None:
        parts.append(Text(metrics_text(run.result.metrics)))
        if run.result.checkpoint:
            parts.append(Text(f"checkpoint {run.result.checkpoint}"))
    parts.append(goodput_line(run.ledger))
    return Group(*parts)


# ---- ledger ---------------------------------------------------------------------------------------------------------


def goodput_line(ledger: Ledger) -> Text:
    if ledger.goodput is None:
        return Text("goodput: no worker time yet")
    lost = [
        f"{time_class.value} {ledger.seconds(time_class):.1f}"
        for time_class in TimeClass
        if time_class is not TimeClass.TRAINING and ledger.ns.get(time_class)
    ]
    trained, total = ledger.seconds(TimeClass.TRAINING), ledger.total_ns / 1e9
    return Text(
        f"goodput {ledger.goodput:.1%}: {trained:.1f} of {total:.1f} worker-seconds trained"
        + (f"; the rest: {', '.join(lost)}" if lost else "")
    )


def ledger_table(ledger: Ledger) -> RenderableType:
    """Shown seconds and shares are rounded so that they still add up to the shown total."""
    classes = [each for each in TimeClass if ledger.ns.get(each)]
    milliseconds = _rounded([ledger.ns[each] / 1e6 for each in classes])
    permille = _rounded([1000 * ledger.ns[each] / ledger.total_ns for each in classes])
    table = _table("CLASS", "WORKER-SECONDS", "SHARE", right=("WORKER-SECONDS", "SHARE"))
    for each, ms, share in zip(classes, milliseconds, permille, strict=True):
        table.add_row(each.value, f"{ms / 1000:.3f}", f"{share / 10:.1f} %")
    table.add_section()
    table.add_row("total", f"{sum(milliseconds) / 1000:.3f}", f"{sum(permille) / 10:.1f} %")
    return Group(table, goodput_line(ledger))


def _rounded(values: Sequence[float]) -> list[int]:
    """Whole numbers whose sum is the rounded sum: each rounded down, the rest given to the largest remainders."""
    rounded = [math.floor(each) for each in values]
    missing = round(sum(values)) - sum(rounded)
    by_remainder = sorted(range(len(values)), key=lambda index: rounded[index] - values[index])
    for index in by_remainder[:missing]:
        rounded[index] += 1
    return rounded


# ---- the other nouns ------------------------------------------------------------------------------------------------


def log_line(line: LogLine, *, attempts: bool) -> str:
    speaker = f"rank {line.rank}" if line.rank >= 0 else "gang"
    place = f"{line.attempt}.{line.incarnation} " if attempts else ""
    return f"{clock(line.at)} {place}{speaker} | {harmless(line.text)}"


def checkpoints_table(checkpoints: Sequence[Checkpoint], now: float) -> RenderableType:
    if not checkpoints:
        return Text("no checkpoints")
    # Each was marked when it was the best so far; the one of the highest step still is.
    best = max((each.step for each in checkpoints if each.best), default=None)
    table = _table("STEP", "FROM", "BEST", "SIZE", "AGE", "METRICS", "URL", right=("STEP", "SIZE", "AGE"))
    for each in checkpoints:
        table.add_row(
            str(each.step),
            f"{each.attempt}.{each.incarnation}",
            "best" if each.step == best else "",
            size(each.size_bytes),
            duration(now - each.sealed_at),
            metrics_text(each.metrics),
            Text(each.url),
        )
    return table


def verified(reports: Sequence[Report]) -> RenderableType:
    lines = []
    for report in reports:
        if report.ok and report.manifest is not None:
            files = report.manifest.files
            held = f"{len(files)} files, {size(sum(each.size_bytes for each in files))}, step {report.manifest.step}"
            lines.append(Text(f"ok      {report.checkpoint}: {held}, every size and checksum as sealed", style="green"))
        else:
            lines.append(Text(f"broken  {report.checkpoint}", style="red"))
            lines += [Text(f"        {problem}") for problem in report.problems]
    return Group(*lines)


def models_table(models: Sequence[ModelVersion], now: float) -> RenderableType:
    if not models:
        return Text("no models")
    table = _table("MODEL", "VERSION", "ALIASES", "RUN", "AGE", "METRICS", right=("VERSION", "AGE"))
    for each in models:
        table.add_row(
            each.name,
            str(each.version),
            ", ".join(each.aliases),
            each.run_id,
            duration(now - each.created_at),
            metrics_text(each.metrics),
        )
    return table


def model(version: ModelVersion) -> RenderableType:
    return _facts(
        [
            ("model", f"{version.name}, version {version.version}"),
            ("aliases", ", ".join(version.aliases) or "none"),
            ("project", version.project),
            ("run", version.run_id),
            ("registered", date(version.created_at)),
            ("metrics", metrics_text(version.metrics) or "none"),
            ("checkpoint", Text(version.checkpoint)),
        ]
    )


def facts(found: Mapping[str, Any]) -> RenderableType:
    if not found:
        return Text("no facts are kept with this version")
    texts = {name: json.dumps(value) for name, value in sorted(found.items())}
    return _facts(
        [
            (name, Text(text if len(text) <= 200 else f"{len(text)} characters: see `-o json`"))
            for name, text in texts.items()
        ]
    )


def clusters_table(clusters: Sequence[ClusterView], now: float) -> RenderableType:
    if not clusters:
        return Text("no cluster has attached yet")
    table = _table("CLUSTER", "AGENT", "NODES", "CPU FREE", "GPU FREE", "RUNNING", "RAY", right=("NODES", "RUNNING"))
    for each in clusters:
        agent = "connected" if each.connected else f"away for {duration(now - each.last_seen_at)}"
        table.add_row(
            each.name,
            agent + (", draining" if each.draining else ""),
            str(len(each.nodes)),
            f"{sum(node.free_cpu for node in each.nodes):g} of {sum(node.cpu for node in each.nodes):g}",
            f"{sum(node.free_gpu for node in each.nodes):g} of {sum(node.gpu for node in each.nodes):g}",
            str(each.running),
            each.ray_version,
        )
    return table


def tokens_table(tokens: Sequence[TokenView], now: float) -> RenderableType:
    if not tokens:
        return Text("no tokens")
    table = _table("NAME", "ID", "PROJECT", "ROLE", "AGE", "STATE", right=("AGE",))
    for each in tokens:
        state = "revoked" if each.revoked_at is not None else "good"
        if each.revoked_at is None and each.expires_at is not None:
            left_s = each.expires_at - now
            state = f"expires in {duration(left_s)}" if left_s > 0 else "expired"
        table.add_row(each.name, each.id, each.project, each.role.value, duration(now - each.created_at), state)
    return table


def plan(planned: Plan) -> RenderableType:
    parts: list[RenderableType] = [_facts(_planned_facts(planned))]
    if planned.memory is not None:
        parts += [_title("Memory of a rank"), _memory_table(planned.memory)]
    parts += [_title("Clusters"), _fits_table(planned.clusters)]
    parts += [Text(f"warning: {each}", style="yellow") for each in planned.warnings]
    if planned.problems:
        number = "1 place is" if len(planned.problems) == 1 else f"{len(planned.problems)} places are"
        parts.append(Text(f"it cannot work: {number} wrong:", style="red"))
        parts += [Text(f"  {each}") for each in planned.problems]
    return Group(*parts)


def _planned_facts(planned: Plan) -> list[tuple[str, str | Text]]:
    resources = planned.spec["resources"]
    gpu = f", {resources['gpu']} GPU" if resources["gpu"] else ""
    rows: list[tuple[str, str | Text]] = [
        ("run", f"{planned.spec['name']}: {counted(resources['workers'], 'worker')} of {resources['cpu']:g} CPU{gpu}")
    ]
    if planned.model is not None:
        rows.append(("model", planned.model.words))
    if planned.layout:
        rows.append(("layout", planned.layout))
    if planned.reason:
        rows.append(("chosen", Text(planned.reason)))
    if planned.batch is not None:
        batch = planned.batch
        words = "micro-batch x accumulation x data-parallel ranks"
        if planned.spec["train"]["micro_batch"] == "auto":
            words += "; micro_batch auto is reckoned as 1, the ranks look for the largest that fits"
        rows.append(
            ("batch", f"{batch.global_batch} = {batch.micro_batch} x {batch.accumulation} x {batch.data}: {words}")
        )
    if planned.limit is not None:
        rows.append(("memory limit", planned.limit.words))
    if planned.spec.get("script") is None:
        rows += _outlook_facts(planned.outlook)
    return rows


def _outlook_facts(outlook: Outlook | None) -> list[tuple[str, str | Text]]:
    if outlook is None:
        return [("expected time", "not known: no earlier run of the same recipe, model and kind of worker")]
    rows: list[tuple[str, str | Text]] = [
        ("expected step", Text(f"{outlook.step_s:.4g} s, {outlook.words}: {', '.join(outlook.based_on)}"))
    ]
    if outlook.duration_s is not None:
        rows.append(("expected time", f"{duration(outlook.duration_s)} for {outlook.steps} steps, the queue left out"))
    if outlook.cost is not None:
        rows.append(("expected cost", f"{outlook.cost.amount:.2f} {outlook.cost.currency}"))
    return rows


def _memory_table(memory: Memory) -> Table:
    table = _table("PART", "SIZE", right=("SIZE",))
    for part in ("parameters", "gradients", "optimizer", "activations", "buffers", "runtime"):
        table.add_row(part, size(getattr(memory, part)))
    table.add_section()
    table.add_row("total", size(memory.total))
    if memory.host:
        table.add_row("and of its host", size(memory.host))
    return table


def _fits_table(clusters: Sequence[ClusterFit]) -> RenderableType:
    if not clusters:
        return Text("no cluster has attached yet: the run would wait for one")
    table = _table("CLUSTER", "VERDICT", "WHERE", "REASON")
    for each in clusters:
        where = ", ".join(f"{share.host}:{share.ranks}" for share in each.shares)
        table.add_row(each.cluster, each.verdict, where, Text(each.reason))
    return table
