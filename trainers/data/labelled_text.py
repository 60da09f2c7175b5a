"""Texts with a label each: a user's own in JSONL or CSV, or passages of the standard library's help."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.data.passages import labelled_passages
from trainers.data.sources import PYDOC_TOPICS, existing_file
from trainers.errors import BadConfig

_PATH = "data.source"


@dataclass(frozen=True)
class LabelledText:
    """Texts, none of them empty, and a label for each."""

    texts: Sequence[str]
    labels: Sequence[str]


def read_labelled_text(source: str) -> LabelledText:
    """`text://pydoc_topics`, or a .jsonl or .csv file (UTF-8) with `text` and `label`. Raises BadConfig."""
    if source == PYDOC_TOPICS:
        return LabelledText(*map(list, zip(*labelled_passages(), strict=True)))
    suffix = Path(source).suffix
    if suffix not in _READERS:
        raise BadConfig(_PATH, source, f"must be {PYDOC_TOPICS}, or a .jsonl or .csv file with text and label")
    path = existing_file(source)
    try:
        pairs = [_pair(row, where, source) for where, row in _READERS[suffix](path)]
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise BadConfig(_PATH, source, f"must be a UTF-8 {suffix} file: {error}") from error
    if not pairs:
        raise BadConfig(_PATH, source, "holds no text")
    return LabelledText(*map(list, zip(*pairs, strict=True)))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", json.loads(line)


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, strict=True), start=1):
            yield f"row {number}", row


_READERS = {".jsonl": _json_lines, ".csv": _csv_rows}


def _pair(row: Any, where: str, source: str) -> tuple[str, str]:
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"]:
        raise BadConfig(_PATH, source, f"{where} must have a text that is not empty")
    label = row.get("label")
    if not isinstance(label, str | int) or label == "":
        raise BadConfig(_PATH, source, f"{where} must have a label: a word or a whole number")
    return row["text"], str(label)
