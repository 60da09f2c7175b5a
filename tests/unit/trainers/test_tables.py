"""Every kind of source as the same tables, and what is said of files that are broken."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest
from PIL import Image
from safetensors.numpy import save_file

from trainers.data.reading import formats
from trainers.data.reading.tables import fragments, read_table, stream
from trainers.errors import BadConfig

ROWS = {"age": [31, 47, 25, 62], "name": ["Ada", "Bob", None, "Dan"], "paid": [1.5, 2.0, None, 4.25]}
TABLE = pa.table(ROWS)
IMAGES = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)


def write_csv(path: Path) -> None:
    pyarrow.csv.write_csv(TABLE, path)


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()))


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(TABLE, path, row_group_size=3)


def write_arrow_file(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=3)


def write_arrow_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("people.csv", write_csv),
        ("people.jsonl", write_jsonl),
        ("people.parquet", write_parquet),
        ("people.arrow", write_arrow_file),
        ("people.ipc", write_arrow_stream),
    ],
)
def test_tables_of_every_format_are_the_same(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / name)
    assert read_table(str(tmp_path / name)).to_pydict() == ROWS
    assert read_table(f"file://{tmp_path}/peop*").to_pydict() == ROWS
    assert read_table(str(tmp_path)).to_pydict() == ROWS


def test_many_files_are_one_source_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("x,y\n3,c\n")
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2.5,b\n")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.csv").write_text("not,this")
    assert read_table(f"{tmp_path}/*.csv").to_pydict() == {"x": [1.0, 2.5, 3.0], "y": ["a", "b", "c"]}
    assert read_table(str(tmp_path)).num_rows == 3


def test_compressed_files_and_other_file_systems_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "some.csv.gz", "wt") as file:
        file.write("x\n1\n2\n")
    assert read_table(str(tmp_path / "some.csv.gz")).to_pydict() == {"x": [1, 2]}
    import fsspec

    with fsspec.open("memory://tables/some.parquet", "wb") as stream_:
        pyarrow.parquet.write_table(TABLE, stream_)
    assert read_table("memory://tables/*.parquet").to_pydict() == ROWS


def test_a_parquet_file_is_cut_at_its_row_groups(tmp_path: Path) -> None:
    write_parquet(tmp_path / "people.parquet")
    pieces = fragments(str(tmp_path / "people.parquet"))
    assert [(each.part, each.first_row) for each in pieces] == [(0, 0), (1, 3)]
    assert [sum(table.num_rows for table in stream(each)) for each in pieces] == [3, 1]


def test_a_csv_file_is_streamed_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_BLOCK_BYTES", 200)
    (tmp_path / "long.csv").write_text("x\n" + "\n".join(map(str, range(1000))))
    (piece,) = fragments(str(tmp_path / "long.csv"))
    tables = list(stream(piece))
    assert len(tables) > 10
    assert [x for table in tables for x in table["x"].to_pylist()] == list(range(1000))


def test_declared_types_are_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "zip.csv").write_text("code,at\n01234,2013-01-01T05:00:00\n")
    table = read_table(str(tmp_path / "zip.csv"), {"code": "string", "at": "time"})
    assert table["code"].to_pylist() == ["01234"]
    assert pa.types.is_timestamp(table["at"].type)


def test_arrays_become_columns_and_tensors(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=IMAGES, y=np.arange(4))
    save_file({"x": IMAGES, "y": np.arange(4)}, tmp_path / "some.safetensors")
    for name in ("some.npz", "some.safetensors"):
        table = read_table(str(tmp_path / name))
        assert table["y"].to_pylist() == [0, 1, 2, 3]
        assert np.array_equal(table["x"].chunk(0).to_numpy_ndarray(), IMAGES)


def test_lines_of_text_are_rows(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_bytes("grüße\r\n\nlast".encode())
    assert read_table(str(tmp_path / "some.txt")).to_pydict() == {"text": ["grüße", "", "last"]}


def test_folders_of_images_are_classes(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / label / "1.png")
    table = read_table(str(tmp_path))
    assert table["label"].to_pylist() == ["cat", "dog"]
    assert table["image"][0].as_py().startswith(b"\x89PNG")


def test_a_saved_hugging_face_data_set_is_read(tmp_path: Path) -> None:
    train = tmp_path / "train"
    train.mkdir()
    write_arrow_stream(train / "data-00000-of-00001.arrow")
    (train / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (train / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert read_table(str(train)).to_pydict() == ROWS
    with pytest.raises(BadConfig, match=r"name one of them, such as .*/train"):
        read_table(str(tmp_path))


def test_encodings_of_the_same_values_are_one(tmp_path: Path) -> None:
    images = pa.array(
        [{"bytes": b"one", "path": "a.png"}, None], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    names = pa.array(["Ada", "Ada"]).dictionary_encode()
    table = pa.table({"image": images, "name": names, "long": pa.array(["x", "y"], pa.large_string())})
    pyarrow.parquet.write_table(table, tmp_path / "some.parquet")
    read = read_table(str(tmp_path / "some.parquet"))
    assert read["image"].to_pylist() == [b"one", None]
    assert [str(read[name].type) for name in ("image", "name", "long")] == ["binary", "string", "string"]


@pytest.mark.parametrize(("name", "rows"), [("wine", 178), ("breast_cancer", 569), ("iris", 150), ("diabetes", 442)])
def test_scikit_learns_data_sets_are_tables(name: str, rows: int) -> None:
    table = read_table(f"sklearn://{name}")
    assert table.num_rows == rows
    assert table.column_names[-1] == "target"


def broken(directory: Path) -> dict[str, tuple[str, str]]:
    """Files that cannot be read, by name: what to ask for, and what must be said."""
    files: dict[str, Any] = {
        "torn.parquet": b"PAR1 and no more",
        "torn.arrow": b"ARROW1 and no more",
        "torn.npz": b"PK\x03\x04 and no more",
        "torn.safetensors": b"\xff" * 20,
        "bad.jsonl": b'{"x": 1}\n{"x": \n',
        "ragged.csv": b"x,y\n1,2\n3\n",
        "empty.csv": b"",
        "bad.txt": b"fine\n\xff\xfe\n",
        "odd.xyz": b"?",
    }
    for name, body in files.items():
        (directory / name).write_bytes(body)
    np.savez(directory / "lengths.npz", x=np.ones((3, 2)), y=np.ones(4))
    np.savez(directory / "pickle.npz", x=np.array([{}], dtype=object))
    said = {
        **dict.fromkeys(files, "cannot read it"),
        "ragged.csv": "Expected 2 columns, got 1",
        "bad.txt": "row 1: must be UTF-8",
        "odd.xyz": "files of one kind",
        "lengths.npz": "one first dimension",
        "pickle.npz": "allow_pickle",
        "absent.csv": "no such file",
    }
    return {str(directory / name): (str(directory / name), words) for name, words in said.items()}


def test_a_file_that_cannot_be_read_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    for source, (named, words) in broken(tmp_path).items():
        with pytest.raises(BadConfig) as refused:
            read_table(source)
        assert named in str(refused.value), source
        assert words in str(refused.value), source


def test_a_damaged_row_group_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    pyarrow.parquet.write_table(pa.table({"x": np.random.default_rng(0).random(5000)}), path, compression="gzip")
    body = bytearray(path.read_bytes())
    body[2000:2400] = b"\0" * 400
    path.write_bytes(body)
    with pytest.raises(BadConfig, match=r"people\.parquet.*cannot read it"):
        read_table(str(path))


def test_values_of_another_type_than_the_first_block_say_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_BLOCK_BYTES", 64)
    (tmp_path / "late.csv").write_text("x\n" + "1\n" * 100 + "one\n")
    with pytest.raises(BadConfig, match=r"late\.csv.*Row #102.*one"):
        read_table(str(tmp_path / "late.csv"))


def test_kinds_are_not_mixed_and_unknown_scikit_learn_names_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv")
    write_jsonl(tmp_path / "b.jsonl")
    with pytest.raises(BadConfig, match="files of one kind"):
        read_table(str(tmp_path))
    with pytest.raises(BadConfig, match="sklearn://wine"):
        read_table("sklearn://boston")
