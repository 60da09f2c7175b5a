"""evidently's preset on columns of one file, by evidently's own Python: prints one JSON line.

    python evidently_drift.py FILE.npz REPORTS

The file holds `reference/NAME` and `current/NAME`; text columns are categories. The current rows are judged in so many
reports of equal size. Printed: CPU seconds of all reports, rows judged, and how many reports called at least
one column drifted.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset


def main() -> None:
    warnings.simplefilter("ignore")
    with np.load(sys.argv[1]) as file:
        frames = {
            side: pd.DataFrame({key.split("/", 1)[1]: file[key] for key in file if key.startswith(side)})
            for side in ("reference", "current")
        }
    reports = int(sys.argv[2])
    numbers = [name for name, kind in frames["reference"].dtypes.items() if kind.kind == "f"]
    words = [name for name in frames["reference"] if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=words)
    size, drifted = len(frames["current"]) // reports, 0
    begin = time.process_time()
    for number in range(reports):
        current = frames["current"].iloc[number * size : (number + 1) * size]
        sides = [Dataset.from_pandas(each, data_definition=definition) for each in (current, frames["reference"])]
        result = Report([DataDriftPreset()]).run(*sides).dict()
        drifted += result["metrics"][0]["value"]["count"] > 0
    print(json.dumps({"cpu_s": time.process_time() - begin, "rows": size * reports, "drifted": drifted}))


main()
