"""Images built without a Docker daemon: buildah on a base that debootstrap makes.

It is all kept in $AMISS_IMAGE_CACHE or ~/.cache/amiss-image; delete that to make it all anew.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("AMISS_IMAGE_CACHE") or Path.home() / ".cache" / "amiss-image")
BASE = "localhost/amiss-test-base"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
# Without a driver named it is overlay where the kernel has it, else vfs, which any machine has. The
# second folder is its own between starts of the machine only.
STORE = ("--root", CACHE / "storage", "--runroot", "/run/amiss-image")
PROGRAMS = {"buildah": "buildah", "debootstrap": "debootstrap", "ip": "iproute2"}
# What a build must know of this machine to reach the package index; it stays out of the layers.
INDEX_OPTIONS = ("index-url", "extra-index-url", "find-links", "cert", "default-timeout")


@dataclass(frozen=True)
class Image:
    """A built image: its name, and its configuration as Docker writes it."""

    name: str
    config: dict[str, Any]

    @property
    def env(self) -> dict[str, str]:
        """The environment that its processes start with."""
        return dict(pair.split("=", 1) for pair in self.config["Env"])


def missing_programs() -> list[str]:
    """Debian packages that building an image still needs on this machine."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program) is None]


def buildah(*arguments: str | Path) -> str:
    """What buildah printed, working in a store of our own. Raises CalledProcessError."""
    done = subprocess.run(
        ["buildah", *map(str, STORE), *map(str, arguments)], stdout=subprocess.PIPE, check=False
    )
    told = done.stdout.decode()
    if done.returncode:
        print(told)  # pytest shows it, beside the errors
        done.check_returncode()
    return told.strip()


def base_image() -> str:
    """Name of a minimal Debian of this machine's own release with Python; made once."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return BASE
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    tree = CACHE / "rootfs"
    shutil.rmtree(tree, ignore_errors=True)
    include = f"--include={BASE_PACKAGES}"
    subprocess.run(
        ["debootstrap", "--variant=minbase", include, release, tree],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(tree / folder)
        (tree / folder).mkdir()
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, tree, "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(tree)
    return BASE


def build(target: str, *, device: str = "cpu", arguments: Mapping[str, str] | None = None) -> Image:
    """The image of a Dockerfile's target, built from this checkout."""
    name = f"localhost/amiss-test:{target}-{device}"
    given = {"BASE": base_image(), "DEVICE": device, **(arguments or {})}
    log = buildah(
        "build",
        *("--isolation", "chroot", "--format", "docker", "--layers", "--target", target),
        *(f"--build-arg={key}={value}" for key, value in given.items()),
        *_index(CACHE / "pip.conf"),
        *("--tag", name, CHECKOUT),
    )
    (CACHE / f"{target}-{device}.log").write_text(log)
    described = json.loads(buildah("inspect", "--type", "image", name))
    return Image(name, described["Docker"]["config"])


def _index(pip_conf: Path) -> Sequence[str]:
    """Options that let pip in a build reach what pip on this machine reaches."""
    options = _pip_options()
    lines = [f"{option} = {' '.join(values)}" for option, values in options.items()]
    pip_conf.write_text("\n".join(["[global]", *lines, ""]))
    every = {place.removeprefix("file://") for values in options.values() for place in values}
    # an index in a folder links to files beside it: ../../files/NAME.whl
    places = sorted({place.removesuffix("/simple") for place in every if place.startswith("/")})
    return [
        f"--secret=id=pip_conf,src={pip_conf}",
        *(f"--volume={place}:{place}:ro" for place in places if Path(place).exists()),
    ]


def _pip_options() -> dict[str, list[str]]:
    """This machine's pip settings, of files and variables, that say where packages come from."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
    options: dict[str, list[str]] = {}
    for line in told.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in INDEX_OPTIONS:
            options[option] = value.strip("'\"").replace("\\n", " ").split()
    return options
