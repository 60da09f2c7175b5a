"""Between the wire's messages and dataclasses: field by field, by name.

The converters are made by reflection, once for each pair of dataclass and message, and then only run. Little differs
from plain copying: a union whose members have a `kind` is the message's `oneof` of that name; a mapping of anything is a
`Struct`; None is an absent field. Only `Run` is written by hand: there the state is one value in the core and several
fields on the wire, and lists of it must be fast.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct

from orchestrator.core.ledger import Ledger
from orchestrator.core.money import Amount
from orchestrator.core.observations import Progress
from orchestrator.core.runs import Attempt, Failed, Failure, Lineage, Reason, Recovering, Result, Run, Spent, Succeeded
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

M = TypeVar("M", bound=Message)
T = TypeVar("T")

_Encode = Callable[[Any], Any]
_Decode = Callable[[Any], Any]
_MISSING: Any = object()

BIG_INT = "$int"
"""A Struct holds doubles only: an integer beyond 2**53 travels as {"$int": "its digits"}. A key that somebody really calls
"$int" travels as "$$int", that one as "$$$int", and so on.
"""
_LIKE_BIG_INT = re.compile(r"\$+int")
_EXACT = 2**53


def to_proto(value: Any, message: type[M]) -> M:
    """`value`, a dataclass, as a `message`. Fields that the message lacks stay behind (a token's hash)."""
    return typing.cast(M, _encoder(type(value), message)(value))


def from_proto(message: Message, cls: type[T]) -> T:
    """`message` as a `cls`. Raises ValueError for what `cls` cannot hold: an unknown enum value, an empty oneof."""
    return typing.cast(T, _decoder(cls, message.DESCRIPTOR)(message))


# ---- runs, by hand --------------------------------------------------------------------------------------------------


def run_summary(
    run: Run, *, reason: Reason | None = None, liveness: str = "unknown", progress: Progress | None = None
) -> pb.Run:
    """A run as lists show it: without its run file and its attempts. `reason`: a newer one than the run's own."""
    state, spent = run.state, run.spent
    why = reason or state.reason
    message = pb.Run(
        id=run.id,
        project=run.project,
        name=run.name,
        state=state.kind,
        reason=pb.Reason(code=why.code, message=why.message),
        liveness=liveness,
        queue=run.queue,
        priority=run.priority,
        submitted_by=run.submitted_by,
        submitted_at=run.submitted_at,
        state_since_at=run.state_since_at,
        ended_at=run.ended_at,
        version=run.version,
        spent=pb.Spent(application=spent.application, infrastructure=spent.infrastructure, preemption=spent.preemption),
        furthest_step=run.furthest_step,
        kind=run.kind,
    )
    if run.lineage is not None:
        message.lineage.CopyFrom(to_proto(run.lineage, pb.Lineage))
    if isinstance(state, Failed | Recovering):
        message.failure.CopyFrom(to_proto(state.failure, pb.Failure))
    elif isinstance(state, Succeeded):
        message.result.CopyFrom(to_proto(state.result, pb.Result))
    if progress is not None:
        message.progress.CopyFrom(to_proto(progress, pb.Progress))
    return message


def run_detail(
    run: Run,
    *,
    ledger: Ledger,
    reason: Reason | None = None,
    liveness: str = "unknown",
    progress: Progress | None = None,
    cost: Amount | None = None,
) -> pb.Run:
    """A run with all that is known of it. `ledger` is that of the whole run, queued time included."""
    message = run_summary(run, reason=reason, liveness=liveness, progress=progress)
    message.spec_json = dump_spec(run.spec)
    message.attempts.extend(to_proto(attempt, pb.Attempt) for attempt in run.attempts)
    message.ledger.CopyFrom(to_proto(ledger, pb.Ledger))
    if cost is not None:
        message.cost.CopyFrom(to_proto(cost, pb.Amount))
    return message


def dump_spec(spec: Mapping[str, Any]) -> str:
    """A validated run file as the wire carries it to people: in ASCII, so that no text of it keeps a run from being shown."""
    return json.dumps(spec)


@dataclasses.dataclass(frozen=True)
class RunView:
    """A run as the wire shows it. A run of a listing has neither `spec_json` nor `attempts`."""

    id: str
    project: str
    name: str
    state: str  # one of STATE_NAMES
    reason: Reason
    liveness: str  # alive | dead | unknown
    queue: str
    priority: int
    submitted_by: str
    submitted_at: float
    state_since_at: float
    version: int
    ended_at: float | None = None
    spec_json: str = ""
    attempts: tuple[Attempt, ...] = ()
    spent: Spent = dataclasses.field(default_factory=Spent)
    furthest_step: int = 0
    failure: Failure | None = None
    result: Result | None = None
    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    progress: Progress | None = None
    cost: Amount | None = None  # so far; None in a listing, and where the server knows no prices
    kind: str = "run"  # run | sweep | trial
    lineage: Lineage | None = None  # of a sweep's trial

    @property
    def spec(self) -> Mapping[str, Any]:
        """The validated run file; empty in a listing."""
        return typing.cast(Mapping[str, Any], json.loads(self.spec_json)) if self.spec_json else {}


# ---- structs --------------------------------------------------------------------------------------------------------


def to_struct(value: Mapping[str, Any]) -> Struct:
    """Raises ValueError for what JSON cannot say."""
    struct = Struct()
    struct.update(_structable(value))
    return struct


def _structable(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, enum.Enum):
        return _structable(value.value)
    if isinstance(value, int) and abs(value) > _EXACT:
        return {BIG_INT: str(int(value))}
    if isinstance(value, Mapping):
        return {_escaped(str(key)): _structable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_structable(each) for each in value]
    return value


def _escaped(key: str) -> str:
    return f"${key}" if _LIKE_BIG_INT.fullmatch(key) else key


def _unescaped(key: str) -> str:
    return key[1:] if key != BIG_INT and _LIKE_BIG_INT.fullmatch(key) else key


def from_struct(struct: Struct) -> dict[str, Any]:
    """Whole numbers come back as int: a Struct cannot tell 1 from 1.0, and the run file's counts must stay counts."""
    return {_unescaped(key): _plain(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            fields = value.struct_value.fields
            if len(fields) == 1 and BIG_INT in fields:
                return int(fields[BIG_INT].string_value)
            return {_unescaped(key): _plain(each) for key, each in fields.items()}
        case "list_value":
            return [_plain(each) for each in value.list_value.values]
    return None


# ---- making encoders ------------------------------------------------------------------------------------------------

_ENCODERS: dict[tuple[type, str], _Encode] = {}
_DECODERS: dict[tuple[type, str], _Decode] = {}


def _encoder(cls: type, message: type[Message]) -> _Encode:
    key = (cls, message.DESCRIPTOR.full_name)
    if key not in _ENCODERS:
        _ENCODERS[key] = _make_encoder(cls, message)
    return _ENCODERS[key]


def _make_encoder(cls: type, message: type[Message]) -> _Encode:
    descriptor, hints = message.DESCRIPTOR, typing.get_type_hints(cls)
    plain: list[tuple[str, _Encode | None]] = []
    unions: list[str] = []
    for field in dataclasses.fields(cls):
        if field.name in descriptor.oneofs_by_name:
            unions.append(field.name)
        elif field.name in descriptor.fields_by_name:
            plain.append((field.name, _value_encoder(hints[field.name], descriptor.fields_by_name[field.name])))

    members = {
        name: _class_of(each.message_type) for name, each in descriptor.fields_by_name.items() if each.message_type
    }

    def encode(value: Any) -> Message:
        arguments = {}
        for name, each in plain:
            part = getattr(value, name)
            if part is not None:
                arguments[name] = part if each is None else each(part)
        for name in unions:
            part = getattr(value, name)
            arguments[part.kind] = _encoder(type(part), members[part.kind])(part)
        return message(**arguments)

    return encode


def _value_encoder(hint: Any, field: Any) -> _Encode | None:
    """None: the value goes as it is."""
    if field.message_type is None:
        return list if field.is_repeated else None
    if field.message_type.full_name == Struct.DESCRIPTOR.full_name:
        return to_struct
    if field.message_type.GetOptions().map_entry:
        return dict
    message = _class_of(field.message_type)
    cls = _element(_unwrap(hint)) if field.is_repeated else _unwrap(hint)
    if field.is_repeated:
        return lambda values: [_encoder(cls, message)(each) for each in values]
    return lambda value: _encoder(cls, message)(value)


# ---- making decoders ------------------------------------------------------------------------------------------------


def _decoder(cls: type, descriptor: Any) -> _Decode:
    key = (cls, descriptor.full_name)
    if key not in _DECODERS:
        _DECODERS[key] = _make_decoder(cls, descriptor)
    return _DECODERS[key]


def _make_decoder(cls: type, descriptor: Any) -> _Decode:
    hints = typing.get_type_hints(cls)
    always: list[tuple[str, _Decode | None]] = []
    present: list[tuple[str, _Decode | None, Any]] = []
    unions: list[tuple[str, dict[str, _Decode]]] = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if field.name in descriptor.oneofs_by_name:
            unions.append((field.name, _members(hint, descriptor)))
            continue
        wire = descriptor.fields_by_name.get(field.name)
        if wire is None:
            continue
        decode = _value_decoder(hint, wire)
        if wire.has_presence:
            present.append((field.name, decode, None if _optional(hint) else _MISSING))
        else:
            always.append((field.name, decode))

    def decode_message(message: Any) -> Any:
        arguments: dict[str, Any] = {}
        for name, decode in always:
            part = getattr(message, name)
            arguments[name] = part if decode is None else decode(part)
        for name, decode, absent in present:
            if message.HasField(name):
                part = getattr(message, name)
                arguments[name] = part if decode is None else decode(part)
            elif absent is not _MISSING:
                arguments[name] = absent
        for name, members in unions:
            arguments[name] = _decode_member(message, name, members)
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ValueError(f"{descriptor.full_name} without what {cls.__name__} needs: {error}") from error

    return decode_message


def _decode_member(message: Any, union: str, members: Mapping[str, _Decode]) -> Any:
    chosen = message.WhichOneof(union)
    if chosen is None:
        raise ValueError(f"{message.DESCRIPTOR.full_name}: `{union}` is empty or of a kind unknown to this version")
    return members[chosen](getattr(message, chosen))


def _members(hint: Any, descriptor: Any) -> dict[str, _Decode]:
    members = {}
    for cls in typing.get_args(hint):
        kind = typing.get_args(typing.get_type_hints(cls)["kind"])[0]
        members[kind] = _decoder(cls, descriptor.fields_by_name[kind].message_type)
    return members


def _value_decoder(hint: Any, field: Any) -> _Decode | None:
    """None: the value goes as it is."""
    inner = _unwrap(hint)
    if field.message_type is None:
        if field.is_repeated:
            return tuple
        return inner if isinstance(inner, type) and issubclass(inner, enum.Enum) else None
    if field.message_type.full_name == Struct.DESCRIPTOR.full_name:
        return from_struct
    if field.message_type.GetOptions().map_entry:
        key = typing.get_args(inner)[0]
        return dict if key is str else lambda part: {key(name): value for name, value in part.items()}
    descriptor = field.message_type
    cls = _element(inner) if field.is_repeated else inner
    if field.is_repeated:
        return lambda parts: tuple(_decoder(cls, descriptor)(each) for each in parts)
    return lambda part: _decoder(cls, descriptor)(part)


# ---- type hints -----------------------------------------------------------------------------------------------------


def _optional(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)


def _unwrap(hint: Any) -> Any:
    """`T` of `T | None`."""
    if _optional(hint):
        return next(each for each in typing.get_args(hint) if each is not type(None))
    return hint


def _element(hint: Any) -> Any:
    """`T` of `tuple[T, ...]`."""
    return typing.get_args(hint)[0]


def _class_of(descriptor: Any) -> type[Message]:
    return GetMessageClass(descriptor)
