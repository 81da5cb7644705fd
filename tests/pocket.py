"""A machine of EC2 in a pocket: namespaces of this computer that boot user data as EC2 would.

PID, mount, network, UTS and IPC namespaces; for a root a copy-on-write view of this computer's; the
metadata service at 169.254.169.254, whose listening socket is made in the machine's network and
served from this process; relays that show ports of this computer's loopback on the machine's; and
`shutdown`, which ends it. Root on Linux may do all of that; elsewhere its tests are skipped.
"""

import contextlib
import ctypes
import ensurepip
import http.server
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.http_server import Answering, http_served

ADDRESS = "169.254.169.254"
_CLONE_NEWNET = 0x40000000
_PROGRAMS = ("unshare", "ip", "mount", "chroot", "curl")

# What systemd does: `shutdown -h now`, `shutdown -h +MINUTES`. Each call is noted.
_SHUTDOWN = r"""#!/bin/sh
echo "$*" >>/run/pocket/shutdowns
case " $* " in
*" now "*) echo now >/run/pocket/off ;;
*) for word; do case $word in +*) minutes=${word#+} ;; esac; done
   setsid sh -c "sleep $((minutes * 60)); echo timer >/run/pocket/off" >/dev/null 2>&1 & ;;
esac
"""
# `read` waits for a line of the parent, which makes sockets in this network meanwhile.
_INIT = r"""set -e
mount --make-rprivate /
ip link set lo up
ip addr add 169.254.169.254/32 dev lo
layers="lowerdir=$LOWER,upperdir=$PLACE/upper,workdir=$PLACE/work"
mount -t overlay overlay -o "$layers" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
if [ -d "$ROOT/dev/disk" ]; then mount -t tmpfs none "$ROOT/dev/disk"; fi
mount -t tmpfs run "$ROOT/run"
mount -t tmpfs tmp "$ROOT/tmp"
case $PACKAGES in
/tmp/*) mkdir -p "$ROOT$PACKAGES"; mount --bind "$PACKAGES" "$ROOT$PACKAGES" ;;
esac
mkdir -p "$ROOT/run/pocket"
if [ -n "$LOCAL_DISK" ]; then
  mkdir -p "$ROOT/opt/dlami/nvme"
  mount -t tmpfs -o "size=$LOCAL_DISK" none "$ROOT/opt/dlami/nvme"
fi
hostname "$NAME"
echo ready
read -r _
chroot "$ROOT" /bin/sh -c "$BOOT" >"$PLACE/console" 2>&1 </dev/null &
while [ ! -e "$ROOT/run/pocket/off" ]; do sleep .05; done
cp -r "$ROOT/run/pocket" "$PLACE/end"
"""
# What the cloud-init of EC2 does with a script: it is fetched by IMDSv2 and run as root.
_BOOT = r"""
at=http://169.254.169.254/latest header=X-aws-ec2-metadata-token
token=$(curl -sf -X PUT -H "$header-ttl-seconds: 60" $at/api/token)
curl -sf -H "$header: $token" $at/user-data >/run/user-data
chmod 700 /run/user-data
cd /
exec env -i PATH="$PATH" $SETTINGS /run/user-data
"""


def require_machines() -> None:
    """Skip the test, with the reason, where no such machine can be made."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a machine of namespaces needs root on Linux")
    if missing := [each for each in _PROGRAMS if shutil.which(each) is None]:
        pytest.skip(f"a machine of namespaces needs {', '.join(missing)}")
    words = ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "true"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no namespaces can be made here: {done.stderr.strip()}")
    if len({Path(each).stat().st_dev for each in ("/", sys.prefix, sys.base_prefix)}) > 1:
        pytest.skip("Python lies on another file system than /")


class Metadata:
    """What the metadata service tells one machine; a notice may come while it runs."""

    def __init__(
        self,
        instance: str,
        user_data: str,
        *,
        role: str = "imnetprep",
        credentials: tuple[str, str] = ("", ""),
        type_name: str = "g5.2xlarge",
    ) -> None:
        self.user_data = user_data
        key, secret = credentials
        keys = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": key,
            "SecretAccessKey": secret,
        }
        keys |= {"Token": "", "LastUpdated": moment(0), "Expiration": moment(6 * 3600)}
        self.texts = {
            "instance-id": instance,
            "instance-type": type_name,
            "placement/region": "us-east-1",
            "placement/availability-zone": "us-east-1a",
            "iam/security-credentials/": role,
            f"iam/security-credentials/{role}": json.dumps(keys, indent=2),
        }
        self.tokens = set[str]()  # a test may clear them: they run out
        self.refused = list[str]()

    def give_notice(self, *, in_s: float = 120) -> None:
        """EC2 takes the machine back."""
        notice = {"action": "terminate", "time": moment(in_s)}
        self.texts["spot/instance-action"] = json.dumps(notice)

    def recommend_rebalance(self) -> None:
        """EC2 may take the machine back."""
        self.texts["events/recommendations/rebalance"] = json.dumps({"noticeTime": moment(0)})

    def handler(self) -> type[Answering]:
        """What answers: without a token nothing is told."""
        metadata = self

        class Handler(Answering):
            def do_PUT(self) -> None:
                token = secrets.token_hex(8)
                metadata.tokens.add(token)
                self.answer_text(token)

            def do_GET(self) -> None:
                name = self.path.partition("/latest/")[2]
                if self.headers.get("X-aws-ec2-metadata-token") not in metadata.tokens:
                    metadata.refused.append(self.path)
                    self.answer(status=401)
                elif name == "user-data":
                    self.answer_text(metadata.user_data)
                else:
                    self.answer_text(metadata.texts.get(name.removeprefix("meta-data/")))

            def answer_text(self, text: str | None) -> None:
                """Answer with a text; None: there is none."""
                headers = {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": "21600"}
                self.answer((text or "").encode(), 404 if text is None else 200, headers)

        return Handler


def moment(in_s: float) -> str:
    """The time in so many seconds, as EC2 writes it."""
    return (datetime.now(UTC) + timedelta(seconds=in_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def metadata_served(metadata: Metadata) -> Iterator[str]:
    """The service on this computer's loopback; its address."""
    with http_served(metadata.handler()) as server:
        yield f"http://127.0.0.1:{server.server_port}"


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 64


class Services:
    """What a machine's own network has: the metadata service, and relays to `ports` of this one.

    `network`: a file of the kernel that stands for the machine's network.
    """

    def __init__(self, network: Path, metadata: Metadata, ports: Sequence[int]) -> None:
        with _in_network(network):
            self._server = _Server((ADDRESS, 80), metadata.handler())
            self._listeners = [socket.create_server(("127.0.0.1", port)) for port in ports]
        for listener, port in zip(self._listeners, ports, strict=True):
            _relay(listener, port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop them all."""
        self._server.shutdown()
        self._server.server_close()
        for each in self._listeners:
            each.close()


@contextlib.contextmanager
def _in_network(network: Path) -> Iterator[None]:
    """Sockets that this thread makes belong to `network`."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    inside = os.open(network, os.O_RDONLY)
    try:
        if libc.setns(inside, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        libc.setns(here, _CLONE_NEWNET)
        os.close(here)
        os.close(inside)


def _relay(listener: socket.socket, port: int) -> None:
    """Pass what comes to `listener` on to a port of this computer's loopback."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while body := source.recv(1 << 16):
                target.sendall(body)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = listener.accept()
                outer = socket.create_connection(("127.0.0.1", port))
                for pair in ((inner, outer), (outer, inner)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


class Machine:
    """A machine that boots at once, and is gone when it shuts itself down or is killed.

    `ports`: of this computer's loopback, that its own loopback has too. `settings`: environment of
    its user data. `local_disk`: the size of a disk at /opt/dlami/nvme, as tmpfs has it. `image`:
    the layer of another machine, which this one begins with.
    """

    def __init__(
        self,
        metadata: Metadata,
        *,
        ports: Sequence[int] = (),
        settings: Mapping[str, str] | None = None,
        local_disk: str = "",
        image: Path | None = None,
    ) -> None:
        self.metadata = metadata
        self.home = Path(tempfile.mkdtemp(prefix="pocket-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8g", "pocket", self.home], check=True)
        for name in ("upper", "work", "root"):
            (self.home / name).mkdir()
        self._prepare()
        path = f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {
            "PATH": path,
            "PLACE": str(self.home),
            "ROOT": str(self.home / "root"),
            "LOWER": f"{image}:/" if image else "/",
            "LOCAL_DISK": local_disk,
            "PACKAGES": sysconfig.get_paths()["purelib"],
            "NAME": f"ip-{metadata.texts['instance-id']}",
            "BOOT": _BOOT,
            "SETTINGS": " ".join(f"{name}={value}" for name, value in (settings or {}).items()),
        }
        spaces = ["--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child"]
        self.process = subprocess.Popen(
            ["unshare", *spaces, "sh", "-c", _INIT],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=(self.home / "init").open("wb"), start_new_session=True,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self._services: Services | None = None
        if not self.process.stdout.readline():
            reason = (self.home / "init").read_text().strip()
            self.remove()
            pytest.skip(f"no machine of namespaces can be made here: {reason}")
        network = Path(f"/proc/{self._children(self.process.pid)[0]}/ns/net")
        self._services = Services(network, metadata, ports)
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def _prepare(self) -> None:
        """Lay into its own layer what an image brings: `shutdown`, and packages for pip to find."""
        program = self.path("/usr/sbin/shutdown")
        program.parent.mkdir(parents=True)
        program.write_text(_SHUTDOWN)
        program.chmod(0o755)
        packages = self.path("/opt/packages")
        packages.mkdir(parents=True)
        site = Path(sysconfig.get_paths()["purelib"])
        for each in site.iterdir():
            if not each.name.startswith(("imnetprep", "__editable__", "pip")):
                (packages / each.name).symlink_to(each)
        own_site = self._made(Path(sys.base_prefix) / site.relative_to(sys.prefix))
        os.setxattr(own_site, "trusted.overlay.opaque", b"y")  # what lies below is not seen
        (own_site / "image.pth").write_text("/opt/packages\n")
        # Before Python 3.12 a venv brings an old setuptools along, which torch refuses.
        source = Path(ensurepip.__file__)
        text = source.read_text().replace("('setuptools', 'pip')", "('pip',)")
        (self._made(source.parent) / source.name).write_text(text)

    def _made(self, folder: Path) -> Path:
        """A folder of the machine's own layer, with the modes that it has on this computer."""
        for each in (*reversed(folder.parents), folder):
            self.path(each).mkdir(exist_ok=True)
            shutil.copystat(each, self.path(each))
        return self.path(folder)

    def path(self, inside: object) -> Path:
        """A file of the machine, as it lies in its own layer."""
        return self.home / "upper" / str(inside).lstrip("/")

    def text(self, inside: object) -> str:
        """What such a file says; "" where there is none."""
        path = self.path(inside)
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def is_running(self) -> bool:
        """Has it not shut down, and was it not killed?"""
        return self.process.poll() is None

    @property
    def shutdowns(self) -> list[str]:
        """How `shutdown` was called, of a machine that is off."""
        return (self.home / "end" / "shutdowns").read_text().splitlines()

    def wait_off(self, timeout_s: float) -> None:
        """Wait until it has shut itself down."""
        self.process.wait(timeout_s)
        assert (self.home / "end").exists(), (self.home / "init").read_text()

    def kill(self) -> None:
        """Take it away without a word, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def pids(self, *words: str) -> list[int]:
        """The processes of the machine whose command lines have all of `words`."""
        pids, found = self._children(self.process.pid), list[int]()
        while pids:
            pid = pids.pop()
            pids += self._children(pid)
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if all(word in line for word in words):
                    found.append(pid)
        return found

    def _children(self, pid: int) -> list[int]:
        children = list[int]()
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children += map(int, file.read_text().split())
        return children

    def remove(self) -> None:
        """Leave nothing of it."""
        if self.is_running:
            self.kill()
        if self._services is not None:
            self._services.close()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        deadline = time.monotonic() + 10  # its last processes may hold files for a moment
        while subprocess.run(["umount", self.home], capture_output=True).returncode:
            if time.monotonic() > deadline:
                subprocess.run(["umount", "-l", self.home], check=True)
                break
            time.sleep(0.05)
        self.home.rmdir()
