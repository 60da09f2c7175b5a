"""deploy/Dockerfile, executed: its own instructions, stage by stage, into layers of a directory."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tests.deploy.layers import Image, Mount, in_layers

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Dockerfile").read_text()
_BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"  # of the base image, as of every Debian
_IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")  # .dockerignore's two patterns


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(INSTRUCTION, its words), continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, words = line.strip().partition(" ")
            yield name, words.strip()


def stages(text: str) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """By name: what the stage stands on, and its instructions."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for name, words in instructions(text):
        if name == "FROM":
            base, _, own = words.partition(" AS ")
            current: list[tuple[str, str]] = []
            found[own.strip()] = (base.strip(), current)
        elif found:
            current.append((name, words))
    return found


class Build:
    """The stages of one Dockerfile over one context. `outside` is the environment that instructions see beside their own:
    what a builder has of its own, such as where packages come from. `caches` are the directories of cache mounts by target.
    `given` are stages that are not built, with what a `COPY --from` of them finds, at its destination.
    """

    def __init__(
        self,
        text: str,
        context: Path,
        directory: Path,
        *,
        outside: Mapping[str, str],
        caches: Mapping[str, Path],
        given: Mapping[str, tuple[Path, ...]] | None = None,
    ) -> None:
        self._stages, self._context, self._directory = stages(text), context, directory
        self._outside, self._caches, self._given = outside, caches, given or {}
        self._images: dict[str, Image] = {}

    def image(self, name: str) -> Image:
        """Builds what the stage needs, each stage once. Raises AssertionError with what a failed instruction said."""
        if name not in self._images:
            base, steps = self._stages[name]
            below = self.image(base) if base in self._stages else Image(env={"PATH": _BASE_PATH})
            layer = self._directory / name
            layer.mkdir()
            image = replace(below, layers=(layer, *below.layers))
            for instruction, words in steps:
                image = self._step(image, layer, instruction, words)
            self._images[name] = image
        return self._images[name]

    def _step(self, image: Image, layer: Path, instruction: str, words: str) -> Image:
        match instruction:
            case "RUN":
                self._run(image, layer, words)
            case "COPY":
                return self._copy(image, layer, shlex.split(words))
            case "ENV":
                pairs = dict(word.split("=", 1) for word in shlex.split(words))
                return replace(image, env={**image.env, **pairs})
            case "WORKDIR":
                return replace(image, workdir=words)
            case "USER":
                return replace(image, user=words)
            case "VOLUME":
                return replace(image, volumes=(*image.volumes, words))
            case "ENTRYPOINT":
                return replace(image, entrypoint=tuple(json.loads(words)), command=())
            case "CMD":
                return replace(image, command=tuple(json.loads(words)))
            case "HEALTHCHECK":
                return replace(image, healthcheck=tuple(json.loads(words.partition("CMD ")[2])))
            case "ARG" | "EXPOSE":
                pass
            case _:
                raise ValueError(f"deploy/Dockerfile has an instruction that is not executed here: {instruction}")
        return image

    def _run(self, image: Image, layer: Path, words: str) -> None:
        caches: list[Mount] = []
        while found := re.match(r"--mount=type=cache,target=(\S+)\s+", words):
            caches.append(Mount(found[1], self._caches[found[1]], read_only=False))
            words = words[found.end() :]
        box = self._directory / f"{layer.name}.box"
        box.mkdir(exist_ok=True)
        variables = [f"{name}={value}" for name, value in {**self._outside, **image.env}.items()]
        command = ["env", "-i", *variables, "sh", "-euc", f"cd {shlex.quote(image.workdir)}\n{words}"]
        done = subprocess.run(
            in_layers(image.layers[1:], box, command, upper=layer, mounts=caches),
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"

    def _copy(self, image: Image, layer: Path, words: list[str]) -> Image:
        stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
        *sources, target = words
        if stage in self._given:
            return replace(image, beneath={**image.beneath, target: self._given[stage]})
        tree = self.image(stage).layers[0] if stage else self._context
        for source in sources:
            here = tree / source.lstrip("/")
            there = layer / os.path.join(image.workdir, target).lstrip("/")
            if here.is_dir():
                shutil.copytree(here, there, symlinks=True, dirs_exist_ok=True, ignore=None if stage else _IGNORED)
            else:
                there = there / here.name if target.endswith("/") else there
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(here, there)
        return image
