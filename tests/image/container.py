"""A container of a built image: own processes, network, user and a root that is read-only.

The least that a container runtime does, with unshare and chroot, so that it runs where no daemon
does. The command is the first process of its namespace, as under Docker and Kubernetes.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .building import Image, buildah

# $0 the tree, $1 the user, $2 the folder for /models or none, $3 that for /work, then the command
START = """
set -e
ip link set lo up
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
mount -t tmpfs -o mode=2775 tmpfs "$0/state"
if [ -n "$2" ]; then mount --bind "$2" "$0/models"; mount -o remount,bind,ro "$0/models"; fi
if [ -n "$3" ]; then mount --bind "$3" "$0/work"; fi
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
root="$0"; user="$1"; shift 3
exec setpriv --no-new-privs chroot --userspec="$user:0" --groups=0 "$root" "$@"
"""
NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts")


class Container:
    """A running container; `finished` waits for its end."""

    def __init__(
        self,
        image: Image,
        tree: Path,
        *,
        user: int,
        env: Mapping[str, str],
        models: Path | None,
        work: Path | None,
    ) -> None:
        self.image, self.user = image, user
        self.env = {**image.env, **env}
        self._start = [tree, str(user), models or "", work or ""]
        self.log = ""

    def start(self, command: Sequence[str] | None = None) -> None:
        """Start the image's entrypoint with its own command, or another."""
        config = self.image.config
        arguments = [*config["Entrypoint"], *(config["Cmd"] if command is None else command)]
        start = ["sh", "-c", START, *self._start]
        inside = ["env", "-i", f"--chdir={config['WorkingDir'] or '/'}", *self._variables()]
        self._process = subprocess.Popen(
            ["unshare", *NAMESPACES, "--fork", *start, *inside, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.first_process = self._find_first_process()  # by its number on this machine
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """The outcome of a command inside, as its user and with its environment."""
        inside = ["env", "-i", f"--chdir={self.image.config['WorkingDir'] or '/'}"]
        return subprocess.run(
            [
                *("nsenter", "--target", str(self.first_process), "--mount", "--pid", "--net"),
                *("--root", "--setuid", str(self.user), "--setgid", "0"),
                *("--", *inside, *self._variables(), *command),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def check_health(self) -> "subprocess.CompletedProcess[str]":
        """The outcome of the image's own health command."""
        kind, *command = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.execute(*command)

    def wait_until_healthy(self) -> None:
        """Return when the health command says so."""
        for _ in range(120):
            if self._process.poll() is not None:
                break
            if self.check_health().returncode == 0:
                return
            threading.Event().wait(0.25)
        raise AssertionError(f"the container did not become healthy:\n{self.log}")

    def from_outside(self, *command: str | Path) -> str:
        """What a program of this machine prints that sees the container's network."""
        network = f"--net=/proc/{self.first_process}/ns/net"
        asked = subprocess.run(
            ["nsenter", network, "--", *command], capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked.stderr
        return asked.stdout

    def program_has_started(self) -> bool:
        """Whether the first process is the image's own by now, and its child another program."""
        init = self.image.config["Entrypoint"][0]
        children = _children(self.first_process) if _name(self.first_process) == init else []
        return any(_name(child) != init for child in children)

    def signal(self, number: int) -> None:
        """Send a signal to the first process."""
        os.kill(self.first_process, number)

    def finished(self, timeout_s: float = 40) -> int:
        """Exit code, once it has ended. Raises TimeoutExpired."""
        code = self._process.wait(timeout_s)
        self._reading.join()
        return code

    def kill(self) -> None:
        """End it at once, if it runs: the kernel ends what its first process leaves behind."""
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
        self.finished()

    def _find_first_process(self) -> int:
        while not (found := _children(self._process.pid)):
            assert self._process.poll() is None, "unshare failed"
        return found[0]

    def _variables(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.env.items()]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log += line
        self._process.stdout.close()


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def _children(process: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@contextmanager
def tree_of(image: Image) -> Iterator[Path]:
    """The image's files as one folder; a copy, gone afterwards."""
    container = buildah("from", "--pull-never", image.name)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", container)


@contextmanager
def running(
    image: Image,
    tree: Path,
    *,
    models: Path | None = None,
    work: Path | None = None,
    user: int = 1000,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Iterator[Container]:
    """A started container, ended afterwards. models: seen at /models, read-only. work: at /work."""
    container = Container(image, tree, user=user, env=env or {}, models=models, work=work)
    container.start(command)
    try:
        yield container
    finally:
        container.kill()
        sys.stdout.write(container.log)  # pytest shows it when the test fails
