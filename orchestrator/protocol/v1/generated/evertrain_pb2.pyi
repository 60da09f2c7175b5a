from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitRequest(_message.Message):
    __slots__ = ("spec", "idempotency_key", "project")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    spec: str
    idempotency_key: str
    project: str
    def __init__(self, spec: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("run", "created")
    RUN_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    run: Run
    created: bool
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., created: _Optional[bool] = ...) -> None: ...

class SubmitBatchRequest(_message.Message):
    __slots__ = ("submissions",)
    SUBMISSIONS_FIELD_NUMBER: _ClassVar[int]
    submissions: _containers.RepeatedCompositeFieldContainer[SubmitRequest]
    def __init__(self, submissions: _Optional[_Iterable[_Union[SubmitRequest, _Mapping]]] = ...) -> None: ...

class SubmitBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SubmitResponse]
    def __init__(self, results: _Optional[_Iterable[_Union[SubmitResponse, _Mapping]]] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("spec", "project")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    spec: str
    project: str
    def __init__(self, spec: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("spec_json", "clusters", "problems", "warnings", "layout", "reason", "batch", "model", "memory", "limit", "outlook")
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OUTLOOK_FIELD_NUMBER: _ClassVar[int]
    spec_json: str
    clusters: _containers.RepeatedCompositeFieldContainer[ClusterFit]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    layout: str
    reason: str
    batch: Batch
    model: PlannedModel
    memory: Memory
    limit: MemoryLimit
    outlook: Outlook
    def __init__(self, spec_json: _Optional[str] = ..., clusters: _Optional[_Iterable[_Union[ClusterFit, _Mapping]]] = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., layout: _Optional[str] = ..., reason: _Optional[str] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., model: _Optional[_Union[PlannedModel, _Mapping]] = ..., memory: _Optional[_Union[Memory, _Mapping]] = ..., limit: _Optional[_Union[MemoryLimit, _Mapping]] = ..., outlook: _Optional[_Union[Outlook, _Mapping]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("path", "got", "message")
    PATH_FIELD_NUMBER: _ClassVar[int]
    GOT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    path: str
    got: str
    message: str
    def __init__(self, path: _Optional[str] = ..., got: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("global_batch", "micro_batch", "accumulation", "data")
    GLOBAL_BATCH_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    global_batch: int
    micro_batch: int
    accumulation: int
    data: int
    def __init__(self, global_batch: _Optional[int] = ..., micro_batch: _Optional[int] = ..., accumulation: _Optional[int] = ..., data: _Optional[int] = ...) -> None: ...

class PlannedModel(_message.Message):
    __slots__ = ("elements", "words")
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    elements: int
    words: str
    def __init__(self, elements: _Optional[int] = ..., words: _Optional[str] = ...) -> None: ...

class Memory(_message.Message):
    __slots__ = ("parameters", "gradients", "optimizer", "activations", "buffers", "runtime", "host")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    runtime: int
    host: int
    def __init__(self, parameters: _Optional[int] = ..., gradients: _Optional[int] = ..., optimizer: _Optional[int] = ..., activations: _Optional[int] = ..., buffers: _Optional[int] = ..., runtime: _Optional[int] = ..., host: _Optional[int] = ...) -> None: ...

class MemoryLimit(_message.Message):
    __slots__ = ("size", "words")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    size: int
    words: str
    def __init__(self, size: _Optional[int] = ..., words: _Optional[str] = ...) -> None: ...

class Outlook(_message.Message):
    __slots__ = ("step_s", "based_on", "words", "steps", "duration_s", "cost")
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    BASED_ON_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    step_s: float
    based_on: _containers.RepeatedScalarFieldContainer[str]
    words: str
    steps: int
    duration_s: float
    cost: Amount
    def __init__(self, step_s: _Optional[float] = ..., based_on: _Optional[_Iterable[str]] = ..., words: _Optional[str] = ..., steps: _Optional[int] = ..., duration_s: _Optional[float] = ..., cost: _Optional[_Union[Amount, _Mapping]] = ...) -> None: ...

class ClusterFit(_message.Message):
    __slots__ = ("cluster", "verdict", "reason", "shares")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    verdict: str
    reason: str
    shares: _containers.RepeatedCompositeFieldContainer[NodeShare]
    def __init__(self, cluster: _Optional[str] = ..., verdict: _Optional[str] = ..., reason: _Optional[str] = ..., shares: _Optional[_Iterable[_Union[NodeShare, _Mapping]]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run", "project")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("project", "states", "name_prefix", "queue", "page_size", "page", "kind", "sweep", "without_trials")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    NAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_TRIALS_FIELD_NUMBER: _ClassVar[int]
    project: str
    states: _containers.RepeatedScalarFieldContainer[str]
    name_prefix: str
    queue: str
    page_size: int
    page: str
    kind: str
    sweep: str
    without_trials: bool
    def __init__(self, project: _Optional[str] = ..., states: _Optional[_Iterable[str]] = ..., name_prefix: _Optional[str] = ..., queue: _Optional[str] = ..., page_size: _Optional[int] = ..., page: _Optional[str] = ..., kind: _Optional[str] = ..., sweep: _Optional[str] = ..., without_trials: _Optional[bool] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run", "project", "after_event")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    AFTER_EVENT_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    after_event: int
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ..., after_event: _Optional[int] = ...) -> None: ...

class RunUpdate(_message.Message):
    __slots__ = ("run", "events", "progress")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    run: Run
    events: _containers.RepeatedCompositeFieldContainer[Event]
    progress: Progress
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("run", "project", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    reason: str
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseRunRequest(_message.Message):
    __slots__ = ("run", "project", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    reason: str
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ResumeRunRequest(_message.Message):
    __slots__ = ("run", "project")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("run", "project", "id", "kind", "ranks", "steps", "within_s")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_S_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    id: str
    kind: str
    ranks: _containers.RepeatedScalarFieldContainer[int]
    steps: int
    within_s: float
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ..., id: _Optional[str] = ..., kind: _Optional[str] = ..., ranks: _Optional[_Iterable[int]] = ..., steps: _Optional[int] = ..., within_s: _Optional[float] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("inspection", "after_event", "run_id")
    INSPECTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_EVENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    inspection: Inspection
    after_event: int
    run_id: str
    def __init__(self, inspection: _Optional[_Union[Inspection, _Mapping]] = ..., after_event: _Optional[int] = ..., run_id: _Optional[str] = ...) -> None: ...

class Inspection(_message.Message):
    __slots__ = ("id", "kind", "ranks", "by", "asked_at", "within_s", "steps")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_FIELD_NUMBER: _ClassVar[int]
    WITHIN_S_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    ranks: _containers.RepeatedScalarFieldContainer[int]
    by: str
    asked_at: float
    within_s: float
    steps: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., ranks: _Optional[_Iterable[int]] = ..., by: _Optional[str] = ..., asked_at: _Optional[float] = ..., within_s: _Optional[float] = ..., steps: _Optional[int] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("run", "project", "rank", "attempt", "since_at", "tail", "follow", "after")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SINCE_AT_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    rank: int
    attempt: int
    since_at: float
    tail: int
    follow: bool
    after: str
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ..., rank: _Optional[int] = ..., attempt: _Optional[int] = ..., since_at: _Optional[float] = ..., tail: _Optional[int] = ..., follow: _Optional[bool] = ..., after: _Optional[str] = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("lines", "cursor")
    LINES_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    cursor: str
    def __init__(self, lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ..., cursor: _Optional[str] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("run", "project", "after", "limit")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    after: int
    limit: int
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class EventsResponse(_message.Message):
    __slots__ = ("events", "next_after")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next_after: int
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next_after: _Optional[int] = ...) -> None: ...

class CheckpointsRequest(_message.Message):
    __slots__ = ("run", "project", "page_size", "page")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    run: str
    project: str
    page_size: int
    page: str
    def __init__(self, run: _Optional[str] = ..., project: _Optional[str] = ..., page_size: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class CheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints", "next_page")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    next_page: str
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class BundleChunk(_message.Message):
    __slots__ = ("data", "project")
    DATA_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    project: str
    def __init__(self, data: _Optional[bytes] = ..., project: _Optional[str] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "message", "rank", "host", "step", "traceback")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    kind: str
    message: str
    rank: int
    host: str
    step: int
    traceback: str
    def __init__(self, kind: _Optional[str] = ..., message: _Optional[str] = ..., rank: _Optional[int] = ..., host: _Optional[str] = ..., step: _Optional[int] = ..., traceback: _Optional[str] = ...) -> None: ...

class Spent(_message.Message):
    __slots__ = ("application", "infrastructure", "preemption")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    INFRASTRUCTURE_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_FIELD_NUMBER: _ClassVar[int]
    application: int
    infrastructure: int
    preemption: int
    def __init__(self, application: _Optional[int] = ..., infrastructure: _Optional[int] = ..., preemption: _Optional[int] = ...) -> None: ...

class Budgets(_message.Message):
    __slots__ = ("application", "infrastructure", "preemption")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    INFRASTRUCTURE_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_FIELD_NUMBER: _ClassVar[int]
    application: int
    infrastructure: int
    preemption: int
    def __init__(self, application: _Optional[int] = ..., infrastructure: _Optional[int] = ..., preemption: _Optional[int] = ...) -> None: ...

class NodeShare(_message.Message):
    __slots__ = ("node_id", "host", "ip", "ranks")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    host: str
    ip: str
    ranks: int
    def __init__(self, node_id: _Optional[str] = ..., host: _Optional[str] = ..., ip: _Optional[str] = ..., ranks: _Optional[int] = ...) -> None: ...

class Ledger(_message.Message):
    __slots__ = ("ns",)
    class NsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NS_FIELD_NUMBER: _ClassVar[int]
    ns: _containers.ScalarMap[str, int]
    def __init__(self, ns: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("step", "metrics", "checkpoint", "stopped_early")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    STOPPED_EARLY_FIELD_NUMBER: _ClassVar[int]
    step: int
    metrics: _containers.ScalarMap[str, float]
    checkpoint: str
    stopped_early: str
    def __init__(self, step: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., checkpoint: _Optional[str] = ..., stopped_early: _Optional[str] = ...) -> None: ...

class Incarnation(_message.Message):
    __slots__ = ("number", "world_size", "started_at", "resumed_from", "resumed_step", "skipped", "recovery_s", "failure")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FROM_FIELD_NUMBER: _ClassVar[int]
    RESUMED_STEP_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_S_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    number: int
    world_size: int
    started_at: float
    resumed_from: str
    resumed_step: int
    skipped: _containers.RepeatedScalarFieldContainer[str]
    recovery_s: float
    failure: Failure
    def __init__(self, number: _Optional[int] = ..., world_size: _Optional[int] = ..., started_at: _Optional[float] = ..., resumed_from: _Optional[str] = ..., resumed_step: _Optional[int] = ..., skipped: _Optional[_Iterable[str]] = ..., recovery_s: _Optional[float] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "cluster", "shares", "started_at", "placed", "incarnations", "last_seq", "ledger", "ended", "ended_at")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    INCARNATIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    number: int
    cluster: str
    shares: _containers.RepeatedCompositeFieldContainer[NodeShare]
    started_at: float
    placed: bool
    incarnations: _containers.RepeatedCompositeFieldContainer[Incarnation]
    last_seq: int
    ledger: Ledger
    ended: Reason
    ended_at: float
    def __init__(self, number: _Optional[int] = ..., cluster: _Optional[str] = ..., shares: _Optional[_Iterable[_Union[NodeShare, _Mapping]]] = ..., started_at: _Optional[float] = ..., placed: _Optional[bool] = ..., incarnations: _Optional[_Iterable[_Union[Incarnation, _Mapping]]] = ..., last_seq: _Optional[int] = ..., ledger: _Optional[_Union[Ledger, _Mapping]] = ..., ended: _Optional[_Union[Reason, _Mapping]] = ..., ended_at: _Optional[float] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "project", "name", "state", "reason", "liveness", "queue", "priority", "submitted_by", "submitted_at", "state_since_at", "ended_at", "version", "spec_json", "attempts", "spent", "furthest_step", "failure", "result", "ledger", "progress", "cost", "kind", "lineage")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LIVENESS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    STATE_SINCE_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    FURTHEST_STEP_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    project: str
    name: str
    state: str
    reason: Reason
    liveness: str
    queue: str
    priority: int
    submitted_by: str
    submitted_at: float
    state_since_at: float
    ended_at: float
    version: int
    spec_json: str
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    spent: Spent
    furthest_step: int
    failure: Failure
    result: Result
    ledger: Ledger
    progress: Progress
    cost: Amount
    kind: str
    lineage: Lineage
    def __init__(self, id: _Optional[str] = ..., project: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[_Union[Reason, _Mapping]] = ..., liveness: _Optional[str] = ..., queue: _Optional[str] = ..., priority: _Optional[int] = ..., submitted_by: _Optional[str] = ..., submitted_at: _Optional[float] = ..., state_since_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., version: _Optional[int] = ..., spec_json: _Optional[str] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., spent: _Optional[_Union[Spent, _Mapping]] = ..., furthest_step: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., ledger: _Optional[_Union[Ledger, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., cost: _Optional[_Union[Amount, _Mapping]] = ..., kind: _Optional[str] = ..., lineage: _Optional[_Union[Lineage, _Mapping]] = ...) -> None: ...

class Lineage(_message.Message):
    __slots__ = ("sweep", "trial", "generation", "point", "start", "slots", "memory")
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    TRIAL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    sweep: str
    trial: int
    generation: int
    point: _struct_pb2.Struct
    start: str
    slots: int
    memory: int
    def __init__(self, sweep: _Optional[str] = ..., trial: _Optional[int] = ..., generation: _Optional[int] = ..., point: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., start: _Optional[str] = ..., slots: _Optional[int] = ..., memory: _Optional[int] = ...) -> None: ...

class Amount(_message.Message):
    __slots__ = ("amount", "currency")
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    amount: float
    currency: str
    def __init__(self, amount: _Optional[float] = ..., currency: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("run_id", "seq", "at", "kind", "message", "data")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    seq: int
    at: float
    kind: str
    message: str
    data: _struct_pb2.Struct
    def __init__(self, run_id: _Optional[str] = ..., seq: _Optional[int] = ..., at: _Optional[float] = ..., kind: _Optional[str] = ..., message: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("run_id", "attempt", "incarnation", "phase", "at", "step", "epoch", "total_steps", "total_epochs", "loss", "learning_rate", "samples", "samples_per_s", "step_s", "metrics", "ledger", "silent_s", "ranks")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    incarnation: int
    phase: str
    at: float
    step: int
    epoch: int
    total_steps: int
    total_epochs: int
    loss: float
    learning_rate: float
    samples: int
    samples_per_s: float
    step_s: float
    metrics: _containers.ScalarMap[str, float]
    ledger: Ledger
    silent_s: float
    ranks: _containers.RepeatedCompositeFieldContainer[RankProgress]
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., incarnation: _Optional[int] = ..., phase: _Optional[str] = ..., at: _Optional[float] = ..., step: _Optional[int] = ..., epoch: _Optional[int] = ..., total_steps: _Optional[int] = ..., total_epochs: _Optional[int] = ..., loss: _Optional[float] = ..., learning_rate: _Optional[float] = ..., samples: _Optional[int] = ..., samples_per_s: _Optional[float] = ..., step_s: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., ledger: _Optional[_Union[Ledger, _Mapping]] = ..., silent_s: _Optional[float] = ..., ranks: _Optional[_Iterable[_Union[RankProgress, _Mapping]]] = ...) -> None: ...

class RankProgress(_message.Message):
    __slots__ = ("rank", "step", "step_s", "silent_s")
    RANK_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    rank: int
    step: int
    step_s: float
    silent_s: float
    def __init__(self, rank: _Optional[int] = ..., step: _Optional[int] = ..., step_s: _Optional[float] = ..., silent_s: _Optional[float] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("run_id", "attempt", "incarnation", "rank", "at", "text", "source", "seq")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    incarnation: int
    rank: int
    at: float
    text: str
    source: str
    seq: int
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., incarnation: _Optional[int] = ..., rank: _Optional[int] = ..., at: _Optional[float] = ..., text: _Optional[str] = ..., source: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("run_id", "attempt", "incarnation", "step", "url", "size_bytes", "metrics", "best", "sealed_at")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    SEALED_AT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    incarnation: int
    step: int
    url: str
    size_bytes: int
    metrics: _containers.ScalarMap[str, float]
    best: bool
    sealed_at: float
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., incarnation: _Optional[int] = ..., step: _Optional[int] = ..., url: _Optional[str] = ..., size_bytes: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., best: _Optional[bool] = ..., sealed_at: _Optional[float] = ...) -> None: ...

class ListSweepsRequest(_message.Message):
    __slots__ = ("project", "page_size", "page")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    project: str
    page_size: int
    page: str
    def __init__(self, project: _Optional[str] = ..., page_size: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class ListSweepsResponse(_message.Message):
    __slots__ = ("sweeps", "next_page")
    SWEEPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    sweeps: _containers.RepeatedCompositeFieldContainer[Run]
    next_page: str
    def __init__(self, sweeps: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class GetSweepRequest(_message.Message):
    __slots__ = ("sweep", "project")
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    sweep: str
    project: str
    def __init__(self, sweep: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class StartTrialRequest(_message.Message):
    __slots__ = ("sweep", "project", "attempt", "trial", "generation", "point_json", "start", "reason")
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TRIAL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    POINT_JSON_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sweep: str
    project: str
    attempt: int
    trial: int
    generation: int
    point_json: str
    start: str
    reason: str
    def __init__(self, sweep: _Optional[str] = ..., project: _Optional[str] = ..., attempt: _Optional[int] = ..., trial: _Optional[int] = ..., generation: _Optional[int] = ..., point_json: _Optional[str] = ..., start: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StopSweepRequest(_message.Message):
    __slots__ = ("sweep", "project", "reason")
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sweep: str
    project: str
    reason: str
    def __init__(self, sweep: _Optional[str] = ..., project: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Sweep(_message.Message):
    __slots__ = ("id", "project", "name", "state", "reason", "metric", "mode", "algorithm", "scheduler", "wanted", "space_json", "trials", "room", "currency", "submitted_at", "started_at", "ended_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    SPACE_JSON_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    project: str
    name: str
    state: str
    reason: str
    metric: str
    mode: str
    algorithm: str
    scheduler: str
    wanted: int
    space_json: str
    trials: _containers.RepeatedCompositeFieldContainer[Trial]
    room: int
    currency: str
    submitted_at: float
    started_at: float
    ended_at: float
    def __init__(self, id: _Optional[str] = ..., project: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., metric: _Optional[str] = ..., mode: _Optional[str] = ..., algorithm: _Optional[str] = ..., scheduler: _Optional[str] = ..., wanted: _Optional[int] = ..., space_json: _Optional[str] = ..., trials: _Optional[_Iterable[_Union[Trial, _Mapping]]] = ..., room: _Optional[int] = ..., currency: _Optional[str] = ..., submitted_at: _Optional[float] = ..., started_at: _Optional[float] = ..., ended_at: _Optional[float] = ...) -> None: ...

class Trial(_message.Message):
    __slots__ = ("number", "point_json", "state", "run_id", "generation", "reports", "values", "metrics", "checkpoint", "reason", "seconds", "cost", "submitted_at", "started_at", "ended_at", "stages_json", "seal")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    POINT_JSON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    STAGES_JSON_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    number: int
    point_json: str
    state: str
    run_id: str
    generation: int
    reports: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    metrics: _containers.ScalarMap[str, float]
    checkpoint: str
    reason: str
    seconds: _containers.ScalarMap[str, float]
    cost: float
    submitted_at: float
    started_at: float
    ended_at: float
    stages_json: str
    seal: str
    def __init__(self, number: _Optional[int] = ..., point_json: _Optional[str] = ..., state: _Optional[str] = ..., run_id: _Optional[str] = ..., generation: _Optional[int] = ..., reports: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., checkpoint: _Optional[str] = ..., reason: _Optional[str] = ..., seconds: _Optional[_Mapping[str, float]] = ..., cost: _Optional[float] = ..., submitted_at: _Optional[float] = ..., started_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., stages_json: _Optional[str] = ..., seal: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("project", "name", "page")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    page: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., page: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("versions", "next_page")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    next_page: str
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("project", "name", "version")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    version: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("project", "name", "version", "alias")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    version: int
    alias: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., alias: _Optional[str] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("project", "name", "version", "run_id", "checkpoint", "metrics", "created_at", "aliases")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    version: int
    run_id: str
    checkpoint: str
    metrics: _containers.ScalarMap[str, float]
    created_at: float
    aliases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., run_id: _Optional[str] = ..., checkpoint: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., created_at: _Optional[float] = ..., aliases: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelFacts(_message.Message):
    __slots__ = ("version", "json")
    class JsonEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    version: int
    json: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[int] = ..., json: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PutFactRequest(_message.Message):
    __slots__ = ("project", "name", "version", "fact", "json")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FACT_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    version: str
    fact: str
    json: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., fact: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("project", "name", "version", "alias", "reason", "anyway")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ANYWAY_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    version: str
    alias: str
    reason: str
    anyway: bool
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., alias: _Optional[str] = ..., reason: _Optional[str] = ..., anyway: _Optional[bool] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("project", "name", "alias", "reason", "expected")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    alias: str
    reason: str
    expected: int
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., alias: _Optional[str] = ..., reason: _Optional[str] = ..., expected: _Optional[int] = ...) -> None: ...

class AliasHistoryRequest(_message.Message):
    __slots__ = ("project", "name", "alias", "page")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    alias: str
    page: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., alias: _Optional[str] = ..., page: _Optional[str] = ...) -> None: ...

class AliasHistory(_message.Message):
    __slots__ = ("moves", "next_page")
    MOVES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[AliasMove]
    next_page: str
    def __init__(self, moves: _Optional[_Iterable[_Union[AliasMove, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class AliasMove(_message.Message):
    __slots__ = ("project", "name", "number", "alias", "version", "before", "at", "by", "reason", "report")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    number: int
    alias: str
    version: int
    before: int
    at: float
    by: str
    reason: str
    report: _struct_pb2.Struct
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., number: _Optional[int] = ..., alias: _Optional[str] = ..., version: _Optional[int] = ..., before: _Optional[int] = ..., at: _Optional[float] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ..., report: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("project", "name", "champion", "challenger")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    champion: str
    challenger: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., champion: _Optional[str] = ..., challenger: _Optional[str] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("champion", "challenger", "judgement")
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_FIELD_NUMBER: _ClassVar[int]
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    champion: ModelVersion
    challenger: ModelVersion
    judgement: _struct_pb2.Struct
    def __init__(self, champion: _Optional[_Union[ModelVersion, _Mapping]] = ..., challenger: _Optional[_Union[ModelVersion, _Mapping]] = ..., judgement: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ModelLineage(_message.Message):
    __slots__ = ("ancestors",)
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    ancestors: _containers.RepeatedCompositeFieldContainer[Ancestor]
    def __init__(self, ancestors: _Optional[_Iterable[_Union[Ancestor, _Mapping]]] = ...) -> None: ...

class Ancestor(_message.Message):
    __slots__ = ("version", "run", "submitted_by", "submitted_at", "data", "weights", "champion")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    run: str
    submitted_by: str
    submitted_at: float
    data: str
    weights: str
    champion: int
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ..., run: _Optional[str] = ..., submitted_by: _Optional[str] = ..., submitted_at: _Optional[float] = ..., data: _Optional[str] = ..., weights: _Optional[str] = ..., champion: _Optional[int] = ...) -> None: ...

class ObserveRequest(_message.Message):
    __slots__ = ("project", "model", "source", "seq", "kind", "version", "data")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    source: str
    seq: int
    kind: str
    version: int
    data: bytes
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., source: _Optional[str] = ..., seq: _Optional[int] = ..., kind: _Optional[str] = ..., version: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ObserveReply(_message.Message):
    __slots__ = ("seq", "refused")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    seq: int
    refused: str
    def __init__(self, seq: _Optional[int] = ..., refused: _Optional[str] = ...) -> None: ...

class ListMonitorsRequest(_message.Message):
    __slots__ = ("project", "page")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    project: str
    page: str
    def __init__(self, project: _Optional[str] = ..., page: _Optional[str] = ...) -> None: ...

class ListMonitorsResponse(_message.Message):
    __slots__ = ("monitors", "next_page")
    MONITORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    monitors: _containers.RepeatedCompositeFieldContainer[Watched]
    next_page: str
    def __init__(self, monitors: _Optional[_Iterable[_Union[Watched, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class GetMonitorRequest(_message.Message):
    __slots__ = ("project", "model")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class PauseMonitorRequest(_message.Message):
    __slots__ = ("project", "model", "reason")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    reason: str
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class JudgementsRequest(_message.Message):
    __slots__ = ("project", "model", "below", "limit")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    below: int
    limit: int
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., below: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class JudgementsResponse(_message.Message):
    __slots__ = ("judgements",)
    JUDGEMENTS_FIELD_NUMBER: _ClassVar[int]
    judgements: _containers.RepeatedCompositeFieldContainer[Judgement]
    def __init__(self, judgements: _Optional[_Iterable[_Union[Judgement, _Mapping]]] = ...) -> None: ...

class Judgement(_message.Message):
    __slots__ = ("number", "at", "start", "end", "rows", "status", "severity", "words", "evidence")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    number: int
    at: float
    start: float
    end: float
    rows: int
    status: str
    severity: int
    words: str
    evidence: _struct_pb2.Struct
    def __init__(self, number: _Optional[int] = ..., at: _Optional[float] = ..., start: _Optional[float] = ..., end: _Optional[float] = ..., rows: _Optional[int] = ..., status: _Optional[str] = ..., severity: _Optional[int] = ..., words: _Optional[str] = ..., evidence: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Watched(_message.Message):
    __slots__ = ("project", "model", "settings", "run", "reference", "created_at", "paused", "status", "words", "figures", "newest", "pictures")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    settings: _struct_pb2.Struct
    run: str
    reference: int
    created_at: float
    paused: str
    status: str
    words: str
    figures: Figures
    newest: Judgement
    pictures: _containers.RepeatedCompositeFieldContainer[Picture]
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., settings: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., run: _Optional[str] = ..., reference: _Optional[int] = ..., created_at: _Optional[float] = ..., paused: _Optional[str] = ..., status: _Optional[str] = ..., words: _Optional[str] = ..., figures: _Optional[_Union[Figures, _Mapping]] = ..., newest: _Optional[_Union[Judgement, _Mapping]] = ..., pictures: _Optional[_Iterable[_Union[Picture, _Mapping]]] = ...) -> None: ...

class Figures(_message.Message):
    __slots__ = ("rows", "labels", "unknown_labels", "late_rows", "other_versions", "wrong_kind", "malformed", "judged", "behind_rows")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_LABELS_FIELD_NUMBER: _ClassVar[int]
    LATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    OTHER_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    WRONG_KIND_FIELD_NUMBER: _ClassVar[int]
    MALFORMED_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    BEHIND_ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    labels: int
    unknown_labels: int
    late_rows: int
    other_versions: int
    wrong_kind: int
    malformed: int
    judged: int
    behind_rows: int
    def __init__(self, rows: _Optional[int] = ..., labels: _Optional[int] = ..., unknown_labels: _Optional[int] = ..., late_rows: _Optional[int] = ..., other_versions: _Optional[int] = ..., wrong_kind: _Optional[int] = ..., malformed: _Optional[int] = ..., judged: _Optional[int] = ..., behind_rows: _Optional[int] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("feature", "bins", "reference", "current")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    feature: str
    bins: _containers.RepeatedScalarFieldContainer[str]
    reference: _containers.RepeatedScalarFieldContainer[float]
    current: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, feature: _Optional[str] = ..., bins: _Optional[_Iterable[str]] = ..., reference: _Optional[_Iterable[float]] = ..., current: _Optional[_Iterable[float]] = ...) -> None: ...

class DecisionsRequest(_message.Message):
    __slots__ = ("project", "model", "page_size", "page")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    page_size: int
    page: str
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., page_size: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class DecisionsResponse(_message.Message):
    __slots__ = ("decisions", "next_page")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[RetrainingDecision]
    next_page: str
    def __init__(self, decisions: _Optional[_Iterable[_Union[RetrainingDecision, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class RetrainRequest(_message.Message):
    __slots__ = ("project", "model", "reason", "idempotency_key")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    reason: str
    idempotency_key: str
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., reason: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("project", "model", "number", "reason")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    number: int
    reason: str
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., number: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RetrainingDecision(_message.Message):
    __slots__ = ("project", "model", "number", "at", "cause", "trigger", "trigger_words", "severity", "action", "because", "words", "standing", "told", "by", "run", "champion", "version", "cost", "again_at", "ended_at", "promoted_at", "data_json")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_WORDS_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    AGAIN_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_AT_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    project: str
    model: str
    number: int
    at: float
    cause: str
    trigger: str
    trigger_words: str
    severity: int
    action: str
    because: str
    words: str
    standing: str
    told: _containers.RepeatedScalarFieldContainer[str]
    by: str
    run: str
    champion: int
    version: int
    cost: float
    again_at: float
    ended_at: float
    promoted_at: float
    data_json: str
    def __init__(self, project: _Optional[str] = ..., model: _Optional[str] = ..., number: _Optional[int] = ..., at: _Optional[float] = ..., cause: _Optional[str] = ..., trigger: _Optional[str] = ..., trigger_words: _Optional[str] = ..., severity: _Optional[int] = ..., action: _Optional[str] = ..., because: _Optional[str] = ..., words: _Optional[str] = ..., standing: _Optional[str] = ..., told: _Optional[_Iterable[str]] = ..., by: _Optional[str] = ..., run: _Optional[str] = ..., champion: _Optional[int] = ..., version: _Optional[int] = ..., cost: _Optional[float] = ..., again_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., promoted_at: _Optional[float] = ..., data_json: _Optional[str] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("name", "project", "role", "expires_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    project: str
    role: str
    expires_s: float
    def __init__(self, name: _Optional[str] = ..., project: _Optional[str] = ..., role: _Optional[str] = ..., expires_s: _Optional[float] = ...) -> None: ...

class CreateTokenResponse(_message.Message):
    __slots__ = ("secret", "token")
    SECRET_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    secret: str
    token: Token
    def __init__(self, secret: _Optional[str] = ..., token: _Optional[_Union[Token, _Mapping]] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ("project", "page")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    project: str
    page: str
    def __init__(self, project: _Optional[str] = ..., page: _Optional[str] = ...) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens", "next_page")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    next_page: str
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("id", "project")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    id: str
    project: str
    def __init__(self, id: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class RevokeTokenResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "name", "project", "role", "created_at", "expires_at", "revoked_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    project: str
    role: str
    created_at: float
    expires_at: float
    revoked_at: float
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., project: _Optional[str] = ..., role: _Optional[str] = ..., created_at: _Optional[float] = ..., expires_at: _Optional[float] = ..., revoked_at: _Optional[float] = ...) -> None: ...

class PutSecretRequest(_message.Message):
    __slots__ = ("project", "name", "value")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    value: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class PutSecretResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSecretsRequest(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: str
    def __init__(self, project: _Optional[str] = ...) -> None: ...

class ListSecretsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteSecretRequest(_message.Message):
    __slots__ = ("project", "name")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DeleteSecretResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AgentMessage(_message.Message):
    __slots__ = ("hello", "inventory", "observation", "progress")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    inventory: Inventory
    observation: Observation
    progress: Progress
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., inventory: _Optional[_Union[Inventory, _Mapping]] = ..., observation: _Optional[_Union[Observation, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("cluster", "epoch", "ray_version", "living", "autoscaling")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RAY_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIVING_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    epoch: int
    ray_version: str
    living: _containers.RepeatedCompositeFieldContainer[LivingAttempt]
    autoscaling: bool
    def __init__(self, cluster: _Optional[str] = ..., epoch: _Optional[int] = ..., ray_version: _Optional[str] = ..., living: _Optional[_Iterable[_Union[LivingAttempt, _Mapping]]] = ..., autoscaling: _Optional[bool] = ...) -> None: ...

class LivingAttempt(_message.Message):
    __slots__ = ("run_id", "attempt")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Inventory(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "host", "ip", "cpu", "gpu", "memory", "free_cpu", "free_gpu", "free_memory", "accelerator")
    ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    FREE_CPU_FIELD_NUMBER: _ClassVar[int]
    FREE_GPU_FIELD_NUMBER: _ClassVar[int]
    FREE_MEMORY_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    host: str
    ip: str
    cpu: float
    gpu: float
    memory: int
    free_cpu: float
    free_gpu: float
    free_memory: int
    accelerator: str
    def __init__(self, id: _Optional[str] = ..., host: _Optional[str] = ..., ip: _Optional[str] = ..., cpu: _Optional[float] = ..., gpu: _Optional[float] = ..., memory: _Optional[int] = ..., free_cpu: _Optional[float] = ..., free_gpu: _Optional[float] = ..., free_memory: _Optional[int] = ..., accelerator: _Optional[str] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "desired", "ack", "superseded", "demand")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    desired: Desired
    ack: Ack
    superseded: Superseded
    demand: Demand
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., desired: _Optional[_Union[Desired, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., superseded: _Optional[_Union[Superseded, _Mapping]] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("server_id",)
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    def __init__(self, server_id: _Optional[str] = ...) -> None: ...

class Superseded(_message.Message):
    __slots__ = ("message", "epoch")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    message: str
    epoch: int
    def __init__(self, message: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Desired(_message.Message):
    __slots__ = ("attempts", "ahead")
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptOrder]
    ahead: _containers.RepeatedCompositeFieldContainer[AttemptOrder]
    def __init__(self, attempts: _Optional[_Iterable[_Union[AttemptOrder, _Mapping]]] = ..., ahead: _Optional[_Iterable[_Union[AttemptOrder, _Mapping]]] = ...) -> None: ...

class Demand(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("cpu", "gpu", "memory", "accelerator", "count")
    CPU_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    cpu: float
    gpu: float
    memory: int
    accelerator: str
    count: int
    def __init__(self, cpu: _Optional[float] = ..., gpu: _Optional[float] = ..., memory: _Optional[int] = ..., accelerator: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("run_id", "attempt", "seq")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    seq: int
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class AdmittedSeals(_message.Message):
    __slots__ = ("attempt", "incarnation")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    incarnation: int
    def __init__(self, attempt: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class StopOrder(_message.Message):
    __slots__ = ("kind", "by", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    by: str
    message: str
    def __init__(self, kind: _Optional[str] = ..., by: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class AttemptOrder(_message.Message):
    __slots__ = ("run_id", "project", "run_name", "attempt", "shares", "spec", "checkpoint_root", "placed", "budgets", "spent", "previous_failure", "sealed_since_failure", "furthest_step", "admitted", "bundle", "secrets", "remaining_s", "stop", "sealed_before", "deadline_message", "driver_token", "told_ranks", "inspections", "ahead")
    class SecretsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    RUN_NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ROOT_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FAILURE_FIELD_NUMBER: _ClassVar[int]
    SEALED_SINCE_FAILURE_FIELD_NUMBER: _ClassVar[int]
    FURTHEST_STEP_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_S_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    SEALED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DRIVER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOLD_RANKS_FIELD_NUMBER: _ClassVar[int]
    INSPECTIONS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    project: str
    run_name: str
    attempt: int
    shares: _containers.RepeatedCompositeFieldContainer[NodeShare]
    spec: _struct_pb2.Struct
    checkpoint_root: str
    placed: bool
    budgets: Budgets
    spent: Spent
    previous_failure: Failure
    sealed_since_failure: bool
    furthest_step: int
    admitted: _containers.RepeatedCompositeFieldContainer[AdmittedSeals]
    bundle: str
    secrets: _containers.ScalarMap[str, str]
    remaining_s: float
    stop: StopOrder
    sealed_before: bool
    deadline_message: str
    driver_token: str
    told_ranks: int
    inspections: _containers.RepeatedCompositeFieldContainer[Inspection]
    ahead: bool
    def __init__(self, run_id: _Optional[str] = ..., project: _Optional[str] = ..., run_name: _Optional[str] = ..., attempt: _Optional[int] = ..., shares: _Optional[_Iterable[_Union[NodeShare, _Mapping]]] = ..., spec: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., checkpoint_root: _Optional[str] = ..., placed: _Optional[bool] = ..., budgets: _Optional[_Union[Budgets, _Mapping]] = ..., spent: _Optional[_Union[Spent, _Mapping]] = ..., previous_failure: _Optional[_Union[Failure, _Mapping]] = ..., sealed_since_failure: _Optional[bool] = ..., furthest_step: _Optional[int] = ..., admitted: _Optional[_Iterable[_Union[AdmittedSeals, _Mapping]]] = ..., bundle: _Optional[str] = ..., secrets: _Optional[_Mapping[str, str]] = ..., remaining_s: _Optional[float] = ..., stop: _Optional[_Union[StopOrder, _Mapping]] = ..., sealed_before: _Optional[bool] = ..., deadline_message: _Optional[str] = ..., driver_token: _Optional[str] = ..., told_ranks: _Optional[int] = ..., inspections: _Optional[_Iterable[_Union[Inspection, _Mapping]]] = ..., ahead: _Optional[bool] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("run_id", "attempt", "seq", "at", "waiting", "unplaceable", "placed", "incarnation_started", "ranks_restored", "first_step", "incarnation_failed", "checkpoint_sealed", "epoch_ended", "attempt_ended", "inspected")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    UNPLACEABLE_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_STARTED_FIELD_NUMBER: _ClassVar[int]
    RANKS_RESTORED_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FAILED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SEALED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_ENDED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ENDED_FIELD_NUMBER: _ClassVar[int]
    INSPECTED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    seq: int
    at: float
    waiting: Waiting
    unplaceable: Unplaceable
    placed: Placed
    incarnation_started: IncarnationStarted
    ranks_restored: RanksRestored
    first_step: FirstStep
    incarnation_failed: IncarnationFailed
    checkpoint_sealed: CheckpointSealed
    epoch_ended: EpochEnded
    attempt_ended: AttemptEnded
    inspected: Inspected
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., seq: _Optional[int] = ..., at: _Optional[float] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ..., unplaceable: _Optional[_Union[Unplaceable, _Mapping]] = ..., placed: _Optional[_Union[Placed, _Mapping]] = ..., incarnation_started: _Optional[_Union[IncarnationStarted, _Mapping]] = ..., ranks_restored: _Optional[_Union[RanksRestored, _Mapping]] = ..., first_step: _Optional[_Union[FirstStep, _Mapping]] = ..., incarnation_failed: _Optional[_Union[IncarnationFailed, _Mapping]] = ..., checkpoint_sealed: _Optional[_Union[CheckpointSealed, _Mapping]] = ..., epoch_ended: _Optional[_Union[EpochEnded, _Mapping]] = ..., attempt_ended: _Optional[_Union[AttemptEnded, _Mapping]] = ..., inspected: _Optional[_Union[Inspected, _Mapping]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    def __init__(self, reason: _Optional[_Union[Reason, _Mapping]] = ...) -> None: ...

class Unplaceable(_message.Message):
    __slots__ = ("reason", "final")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    final: bool
    def __init__(self, reason: _Optional[_Union[Reason, _Mapping]] = ..., final: _Optional[bool] = ...) -> None: ...

class Placed(_message.Message):
    __slots__ = ("shares", "seconds", "pooled")
    SHARES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    POOLED_FIELD_NUMBER: _ClassVar[int]
    shares: _containers.RepeatedCompositeFieldContainer[NodeShare]
    seconds: float
    pooled: bool
    def __init__(self, shares: _Optional[_Iterable[_Union[NodeShare, _Mapping]]] = ..., seconds: _Optional[float] = ..., pooled: _Optional[bool] = ...) -> None: ...

class IncarnationStarted(_message.Message):
    __slots__ = ("incarnation", "world_size", "pids")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    world_size: int
    pids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, incarnation: _Optional[int] = ..., world_size: _Optional[int] = ..., pids: _Optional[_Iterable[int]] = ...) -> None: ...

class RanksRestored(_message.Message):
    __slots__ = ("incarnation", "step", "checkpoint", "skipped")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    step: int
    checkpoint: str
    skipped: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, incarnation: _Optional[int] = ..., step: _Optional[int] = ..., checkpoint: _Optional[str] = ..., skipped: _Optional[_Iterable[str]] = ...) -> None: ...

class FirstStep(_message.Message):
    __slots__ = ("incarnation", "step", "recovery_s")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_S_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    step: int
    recovery_s: float
    def __init__(self, incarnation: _Optional[int] = ..., step: _Optional[int] = ..., recovery_s: _Optional[float] = ...) -> None: ...

class IncarnationFailed(_message.Message):
    __slots__ = ("incarnation", "failure", "restarting", "reason", "spent", "furthest_step")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RESTARTING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    FURTHEST_STEP_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    failure: Failure
    restarting: bool
    reason: Reason
    spent: Spent
    furthest_step: int
    def __init__(self, incarnation: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., restarting: _Optional[bool] = ..., reason: _Optional[_Union[Reason, _Mapping]] = ..., spent: _Optional[_Union[Spent, _Mapping]] = ..., furthest_step: _Optional[int] = ...) -> None: ...

class CheckpointSealed(_message.Message):
    __slots__ = ("incarnation", "checkpoint", "step", "size_bytes", "stall_s", "seconds", "metrics", "best")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STALL_S_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    checkpoint: str
    step: int
    size_bytes: int
    stall_s: float
    seconds: float
    metrics: _containers.ScalarMap[str, float]
    best: bool
    def __init__(self, incarnation: _Optional[int] = ..., checkpoint: _Optional[str] = ..., step: _Optional[int] = ..., size_bytes: _Optional[int] = ..., stall_s: _Optional[float] = ..., seconds: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., best: _Optional[bool] = ...) -> None: ...

class EpochEnded(_message.Message):
    __slots__ = ("incarnation", "epoch", "step", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    epoch: int
    step: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, incarnation: _Optional[int] = ..., epoch: _Optional[int] = ..., step: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Inspected(_message.Message):
    __slots__ = ("inspection", "rank", "ok", "message", "text", "trace")
    INSPECTION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    inspection: str
    rank: int
    ok: bool
    message: str
    text: str
    trace: str
    def __init__(self, inspection: _Optional[str] = ..., rank: _Optional[int] = ..., ok: _Optional[bool] = ..., message: _Optional[str] = ..., text: _Optional[str] = ..., trace: _Optional[str] = ...) -> None: ...

class AttemptEnded(_message.Message):
    __slots__ = ("outcome", "reason", "spent", "furthest_step", "ledger", "failure", "result", "fence_s", "facts")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    FURTHEST_STEP_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FENCE_S_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    reason: Reason
    spent: Spent
    furthest_step: int
    ledger: Ledger
    failure: Failure
    result: Result
    fence_s: float
    facts: _struct_pb2.Struct
    def __init__(self, outcome: _Optional[str] = ..., reason: _Optional[_Union[Reason, _Mapping]] = ..., spent: _Optional[_Union[Spent, _Mapping]] = ..., furthest_step: _Optional[int] = ..., ledger: _Optional[_Union[Ledger, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., fence_s: _Optional[float] = ..., facts: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class LogBatch(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    def __init__(self, lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ...) -> None: ...

class LogAck(_message.Message):
    __slots__ = ("run_id", "attempt", "source", "seq", "credit")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    source: str
    seq: int
    credit: int
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., source: _Optional[str] = ..., seq: _Optional[int] = ..., credit: _Optional[int] = ...) -> None: ...

class ListClustersRequest(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: str
    def __init__(self, project: _Optional[str] = ...) -> None: ...

class ListClustersResponse(_message.Message):
    __slots__ = ("clusters",)
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    clusters: _containers.RepeatedCompositeFieldContainer[Cluster]
    def __init__(self, clusters: _Optional[_Iterable[_Union[Cluster, _Mapping]]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("cluster", "evict", "undo")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    EVICT_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    evict: bool
    undo: bool
    def __init__(self, cluster: _Optional[str] = ..., evict: _Optional[bool] = ..., undo: _Optional[bool] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("name", "project", "epoch", "draining", "nodes", "last_seen_at", "ray_version", "connected", "running", "autoscaling", "away")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_AT_FIELD_NUMBER: _ClassVar[int]
    RAY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    AWAY_FIELD_NUMBER: _ClassVar[int]
    name: str
    project: str
    epoch: int
    draining: bool
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    last_seen_at: float
    ray_version: str
    connected: bool
    running: int
    autoscaling: bool
    away: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, name: _Optional[str] = ..., project: _Optional[str] = ..., epoch: _Optional[int] = ..., draining: _Optional[bool] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., last_seen_at: _Optional[float] = ..., ray_version: _Optional[str] = ..., connected: _Optional[bool] = ..., running: _Optional[int] = ..., autoscaling: _Optional[bool] = ..., away: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...
