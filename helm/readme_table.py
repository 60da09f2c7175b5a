"""The table of values in helm/evertrain/README.md, made from the `# --` comments of values.yaml.

python -m helm.readme_table            writes it
python -m helm.readme_table --check    exit code 1 where the README holds another one
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "evertrain"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
_MARK = "# -- "


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """(key, default as JSON, description) of each key that has a comment."""
    values = yaml.safe_load(text)
    path: list[tuple[int, str]] = []  # indentation and name
    said: list[str] | None = None
    for line in text.splitlines():
        stripped, indentation = line.strip(), len(line) - len(line.lstrip())
        if stripped.startswith(_MARK):
            said = [stripped.removeprefix(_MARK)]
        elif stripped.startswith("# ") and said is not None:
            said.append(stripped.removeprefix("# "))
        elif stripped and not stripped.startswith(("#", "- ")):
            path = [each for each in path if each[0] < indentation]
            path.append((indentation, stripped.partition(":")[0]))
            if said is not None:
                names = [name for _, name in path]
                yield ".".join(names), json.dumps(_at(values, names)), " ".join(said)
            said = None


def _at(values: Any, names: list[str]) -> Any:
    for name in names:
        values = values[name]
    return values


def table(text: str) -> str:
    lines = ["| key | default | what |", "|---|---|---|"]
    lines += [f"| `{key}` | `{default}` | {words.replace('|', '/')} |" for key, default, words in rows(text)]
    return "\n".join(lines)


def with_table(readme: str, text: str) -> str:
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(text)}\n{END}{tail}"


def main() -> int:
    readme = CHART / "README.md"
    found = readme.read_text()
    wanted = with_table(found, (CHART / "values.yaml").read_text())
    if "--check" in sys.argv[1:]:
        return int(found != wanted)
    readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
