"""`python -m trainers.shadow CHECKPOINT --rows SOURCE --to FILE`: what a version would have said of another one's rows.

The rows are those that live traffic left (`orchestrator.Observer`, or a table of one's own): features under the names of the
training data, and in parentheses what is ours, of which `(request)`, `(time)`, `(label)` and the serving version's
`(prediction)` are carried over. The file, parquet, has a row for each:

    (request), (time), (label)      as they came, where they came; for want of a (label), the training data's label
    (served)                        what the serving version answered, where that came
    (prediction), (confidence)      what this one would have answered; null where the row makes no answer

On standard output: one line of JSON with the rows, in how many both agree, and how many of each were right.
Rows must be prepared to be understood, so this is for models on data made ready (`data/prepare.py`), classifiers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from trainers.config import Data, section
from trainers.contract import ExitCode
from trainers.data.prepared import Columns
from trainers.data.preparing import checks
from trainers.data.preparing.checks import Place
from trainers.data.preparing.transform import Fitted, apply
from trainers.data.reading.tables import read_table
from trainers.errors import BadConfig, StorageError, TrainerError
from trainers.explained_model import ExplainedModel, load
from trainers.tasks.classification import Classification

REQUEST, TIME, LABEL, PREDICTION, CONFIDENCE = "(request)", "(time)", "(label)", "(prediction)", "(confidence)"
SERVED = "(served)"
_AT_ONCE = 1024


def shadow(checkpoint: str, rows: str, code: str | None = None) -> pa.Table:
    """The table above, in the order of the rows.

    Raises StorageError for a damaged checkpoint, and BadConfig where the rows lack a column that the model takes, and for
    models that this is not for.
    """
    found = load(checkpoint, None, code)
    preparation = found.config["notes"].get("preparation")
    if not isinstance(found.task, Classification) or found.task.arranged is None or preparation is None:
        raise BadConfig(
            "checkpoint", checkpoint, "is no classifier on prepared data: only those know rows by their names"
        )
    data, fitted = section(Data, found.config["data"], "data"), Fitted.from_json(preparation)
    types = {name: rule.type for name, rule in data.columns.items() if rule.type}
    table = read_table(rows, types)
    predictions, confidence = _answers(found, found.task, _arrays(table, rows, data, fitted))
    answers: dict[str, Any] = {name: table[name] for name in (REQUEST, TIME, LABEL) if name in table.column_names}
    if LABEL not in answers and fitted.roles.label in table.column_names:
        answers[LABEL] = table[fitted.roles.label]
    if PREDICTION in table.column_names:
        answers[SERVED] = table[PREDICTION].cast(pa.string())
    unknown = ~np.isfinite(confidence)
    answers[PREDICTION] = pa.array(predictions, pa.string(), mask=unknown)
    answers[CONFIDENCE] = pa.array(confidence, pa.float64(), mask=unknown)
    return pa.table(answers)


def _arrays(table: pa.Table, rows: str, data: Data, fitted: Fitted) -> Columns:
    """The features of all rows as the model's own preparation makes them."""
    if missing := [each for each in fitted.roles.features if each not in table.column_names]:
        raise BadConfig("--rows", rows, f"lack {', '.join(missing)}, which the model takes")
    features = table.select(list(fitted.roles.features))
    declared = {name: rule for name, rule in data.columns.items() if name in features.column_names}
    typed, _ = checks.typed(features, Data(source=rows, columns=declared), Place(rows, 0, ()))
    arrays = apply(typed, fitted)
    none = np.zeros(table.num_rows, dtype=np.int32)  # a task arranges targets as well, which nobody knows here
    return Columns({name: torch.from_numpy(each) for name, each in {**arrays, "targets": none}.items()}, table.num_rows)


def _answers(
    found: ExplainedModel, task: Classification, prepared: Columns
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    assert task.arranged is not None
    examples = task.arranged(prepared)
    words = tuple(task.classes) or tuple(map(str, range(found.config["notes"]["classes"])))
    said, confidence = [np.empty(0, np.int64)], [np.empty(0)]
    with torch.no_grad():
        for start in range(0, len(examples), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(examples)))
            batch = {**examples.take(rows), "keys": torch.zeros(len(rows), dtype=torch.int64)}
            surest, which = task.predict(found.model, batch).max(dim=-1)
            said.append(which.numpy())
            confidence.append(surest.double().numpy())
    return [words[each] for each in np.concatenate(said).tolist()], np.concatenate(confidence)


def told(answers: pa.Table) -> dict[str, int]:
    """Counts: `rows`; `agree` of those `served`; `right` and `served_right` of those `labelled`."""
    counts = {"rows": answers.num_rows}
    ours = answers[PREDICTION]
    served = answers[SERVED] if SERVED in answers.column_names else None
    if served is not None:
        counts |= {"served": _count(pc.is_valid(served)), "agree": _count(pc.equal(ours, served))}
    if LABEL in answers.column_names:
        labels = answers[LABEL].cast(pa.string())
        counts |= {"labelled": _count(pc.is_valid(labels)), "right": _count(pc.equal(ours, labels))}
        if served is not None:
            counts["served_right"] = _count(pc.equal(served, labels))
    return counts


def _count(mask: Any) -> int:
    return int(pc.sum(mask).as_py() or 0)


def main(arguments: list[str]) -> int:
    """The exit code. What went wrong is told on standard error, in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m trainers.shadow", description="what a version would have said")
    parser.add_argument("checkpoint", help="its directory, or its URL")
    parser.add_argument("--rows", required=True, help="files or folders of rows, as a run file's data.source")
    parser.add_argument("--to", type=Path, required=True, help="the parquet file to write")
    parser.add_argument("--code", type=os.path.abspath, help="directory of an entrypoint's code")
    options = parser.parse_args(arguments)
    to = options.to.absolute()  # code may change the directory
    try:
        answers = shadow(options.checkpoint, options.rows, options.code)
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(answers, to)
        except OSError as error:
            raise StorageError(f"cannot write {to}: {error.strerror or error}") from error
    except TrainerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(told(answers)))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
