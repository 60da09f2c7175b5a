"""January's model of the flights from New York (flights.yaml), judged by month over the whole year.

    python deploy/examples/flights_by_month.py CHECKPOINT      a sealed checkpoint's directory

The further a month is from January, the less its flights look like what the model learned: drift that nobody made up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from sklearn.metrics import roc_auc_score

from trainers.contract import MANIFEST_NAME, Manifest
from trainers.data.flights import all_flights, known_before_departure
from trainers.data.preparing.transform import Fitted, apply
from trainers.models.tabular import TabularMlp
from trainers.weights_only import read_file


class JanuarysModel:
    """The network of a checkpoint of the recipe `tabular`, with the preparation that it was trained with."""

    def __init__(self, checkpoint: Path) -> None:
        notes = Manifest.from_json((checkpoint / MANIFEST_NAME).read_text()).extra["notes"]
        self._fitted = Fitted.from_json(notes["preparation"])
        self._network = TabularMlp(**notes["network"]).eval()
        self._network.load_state_dict(read_file(checkpoint / "mp_rank_00_model_states.pt", "cpu")["module"])

    def chances(self, table: pa.Table) -> npt.NDArray[np.float32]:
        """[n]: how likely each flight is to be late."""
        arrays = apply(table, self._fitted)
        numbers, categories = torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["categories"]).long()
        with torch.no_grad():
            logits = self._network(numbers, categories, torch.zeros(len(numbers)))
        chances: npt.NDArray[np.float32] = logits.softmax(dim=1)[:, 1].numpy()
        return chances


def by_month(chances: Callable[[pa.Table], npt.NDArray[np.floating]]) -> dict[int, tuple[int, float, float]]:
    """For each month: flights, the share of them that was late, and the area under the ROC curve of `chances`."""
    judged = {}
    for month, flights in all_flights().groupby("month"):
        known = known_before_departure(flights)
        late = known["delayed"].to_numpy()
        area = float(roc_auc_score(late, chances(pa.Table.from_pandas(known, preserve_index=False))))
        judged[int(month)] = (len(known), float(late.mean()), area)
    return judged


if __name__ == "__main__":
    print("month  flights   late    AUC")
    for month, (flights, late, area) in by_month(JanuarysModel(Path(sys.argv[1])).chances).items():
        print(f"{month:5}  {flights:7}  {late:5.1%}  {area:.3f}")
