"""Tables whose rows are to be classified, and how their columns become tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainers.config import Data
from trainers.data.checks import check_finite
from trainers.data.flights import FLIGHTS, read_flights
from trainers.data.loader import Tensors
from trainers.data.sampler import Indices
from trainers.data.sources import existing_file, sklearn_file
from trainers.errors import BadConfig

BREAST_CANCER, WINE = "sklearn://breast_cancer", "sklearn://wine"
_PATH = "data.source"
_TUMOUR = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points", "symmetry",
    "fractal_dimension",
)  # fmt: skip
_WINE = (
    "alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids",
    "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280_od315", "proline",
)  # fmt: skip
_SKLEARN = {
    BREAST_CANCER: ("breast_cancer.csv", [f"{of}_{each}" for of in ("mean", "error", "worst") for each in _TUMOUR]),
    WINE: ("wine_data.csv", list(_WINE)),
}


@dataclass(frozen=True)
class Table:
    """Columns of n rows by name, and the class of each row."""

    numbers: Mapping[str, npt.NDArray[np.float64]]
    categories: Mapping[str, npt.NDArray[Any]]  # of str
    targets: npt.NDArray[np.int64]
    labels: Sequence[str]  # of the classes

    def __len__(self) -> int:
        return len(self.targets)


def read_table(source: str, target: str) -> Table:
    """Tumours, wines, flights (see `trainers.data.flights`), or a .csv or .parquet file whose column `target` is what to
    predict. Raises BadConfig."""
    if source in _SKLEARN:
        return _sklearn(source, *_SKLEARN[source])
    if source.startswith(FLIGHTS):
        return table_of(read_flights(source), "delayed", source)
    suffix = Path(source).suffix
    if suffix not in (".csv", ".parquet"):
        known = ", ".join((*_SKLEARN, FLIGHTS))
        raise BadConfig(_PATH, source, f"must be {known}, or a .csv or .parquet file")
    return table_of(_read_file(existing_file(source)), target, source)


@dataclass(frozen=True)
class Encoding:
    """How columns become tensors. Fitted on the training part alone, and kept in every checkpoint."""

    means: Mapping[str, float]  # by column of numbers
    deviations: Mapping[str, float]
    values: Mapping[str, Sequence[str]]  # by column of categories; id 0 is for what training never saw

    @classmethod
    def fit(cls, table: Table, rows: Indices) -> Encoding:
        """From the given rows: the mean and standard deviation of numbers, the values of categories."""
        numbers = {name: column[rows] for name, column in table.numbers.items()}
        return cls(
            means={name: float(column.mean()) for name, column in numbers.items()},
            deviations={name: float(column.std()) or 1.0 for name, column in numbers.items()},
            values={name: np.unique(column[rows]).tolist() for name, column in table.categories.items()},
        )

    @property
    def sizes(self) -> list[int]:
        """How many ids each category has."""
        return [1 + len(each) for each in self.values.values()]

    def encode(self, table: Table, rows: Indices) -> Tensors:
        """`numbers` float32 [n, numbers], `categories` int64 [n, categories], `targets` int64 [n]."""
        scaled = [(table.numbers[name][rows] - mean) / self.deviations[name] for name, mean in self.means.items()]
        ids = [_ids(table.categories[name][rows], values) for name, values in self.values.items()]
        return Tensors(
            {
                "numbers": torch.from_numpy(_columns(scaled, len(rows)).astype(np.float32)),
                "categories": torch.from_numpy(_columns(ids, len(rows)).astype(np.int64)),
                "targets": torch.from_numpy(table.targets[rows]),
            }
        )


def check_table(table: Table, data: Data) -> None:
    """Raises BadConfig when a number is NaN or infinite."""
    for name, column in table.numbers.items():
        check_finite(column, data, f"column {name}")


def _columns(columns: Sequence[npt.NDArray[Any]], rows: int) -> npt.NDArray[Any]:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0))


def _ids(column: npt.NDArray[Any], values: Sequence[str]) -> npt.NDArray[np.int64]:
    known = np.array(values)
    places = np.searchsorted(known, column).clip(max=len(known) - 1)
    return np.where(known[places] == column, places + 1, 0)


def _sklearn(source: str, name: str, columns: Sequence[str]) -> Table:
    path = sklearn_file(source, name)
    with path.open() as file:
        labels = file.readline().strip().split(",")[2:]  # after the numbers of rows and of columns
        values = np.loadtxt(file, delimiter=",")
    numbers = {each: values[:, index] for index, each in enumerate(columns)}
    return Table(numbers, {}, values[:, -1].astype(np.int64), labels)


def _read_file(path: Path) -> Any:
    import pandas  # after the fork: it starts threads

    try:
        return pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own are among the latter
        raise BadConfig(_PATH, str(path), f"cannot be read as a {path.suffix} file: {error}") from error


def table_of(frame: Any, target: str, source: str) -> Table:
    """From a pandas data frame; text, flags and whatever is no number are categories. Raises BadConfig."""
    import pandas

    if target not in frame.columns:
        raise BadConfig("model.target", target, f"must be a column of {source}: one of {', '.join(frame.columns)}")
    if frame[target].isna().any():
        row = int(frame[target].isna().to_numpy().argmax())
        raise BadConfig(_PATH, source, f"row {row} (counted from 0) has no {target}: leave such rows out")
    labels, targets = np.unique(frame[target].astype(str).to_numpy(dtype=str), return_inverse=True)
    numbers, categories = {}, {}
    for name in frame.columns.drop(target):
        column = frame[name]
        if pandas.api.types.is_numeric_dtype(column) and not pandas.api.types.is_bool_dtype(column):
            numbers[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            categories[name] = column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=str)
    return Table(numbers, categories, targets.astype(np.int64), labels.tolist())
