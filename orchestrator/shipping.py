"""What a client does with a run file before it submits: overrides put in, and what lies on its disk made to travel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from orchestrator import bundle, spec
from orchestrator.bundle import Packed
from orchestrator.errors import InvalidSpec, Problem, Refused

_ENVIRONMENT = "env."


class Misused(Refused):
    """The call itself is wrong: a run file that is not there, a change that is none. Nothing was looked at or sent."""


@dataclass(frozen=True)
class Shipment:
    """A run file that needs nothing of the client's disk any more."""

    text: str  # JSON
    code: Packed | None  # to be uploaded before the run is submitted

    @property
    def bundle(self) -> bytes | None:
        return self.code.data if self.code is not None else None


Pack = Callable[[Path], Packed]


def prepare(path: Path, overrides: Mapping[str, Any] | None = None, pack: Pack = bundle.pack) -> Shipment:
    """Read a run file, put in `overrides` (dotted path: value), inline `deepspeed: FILE` and pack `code: DIRECTORY`.

    Relative paths are relative to the run file. Raises Misused, InvalidSpec, and what `bundle.pack` raises.
    """
    return prepare_document(spec.read_mapping(_read(path), source=str(path)), path.parent, str(path), overrides, pack)


def prepare_document(
    document: dict[str, Any],
    base: Path,
    source: str,
    overrides: Mapping[str, Any] | None = None,
    pack: Pack = bundle.pack,
) -> Shipment:
    """As `prepare`, of a run file that has been read; relative paths are relative to `base`. Changes `document`."""
    for key, value in (overrides or {}).items():
        _put(document, key, value)
    absent: list[Problem] = []
    if isinstance(document.get("deepspeed"), str):
        with _beside_all_else(absent, document, "deepspeed"):
            document["deepspeed"] = _deepspeed(base / document["deepspeed"])
    packed = None
    with _beside_all_else(absent, document, "code"):
        packed = _code(document, base, pack)
    if packed is not None:
        document["code"] = spec.BUNDLE_PREFIX + hashlib.sha256(packed.data).hexdigest()
    text = json.dumps(document)
    with _beside_all_else(absent):
        spec.parse(text, source=source)
    if absent:
        raise InvalidSpec(absent)
    return Shipment(text, packed)


def parse_override(text: str) -> tuple[str, Any]:
    """`train.lr=1e-2` as path and value; the value is read as in a run file. Raises Misused.

    Environment is text: `env.DEBUG=1` means "1", as it does in every shell, and quotes are needed only to keep quotes.
    """
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise Misused(f"--set {text}: must be KEY=VALUE, such as train.lr=1e-2")
    if key.startswith(_ENVIRONMENT) and not value.startswith(("'", '"')):
        return key, value
    try:
        return key, spec.read_mapping(f"value: {value}", source=f"--set {text}")["value"]
    except InvalidSpec as error:
        raise Misused(str(error)) from None


@contextmanager
def _beside_all_else(problems: list[Problem], document: dict[str, Any] | None = None, key: str = "") -> Iterator[None]:
    """Adds what is wrong to `problems`, to be told with the others; the key of which that was told is taken out."""
    try:
        yield
    except InvalidSpec as error:
        problems += error.problems
        if document is not None:
            document.pop(key, None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Misused(f"no run file {path}") from None
    except OSError as error:
        raise Misused(f"{path} cannot be read as a run file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{path} cannot be read as a run file: {error}") from error


def _put(document: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    place: Any = document
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise Misused(f"--set {key}: {section} is not a section of the run file")
    place[last] = value


def _deepspeed(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InvalidSpec(
            [Problem("deepspeed", str(path), "is not there: it must be a JSON file or a mapping")]
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidSpec([Problem("deepspeed", str(path), f"cannot be read as JSON: {error}")]) from error


def _code(document: Mapping[str, Any], base: Path, pack: Pack) -> Packed | None:
    """None where there is nothing to pack. A relative script without `code` brings the directory of the run file."""
    code, script = document.get("code"), document.get("script")
    if code is None and isinstance(script, str) and not PurePath(script).is_absolute():
        code = "."
    if not isinstance(code, str) or code.startswith(spec.BUNDLE_PREFIX):
        return None
    directory = base / code
    if not directory.is_dir():
        raise InvalidSpec(
            [Problem("code", code, f"{directory} is not a directory: name one, relative to the run file")]
        )
    if isinstance(script, str) and not (directory / script).is_file():
        raise InvalidSpec([Problem("script", script, f"is not a file below {directory}")])
    return pack(directory)
