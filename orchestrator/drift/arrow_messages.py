"""What pyarrow does not tell of the messages of an Arrow IPC stream before it has read them: whether they are compressed.

A few megabytes can be compressed so that they fill any memory, and a reader allocates what they claim. So who reads a
stranger's bytes looks first. A message's head is a flatbuffer; the fields are those of Arrow's `format/Message.fbs`.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # of the union MessageHeader
_HEADER_TYPE, _HEADER = 1, 2  # fields of Message
_DATA = 1  # field of DictionaryBatch
_COMPRESSION = 3  # field of RecordBatch


def is_compressed(data: bytes) -> bool:
    """Of any message in the stream. Raises pyarrow's errors for what is no stream: their heads are verified."""
    return any(_compressed(message.metadata.to_pybytes()) for message in _messages(data))


def _messages(data: bytes) -> Any:
    return iter(pa.ipc.MessageReader.open_stream(data))


def _compressed(head: bytes) -> bool:
    (message,) = struct.unpack_from("<I", head)
    kind = _field(head, message, _HEADER_TYPE)
    batch = _table(head, message, _HEADER)
    if kind is None or batch is None:
        return False
    if head[kind] == _DICTIONARY_BATCH:
        batch = _table(head, batch, _DATA)
    elif head[kind] != _RECORD_BATCH:
        return False
    return batch is not None and _field(head, batch, _COMPRESSION) is not None


def _table(head: bytes, table: int, number: int) -> int | None:
    """Where the table begins that a field of another one refers to."""
    place = _field(head, table, number)
    if place is None:
        return None
    (distance,) = struct.unpack_from("<I", head, place)
    return place + int(distance)


def _field(head: bytes, table: int, number: int) -> int | None:
    """Where a field's value stands; None where it is left out."""
    (back,) = struct.unpack_from("<i", head, table)
    size, entry = struct.unpack_from("<H", head, table - back)[0], 4 + 2 * number
    if entry >= size:
        return None
    (distance,) = struct.unpack_from("<H", head, table - back + entry)
    return table + int(distance) if distance else None
