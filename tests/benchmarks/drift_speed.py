"""What watching costs: rows a CPU-second, memory, and merging what replicas send.

    python -m tests.benchmarks.drift_speed [--quick]

Twenty mixed columns (12 of numbers, 8 of texts as Python objects) go through the default univariate set: summaries of all
columns, then every test of every feature. Beside it: plain numpy's PSI of the same columns in one go, which needs all rows at
once, and evidently's preset on fewer rows, in a process of its own. All are rates of CPU time, so that other work on the
machine counts little; ours and numpy's take turns.

The wide table is 3 million rows of 200 columns, given to two processes in batches as a server would; the CPU seconds of both,
drawing the numbers not counted, are shared by two cores. Memory is the sum of both processes' peaks.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from orchestrator.drift.sketches import REFERENCE_K, Coded, Column, TableSummary
from orchestrator.drift.verdicts import History, Policy, judge
from orchestrator.drift.windows import Window
from tests.benchmarks.drift_streams import WORDS, part
from tests.benchmarks.harness import Figure, median, report
from tests.benchmarks.peers import evidently_venv

NUMBERS, CATEGORIES, BATCH = 12, 8, 50_000
REPLICAS = 1_000
WIDE_ROWS, WIDE_COLUMNS, WIDE_BATCH, CORES = 3_000_000, 200, 10_000, 2


def mixed(generator: np.random.Generator, rows: int) -> dict[str, Column]:
    columns: dict[str, Column] = {f"number {place}": generator.normal(size=rows) for place in range(NUMBERS)}
    words = np.array(WORDS, dtype=object)
    for place in range(CATEGORIES):
        columns[f"category {place}"] = words[generator.integers(0, len(WORDS), rows)]
    return columns


def watch(reference: TableSummary, columns: dict[str, Column], rows: int) -> None:
    table = TableSummary()
    for begin in range(0, rows, BATCH):
        table.update(part(columns, begin, min(rows, begin + BATCH)))
    judge(reference, [Window(0.0, 1.0, table)], History(), Policy())


def numpy_psi(reference: dict[str, Column], columns: dict[str, Column]) -> None:
    """The stability index alone, as it is usually written."""
    for name, known in reference.items():
        if name.startswith("number"):
            edges = np.quantile(known, np.linspace(0, 1, 11)[1:-1])
            q, p = (np.bincount(np.searchsorted(edges, each), minlength=10) for each in (known, columns[name]))
        else:
            words = sorted(set(known))
            q, p = (np.array([np.count_nonzero(each == word) for word in words]) for each in (known, columns[name]))
        shares = [(each + 0.5) / (each.sum() + 5) for each in (q, p)]
        float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def cpu_s(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def univariate(rows: int, pairs: int, evidently_rows: int) -> list[Figure]:
    generator = np.random.default_rng(0)
    known, columns = mixed(generator, 20_000), mixed(generator, rows)
    reference = TableSummary(k=REFERENCE_K)
    reference.update(known)
    ours, numpys = [], []
    for _ in range(pairs):
        ours.append(rows / cpu_s(lambda: watch(reference, columns, rows)))
        numpys.append(rows / cpu_s(lambda: numpy_psi(known, columns)))
    texts, live = ({name: _plain(each) for name, each in side.items()} for side in (known, columns))
    peer = evidently_venv.judge(texts, part(live, 0, evidently_rows), 1)
    rate, evidently = median(ours), peer["rows"] / peer["cpu_s"]
    return [
        Figure("20 mixed columns, ours", rate, "rows/CPU-s", 800_000, "higher"),
        Figure("numpy's PSI alone", median(numpys), "rows/CPU-s"),
        Figure("evidently's preset", evidently, "rows/CPU-s"),
        Figure("ours / numpy's PSI", median([mine / its for mine, its in zip(ours, numpys, strict=True)]), "x"),
        Figure("ours / evidently", rate / evidently, "x", 40, "higher"),
    ]


def _plain(column: Column) -> np.ndarray[Any, Any]:
    values = np.asarray(column)
    return values if values.dtype.kind == "f" else values.astype(str)


def merging(pairs: int) -> Figure:
    generator = np.random.default_rng(1)
    sent = []
    for _ in range(20):
        table = TableSummary()
        table.update(mixed(generator, 20_000))
        sent.append(table.to_bytes())

    def merge() -> None:
        fleet = TableSummary()
        for number in range(REPLICAS):
            fleet.merge(TableSummary.from_bytes(sent[number % len(sent)]))

    return Figure("1,000 replicas read and merged", median([cpu_s(merge) for _ in range(pairs)]), "CPU-s", 1.0)


def wide_share(seed: int, rows: int) -> tuple[float, int, bytes]:
    """CPU seconds without drawing, peak bytes, and the summary, of one process's share of the wide table."""
    generator, table, spent = np.random.default_rng(seed), TableSummary(), 0.0
    for _ in range(rows // WIDE_BATCH):
        columns: dict[str, Column] = {
            f"n{place}": generator.random(WIDE_BATCH) for place in range(WIDE_COLUMNS * 4 // 5)
        }
        for place in range(WIDE_COLUMNS // 5):
            columns[f"c{place}"] = Coded(generator.integers(0, len(WORDS), WIDE_BATCH), WORDS)
        begin = time.process_time()
        table.update(columns)
        spent += time.process_time() - begin
    return spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, table.to_bytes()


def wide(rows: int) -> list[Figure]:
    with ProcessPoolExecutor(CORES) as pool:
        shares = list(pool.map(wide_share, range(CORES), [rows // CORES] * CORES))
    whole = TableSummary()
    begin = time.process_time()
    for _, _, sent in shares:
        whole.merge(TableSummary.from_bytes(sent))
    spent = (sum(each[0] for each in shares) / CORES + time.process_time() - begin) * WIDE_ROWS / rows
    return [
        Figure("3 million rows of 200 columns on 2 cores", spent, "s", 120),
        Figure("memory of both processes", sum(each[1] for each in shares) / 2**20, "MiB", 400 * 1e6 / 2**20),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 pairs, and a tenth of the wide table, scaled up")
    quick = parser.parse_args().quick
    pairs = 3 if quick else 10
    figures = wide(WIDE_ROWS // 10 if quick else WIDE_ROWS)
    figures += univariate(500_000, pairs, 20_000 if quick else 100_000)
    report("drift_speed", [*figures, merging(pairs)])


if __name__ == "__main__":
    main()
