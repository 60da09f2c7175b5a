"""Read what ranks print, line by line, without ever making a rank wait.

A pipe is emptied whenever it holds something. What is too much is dropped here, and a line in its place says how much.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainers import contract

LINE_BYTES = 16 * 1024
LINES_PER_S = 2_000
BURST_LINES = 10_000
STATE_INTERVAL_S = 1.0  # between two states of a line that its writer overwrites, as progress bars do
_READ_BYTES = 256 * 1024
_SHORTEST_SECRET = 4
# A phase is a word of the contract, a checkpoint's or a trace's address begins with what the server said, an id is the
# asker's: a secret may be part of them by chance, and what names a thing must name it to the end.
_NOT_THE_RANKS_WORDS = {"phase", "checkpoint", "trace", "id"}

TakeLines = Callable[[Sequence[str]], None]


class Redactor:
    """Replaces the values of secrets. Values shorter than four characters would redact half of every line: they stay."""

    def __init__(self, secrets: Sequence[str]) -> None:
        whole = {part.strip() for value in secrets for part in (value, *value.splitlines())}
        # A traceback or a JSON line shows a value as it would be written in a program.
        parts = {form for part in whole for form in (part, repr(part)[1:-1], json.dumps(part)[1:-1])}
        self._parts = sorted((part for part in parts if len(part) >= _SHORTEST_SECRET), key=len, reverse=True)

    @property
    def longest(self) -> int:
        return max((len(part.encode()) for part in self._parts), default=0)

    def __call__(self, text: str) -> str:
        for part in self._parts:
            text = text.replace(part, "***")
        return text


def redact_message(message: contract.Message, redact: Redactor) -> contract.Message:
    """The message without secrets, in whatever text of it: an exception's words may quote one."""
    redacted: contract.Message = _redacted(message, redact)
    return redacted


def _redacted(value: Any, redact: Redactor) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): _redacted(each, redact) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_redacted(each, redact) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = {each.name for each in dataclasses.fields(value)} - _NOT_THE_RANKS_WORDS
        return dataclasses.replace(value, **{name: _redacted(getattr(value, name), redact) for name in names})
    return value


class LineSplitter:
    """Bytes in, whole redacted lines out, none longer than `LINE_BYTES`.

    A carriage return goes back to the line's beginning: of the states that are overwritten so, the newest is a line
    about once a second, and the last one is what the line ends as.
    """

    def __init__(self, redact: Redactor, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._redact = redact
        self._clock_s = clock_s
        self._buffer = b""
        self._skipping = False  # the rest of a line that was too long
        self._state_at_s = -STATE_INTERVAL_S  # when the last overwritten state was passed on

    def feed(self, data: bytes) -> list[str]:
        *whole, self._buffer = (self._buffer + data).split(b"\n")
        lines = []
        for raw in whole:
            overwritten, last = _states(raw)
            if not self._skipping or overwritten:
                lines.append(self._text(last))
            self._skipping = False
        lines += self._overwritten()
        if self._skipping:
            self._buffer = b""
        # A secret that lies across the limit must still be whole when it is looked for.
        elif len(self._buffer) > LINE_BYTES + self._redact.longest:
            lines.append(self._text(self._buffer))
            self._buffer, self._skipping = b"", True
        return lines

    def rest(self) -> list[str]:
        """The last line, where it had no end."""
        raw, self._buffer = self._buffer, b""
        return [self._text(_states(raw)[1])] if raw and not self._skipping else []

    def _overwritten(self) -> list[str]:
        """The newest state of the unfinished line that another one has begun to overwrite, where it is time for one."""
        overwritten, last = _states(self._buffer)
        if not overwritten:
            return []
        if self._skipping:
            overwritten[0] = b""
            self._skipping = False
        end = b"\r" if self._buffer.endswith(b"\r") else b""  # the line's end may follow
        self._buffer = last + end
        state, now_s = overwritten[-1], self._clock_s()
        if not state.strip() or now_s - self._state_at_s < STATE_INTERVAL_S:
            return []
        self._state_at_s = now_s
        return [self._text(state)]

    def _text(self, raw: bytes) -> str:
        text = self._redact(raw.decode("utf-8", "backslashreplace"))
        if len(text) > LINE_BYTES:
            return f"{text[:LINE_BYTES]} [evertrain: line cut at {LINE_BYTES} bytes]"
        return text


def _states(raw: bytes) -> tuple[list[bytes], bytes]:
    """What the carriage returns in a line overwrote, and what it shows. One at its end has overwritten nothing yet."""
    *overwritten, last = raw.rstrip(b"\r").split(b"\r")
    return overwritten, last


class RateLimit:
    """A token bucket that counts what it turned away. `now_s` is monotonic."""

    def __init__(self, now_s: float, per_s: float = LINES_PER_S, burst: float = BURST_LINES) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens, self._at_s = burst, now_s
        self._dropped = 0

    def admit(self, lines: Sequence[str], now_s: float) -> list[str]:
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        room = int(self._tokens)
        if not lines or room == 0:
            self._dropped += len(lines)
            return []
        admitted = list(lines[:room])
        if self._dropped:
            admitted.insert(0, self._marker())
        self._dropped = len(lines) - room if len(lines) > room else 0
        self._tokens -= min(room, len(lines))
        return admitted

    def flush(self) -> list[str]:
        """The marker of what was dropped last, when no further line comes to carry it."""
        marker = [self._marker()] if self._dropped else []
        self._dropped = 0
        return marker

    def _marker(self) -> str:
        return f"[evertrain] {self._dropped} lines dropped: more than {self._per_s:g} lines a second"


class RankOutput:
    """One rank's standard output and error, joined in one pipe."""

    def __init__(self, redact: Redactor, take: TakeLines) -> None:
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._splitter = LineSplitter(redact)
        self._limit = RateLimit(time.monotonic())
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._loop.add_reader(self._read_fd, self._readable)

    def forked(self) -> None:
        """The rank holds its own end now: give up ours, or the pipe would never end."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        """Take what is there and stop. May be called again."""
        self.forked()
        if self._open:
            self._readable()
        if self._open:
            self._end()

    def _readable(self) -> None:
        try:
            data = os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end()
            return
        self._pass_on(self._splitter.feed(data))

    def _end(self) -> None:
        self._open = False
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)
        self._pass_on(self._splitter.rest())
        marker = self._limit.flush()
        if marker:
            self._take(marker)

    def _pass_on(self, lines: Sequence[str]) -> None:
        admitted = self._limit.admit(lines, time.monotonic()) if lines else []
        if admitted:
            self._take(admitted)
