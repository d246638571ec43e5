"""Container images without a container engine: buildah builds them, a chroot runs them.

Debian's buildah, debootstrap and root are needed.  The base image is made once and kept in the
user's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from .processes import ROOT

SUITE = "bookworm"  # its python3 is 3.11, the oldest that the gateway runs on
_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_TOOLS = "/usr/sbin:/sbin"
_FROM_OUTSIDE = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_DEFAULT_TIMEOUT",
)  # fmt: skip

# Mounts of its own, what an engine mounts, the root file system read-only, then the image's user.
# Everything is exec'ed: signals to the process that is started go to the program itself.
_ENTER = """
root=$1 state=$2 config=$3 workdir=$4 user=$5; shift 5
mkdir -p "$root/etc/ocpp-gateway"
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$state" "$root$workdir"
mount --bind "$config" "$root/etc/ocpp-gateway"
mount -o remount,bind,ro "$root"
cd "$root"
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


@attrs.frozen
class Buildah:
    """storage: the folder of its images and containers."""

    storage: Path

    def __call__(self, *arguments: object) -> str:
        where = ("--root", self.storage / "store", "--runroot", self.storage / "run")
        return _run("buildah", *where, *arguments)


@attrs.frozen
class Image:
    """A built image, its file system unpacked.

    config: as the engines read it: User, Entrypoint, Cmd, Env, Healthcheck, ...
    base_mb, size_mb: of the image that it was built from, and of its own; packed as tar.
    """

    config: Mapping[str, Any]
    root: Path
    base_mb: float
    size_mb: float

    @property
    def uid(self) -> int:
        return int(self.config["User"].partition(":")[0])

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    def command(self, state: Path, config: Path, *program: object) -> list[str]:
        """What runs a program of the image, without its environment.

        state: the folder of its volume.  config: the folder that is its /etc/ocpp-gateway.
        """
        (volume,) = self.config["Volumes"]
        enter = ["unshare", "--mount", "--propagation=private", "sh", "-euc", _ENTER, "enter"]
        outside = [self.root, state, config, volume, self.config["User"]]
        return [*enter, *map(str, outside), *map(str, program)]


@contextmanager
def built(dockerfile: Path, storage: Path) -> Iterator[Image]:
    """The image of a Dockerfile, with Debian's own Python beneath it."""
    buildah = Buildah(storage)
    _import_base(buildah)
    _build(buildah, dockerfile)
    container = buildah("from", "localhost/gateway:test")
    try:
        yield Image(
            config=json.loads(buildah("inspect", "--type=image", "localhost/gateway:test"))[
                "Docker"
            ]["config"],
            root=Path(buildah("mount", container)),
            base_mb=_megabytes(buildah, "localhost/base:test"),
            size_mb=_megabytes(buildah, "localhost/gateway:test"),
        )
    finally:
        buildah("umount", "--all")
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")


def _build(buildah: Buildah, dockerfile: Path) -> None:
    """By `buildah bud`, with packages from where this machine has them."""
    given = [f"--build-arg={name}" for name in _FROM_OUTSIDE if name in os.environ]
    if certificates := os.environ.get("PIP_CERT"):
        given.append(f"--volume={certificates}:{certificates}:ro")
    buildah(
        "bud", "--quiet", "--isolation=chroot", "--format=docker", f"--file={dockerfile}",
        "--build-arg=BASE=localhost/base:test", *given, "--tag=localhost/gateway:test", ROOT,
    )  # fmt: skip


def _import_base(buildah: Buildah) -> None:
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, _debian(), "/")
    buildah("commit", "--quiet", "--format=docker", container, "localhost/base:test")
    buildah("rm", container)


def _debian() -> Path:
    """The smallest Debian with Python, as tar; made once."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "ocpp-gateway" / f"debian-{SUITE}-{'-'.join(_PACKAGES)}.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        making = kept.with_suffix(f".{os.getpid()}")
        mirror = [mirror] if (mirror := os.environ.get("DEBIAN_MIRROR")) else []
        include = f"--include={','.join(_PACKAGES)}"
        try:
            _run("debootstrap", "--variant=minbase", include, SUITE, making, *mirror)
            for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
                _run("find", making / folder, "-type", "f", "-delete")
            _run("tar", "-C", making, "-cf", kept.with_suffix(".part"), ".")
            kept.with_suffix(".part").rename(kept)
        finally:
            _run("rm", "-rf", "--one-file-system", making)
    return kept


def _megabytes(buildah: Buildah, image: str) -> float:
    (described,) = json.loads(buildah("images", "--json", image))
    number, unit = described["size"].split()
    return float(number) * {"KB": 1e-3, "MB": 1, "GB": 1e3}[unit]


def _run(*command: object) -> str:
    """Its output.  Raises CalledProcessError, with what it complained about."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_TOOLS}"
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-4000:]}")
    return done.stdout.strip()
