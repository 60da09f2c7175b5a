"""Root file systems in layers, and commands in them, with the kernel's namespaces alone: what images and engines are made of.

The lowest layer is this machine's own root: a Debian with Python 3.11, as the base image of deploy/Dockerfile is. Needs root.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BASE = "/"


@dataclass(frozen=True)
class Mount:
    """One thing of this machine at `target` in the container: a file, a directory, or, with `options`, an empty tmpfs."""

    target: str
    source: Path | None = None
    read_only: bool = True
    options: str = ""


@dataclass(frozen=True)
class Image:
    """What a Dockerfile's stage leaves behind: its own layers, the newest first, and how its containers are started."""

    layers: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    beneath: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)  # what lies at a path instead of layers of it
    mounts: tuple[Mount, ...] = ()  # what is there in every container of it
    opened: tuple[
        Path, ...
    ] = ()  # directories of this machine that everybody may get to, also where they lie in a home


def why_not() -> str:
    """Why there cannot be such file systems here; empty where there can."""
    if os.geteuid() != 0:
        return "file systems in layers need root"
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            return f"file systems in layers need {program}"
    with tempfile.TemporaryDirectory() as directory:
        tried = subprocess.run(in_layers((), Path(directory), ["true"]), capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"file systems in layers are not permitted here: {tried.stderr.strip()}"


def in_layers(
    layers: Sequence[Path],
    box: Path,
    command: Sequence[str],
    *,
    upper: Path | None = None,
    mounts: Iterable[Mount] = (),
) -> list[str]:
    """`command` as root in the layers, with this machine's /proc, /sys and /dev. What it writes goes to `upper`, or nowhere.

    `box` is an empty directory for what is only there while the command runs; `upper` must not be on the machine's own disk.
    """
    lines = [*_root(layers, box, upper), *(line for each in mounts for line in _mount(each)), 'exec chroot . "$@"']
    return _alone(lines, command)


def in_container(
    image: Image, box: Path, command: Sequence[str], *, env: Mapping[str, str], user: str, mounts: Iterable[Mount]
) -> list[str]:
    """`command` as an engine starts it of a hardened service: without capabilities, on a root that cannot be written."""
    lines = _root(image.layers, box, None)
    lines += [f"chmod a+x .{parent}" for each in image.opened for parent in _closed_parents(each)]
    for target, sources in image.beneath.items():
        lower = ":".join(map(str, sources))
        lines += [f"mkdir -p .{target}", f"mount -t overlay overlay -o ro,lowerdir={lower} .{target}"]
    for each in sorted((*image.mounts, *mounts), key=lambda mount: mount.target.count("/")):
        lines += _mount(each)
    lines += [f"mkdir -p .{image.workdir}", "mount -o remount,ro .", 'exec chroot . "$@"']
    return _alone(lines, _as_user(image, command, env, user))


def in_running(pid: int, image: Image, command: Sequence[str], *, env: Mapping[str, str], user: str) -> list[str]:
    """`command` beside the first process of a running container, with what that one sees and may."""
    return ["nsenter", f"--target={pid}", "--mount", "--net", "--root", *_as_user(image, command, env, user)]


def _as_user(image: Image, command: Sequence[str], env: Mapping[str, str], user: str) -> list[str]:
    uid, _, gid = user.partition(":")
    rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]
    variables = [f"{name}={value}" for name, value in env.items()]
    start = ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", *rights, "--", "env", "-i", *variables]
    within = ["sh", "-c", f'cd {shlex.quote(image.workdir)} && exec "$@"', "sh"]
    return [*start, *within, *command]


def _alone(lines: Sequence[str], command: Sequence[str]) -> list[str]:
    return ["unshare", "--mount", "--propagation=private", "sh", "-euc", "\n".join(lines), "sh", *command]


def _root(layers: Sequence[Path], box: Path, upper: Path | None) -> list[str]:
    """Shell that leaves the merged root as the working directory."""
    work = f"{box}/work"
    lines = [f"mount -t tmpfs tmpfs {box}", f"mkdir {box}/upper {box}/work {box}/root"]
    if upper is not None:
        work = str(upper.with_name(f"{upper.name}.work"))
        lines.append(f"mkdir -p {work}")
    lower = ":".join([*map(str, layers), BASE])
    above = upper or f"{box}/upper"
    return [
        *lines,
        f"mount -t overlay overlay -o lowerdir={lower},upperdir={above},workdir={work} {box}/root",
        f"cd {box}/root",
        *(f"mount --rbind /{name} ./{name}" for name in ("proc", "sys", "dev")),
    ]


def _mount(each: Mount) -> list[str]:
    target = "." + shlex.quote(os.path.realpath(each.target))
    if each.source is None:
        return [f"mkdir -p {target}", f"mount -t tmpfs -o mode=1777{each.options} tmpfs {target}"]
    source = shlex.quote(str(each.source))
    if each.source.is_dir():
        made = f"mkdir -p {target}"
    else:
        made = f"mkdir -p $(dirname {target}); [ -e {target} ] || touch {target}"
    lines = [made]
    if not each.read_only and not any(each.source.iterdir()):
        # As an engine does with a new volume: it belongs to whom the image's directory belongs.
        lines += [f"chown --reference={target} {source}", f"chmod --reference={target} {source}"]
    lines.append(f"mount --bind {source} {target}")
    return [*lines, f"mount -o remount,bind,ro {target}"] if each.read_only else lines


def _closed_parents(path: Path) -> list[Path]:
    """Directories on the way to `path` that not everybody may pass."""
    return [each for each in (path, *path.parents) if not each.stat().st_mode & 0o001]
