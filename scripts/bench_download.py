"""`scripts/bench download`: the bars of download and prepare, beside curl and aria2c.

IMNETPREP_BENCH_ONLY=limited,link,cpu,kills,stalls,changes,torrent,prepare picks parts;
IMNETPREP_BENCH_REPEATS (3) are the turns, IMNETPREP_BENCH_TRIALS (20) the kills,
IMNETPREP_BENCH_GB (1) the size of `cpu`. It needs nginx, curl and aria2c; `link`, a link with delay
and loss made of TUN, needs root and iproute2. All files lie in /dev/shm.
"""

import collections
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from imnetprep.sources.seeder import make_torrent, seeded  # noqa: E402
from imnetprep.synthetic import pack_dataset  # noqa: E402
from tests.conftest import tree  # noqa: E402
from tests.http_server import Answering, http_served  # noqa: E402
from tests.servers import free_port  # noqa: E402
from tests.sources.downloads import ADDRESSES, StandIn, served  # noqa: E402

IMNETPREP = HERE / ".venv" / "bin" / "imnetprep"
REPEATS = int(os.environ.get("IMNETPREP_BENCH_REPEATS", "3"))
TRIALS = int(os.environ.get("IMNETPREP_BENCH_TRIALS", "20"))
ALL = "limited,link,cpu,kills,stalls,changes,torrent,prepare"
ONLY = os.environ.get("IMNETPREP_BENCH_ONLY", ALL).split(",")
MB = 1_000_000
RATE = 5_500_000  # what image-net.org gives each connection
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000


class Ended(NamedTuple):
    code: int
    said: str
    seconds: float
    cpu_s: float
    peak_mb: float


def main(_folder: Path) -> None:
    """Run the parts that are picked."""
    for program in ("nginx", "curl", "aria2c"):
        if not shutil.which(program):
            sys.exit(f"{program} is not installed")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        parts: dict[str, Callable[[Path], None]] = {
            "limited": limited, "link": link, "cpu": cpu, "kills": kills, "stalls": stalls,
            "changes": changes, "torrent": torrent, "prepare": prepare,
        }  # fmt: skip
        for name in ONLY:
            place = Path(folder, name)
            place.mkdir()
            parts[name](place)
            shutil.rmtree(place)


def ran(*words: object, timeout_s: float = 600) -> Ended:
    """A command, run to its end."""
    begun = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL, stderr=said)
        peak_kb = 0
        while process.poll() is None:
            with contextlib.suppress(OSError, AttributeError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                found = re.search(r"VmHWM:\s+(\d+)", status)
                peak_kb = max(peak_kb, int(found[1])) if found else peak_kb
            time.sleep(0.02)
            if time.monotonic() - begun > timeout_s:
                process.kill()
        seconds = time.monotonic() - begun
        said.seek(0)
        text = said.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(process.returncode, text, seconds, cpu_s, peak_kb / 1000)


def download(root: Path, address: str, *words: object) -> list[object]:
    """The words of our command."""
    return [IMNETPREP, "download", address, "--root", root, "--quiet", *words]


def body_at(path: Path, megabytes: int, seed: int = 1) -> str:
    """Write random bytes to `path`; their SHA-256."""
    digest, chance = hashlib.sha256(), random.Random(seed)
    with path.open("wb") as file:
        for _ in range(megabytes // 10):
            chunk = chance.randbytes(10 * MB)
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def nginx(folder: Path, *lines: str, before: tuple[str, ...] = ()) -> Iterator[str]:
    """nginx with the files in `folder`; `before` are the words of who starts it elsewhere."""
    port = free_port()
    config = folder.with_name(f"{folder.name}.nginx")
    config.mkdir()
    text = f"""daemon off; pid {config}/pid; error_log {config}/error.log; worker_processes 1;
user root; events {{ worker_connections 256; }}
http {{ log_format sent $bytes_sent; access_log {config}/sent sent; sendfile on;
client_body_temp_path {config}/a; proxy_temp_path {config}/b;
fastcgi_temp_path {config}/c; uwsgi_temp_path {config}/d;
scgi_temp_path {config}/e; server {{ listen {port}; root {folder}; {" ".join(lines)} }} }}"""
    (config / "conf").write_text(text)
    process = subprocess.Popen([*before, "nginx", "-p", str(config), "-c", str(config / "conf")])
    try:
        time.sleep(0.5)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(config)


def rates(folder: Path, host: str, size_mb: int, digest: str, *jobs: int) -> None:
    """Megabytes a second of curl, aria2c and ours, in turns: the median and the spread."""
    address, found = f"http://{host}/set.tar", collections.defaultdict[str, list[float]](list)
    for turn in range(REPEATS):
        for name, words in {
            "curl": ["curl", "-s", "-o", folder / "c", address],
            "aria2c -x8": ["aria2c", "-q", "-x8", "-s8", "-k1M", "-d", folder, "-o", "a", address],
            **{
                f"ours, {n} jobs": download(
                    folder / "r", address, "--jobs", n, "--digest", f"sha256:{digest}"
                )
                for n in jobs
            },
        }.items():
            ended = ran(*words)
            assert ended.code == 0, (name, ended)
            found[name].append(size_mb / ended.seconds)
            for path in ("c", "a", "r"):
                with contextlib.suppress(OSError):
                    (folder / path).unlink()
                shutil.rmtree(folder / path, ignore_errors=True)
        del turn
    curl, aria2c = (statistics.median(found[name]) for name in ("curl", "aria2c -x8"))
    for name, each in found.items():
        median = statistics.median(each)
        spread = f"({min(each):.1f}-{max(each):.1f})"
        print(f"  {name}: {median:.1f} MB/s {spread}, {median / curl:.1f} x curl,", end=" ")
        print(f"{median / aria2c:.2f} x aria2c -x8")


def limited(folder: Path) -> None:
    """A server that gives each connection 5.5 MB/s."""
    print("a server that gives each connection 5.5 MB/s, 500 MB:")
    served = folder / "served"
    served.mkdir()
    digest = body_at(served / "set.tar", 500)
    with nginx(served, f"limit_rate {RATE};") as host:
        rates(folder, host, 500, digest, 8, 16)


def link(folder: Path) -> None:
    """A link of 50 ms and 0.1 % loss."""
    if os.geteuid() or not shutil.which("ip"):
        print("link: needs root and iproute2")
        return
    print("a link of 50 ms and 0.1 % loss, 400 MB:")
    served = folder / "served"
    served.mkdir()
    digest = body_at(served / "set.tar", 400)
    with Link(rtt_s=0.05, loss=0.001) as wan:
        before = ("ip", "netns", "exec", wan.namespace)
        with nginx(served, before=before) as host:
            rates(folder, host.replace("127.0.0.1", wan.far), 400, digest, 8)


def cpu(folder: Path) -> None:
    """CPU seconds a GB and memory, by pieces, by a digest, and without a proof."""
    gigabytes = int(os.environ.get("IMNETPREP_BENCH_GB", "1"))
    print(f"{gigabytes} GB from nginx on loopback into tmpfs: CPU seconds a GB, peak memory:")
    served = folder / "served"
    served.mkdir()
    toml = pack_dataset(
        served, classes=100 * gigabytes, train_per_class=100, val_per_class=1, image_bytes=100_000
    )
    name = "ILSVRC2012_img_train.tar"
    size_gb = (served / name).stat().st_size / 1e9
    own = folder / "own"
    shutil.copytree(served, own, ignore=lambda _f, names: [n for n in names if n.endswith(".tar")])
    (own / f"{name}.torrent").write_bytes(make_torrent(served / name, piece_bytes=2 << 20))
    text = (own / toml.name).read_text()
    line = f'name = "{name}"'
    (own / "pieces.toml").write_text(text.replace(line, f'{line}\ntorrent = "{name}.torrent"'))
    (served / "plain.tar").hardlink_to(served / name)
    with nginx(served) as host:
        for title, address, words in (
            ("by pieces", f"http://{host}/{name}", ["--dataset", own / "pieces.toml"]),
            ("by MD5", f"http://{host}/{name}", ["--dataset", own / toml.name]),
            ("no proof", f"http://{host}/plain.tar", []),
        ):
            found = []
            for _ in range(REPEATS):
                found.append(ran(*download(folder / "r", address, *words)))
                assert found[-1].code == 0, found[-1]
                shutil.rmtree(folder / "r")
            cpu_s = statistics.median(each.cpu_s for each in found) / size_gb
            peak_mb = max(each.peak_mb for each in found)
            seconds = statistics.median(each.seconds for each in found)
            rate = 1000 * size_gb / seconds
            print(f"  {title}: {cpu_s:.2f} s/GB, {peak_mb:.0f} MB, {rate:.0f} MB/s")
        found = [ran("aria2c", "-q", "-x8", "-s8", "-d", folder, "-o", "a", "--allow-overwrite",
                     f"http://{host}/{name}") for _ in range(REPEATS)]  # fmt: skip
        cpu_s = statistics.median(each.cpu_s for each in found) / size_gb
        print(f"  aria2c -x8, no proof: {cpu_s:.2f} s/GB")


# Our command, with the services that no variable leads elsewhere at a stand-in's address.
_LED = """
import importlib, json, os, sys
for name, value in json.loads(os.environ["STAND_IN"]).items():
    module, _, constant = name.rpartition(".")
    setattr(importlib.import_module(f"imnetprep.{module}"), constant, value)
from imnetprep import cli
cli.run(sys.argv[1:])
"""


@contextlib.contextmanager
def each_source(root: Path) -> Iterator[Iterator[tuple[str, StandIn, list[str]]]]:
    """Every source in turn: its name, its server, and the words that fetch the file by 8 jobs."""
    with served() as server:
        server.body = random.Random(5).randbytes(100 * MB)
        led = {"STAND_IN": json.dumps(server.constants()), **server.environment()}
        with environment(led):
            yield (
                (name, server, [sys.executable, "-c", _LED, "download",
                                address.format(site=server.site), "--root", str(root), "--jobs",
                                "8", "--quiet"])
                for name, address in ADDRESSES.items()
            )  # fmt: skip


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def is_right(root: Path, server: StandIn) -> bool:
    """Is what stands in ROOT/archives the file, and nothing else?"""
    (path,) = (path for path in (root / "archives").iterdir() if path.name != ".lock")
    return path.read_bytes() == server.body


def kills(folder: Path) -> None:
    """Kill -9 at random moments, 8 jobs, every source: what its server sends a second time."""
    chance, root = random.Random(7), folder / "r"
    print(f"{TRIALS} kills at random moments, 8 jobs, 100 MB: sent a second time (of it, wrong)")
    with each_source(root) as sources:
        for name, server, words in sources:
            excess, wrong = list[float](), 0
            for _ in range(TRIALS):
                server.rate, server.sent_bytes = RATE, 0
                process = subprocess.Popen(words)
                while not server.sent_bytes:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 2))
                process.kill()
                process.wait()
                server.rate = 0
                ended = ran(*words)
                assert ended.code == 0, ended
                wrong += not is_right(root, server)
                excess.append(server.sent_bytes / MB - 100)
                shutil.rmtree(root)
            spread = f"{min(excess):.1f}-{max(excess):.1f}"
            print(f"  {name}: {statistics.median(excess):.1f} MB ({spread}), {wrong} wrong")


class Sender(Answering):
    """Sends ranges of `body`; subclasses do it badly."""

    protocol_version = "HTTP/1.1"
    body, etag = b"", '"one"'

    def span(self) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        end = int(found[2]) + 1 if found and found[2] else len(self.body)
        return (int(found[1]) if found else 0), min(end, len(self.body))

    def begin(self, start: int, end: int, etag: str) -> None:
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(self.body)}")
        for name, value in {"ETag": etag, "Content-Length": str(end - start),
                            "Accept-Ranges": "bytes"}.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()


def stalls(folder: Path) -> None:
    """Three connections that fall silent."""
    root = folder / "r"
    with each_source(root) as sources:
        for name, server, words in sources:
            server.stalls = 3
            ended = ran(*words)
            assert ended.code == 0, ended
            found = f"{ended.seconds:.1f} s, right: {is_right(root, server)}"
            print(f"three connections that fall silent, {name}: {found}")
            shutil.rmtree(root)


def changes(folder: Path) -> None:
    """A file that changes while it is fetched: between requests, and behind a body that broke."""
    bodies = [random.Random(seed).randbytes(60 * MB) for seed in (1, 2)]
    kinds = {bodies[0]: "the old one", bodies[1]: "the new one", b"": "nothing"}
    for is_cut in (False, True):
        for name in ("ours", "aria2c -x8", "curl, curl -C -"):
            with http_served(changing(bodies, is_cut=is_cut)) as server:
                address, path = f"http://127.0.0.1:{server.server_port}/set.tar", folder / "f"
                if name == "ours":
                    code = ran(*download(folder / "r", address)).code
                    path = folder / "r" / "archives" / "set.tar"
                elif name == "aria2c -x8":
                    code = ran("aria2c", "-q", "-x8", "-s8", "-k1M", "-d", folder, "-o", "f",
                               address).code  # fmt: skip
                else:
                    ran("curl", "-s", "-o", path, address)
                    code = ran("curl", "-s", "-C", "-", "-o", path, address).code
            kind = kinds.get(path.read_bytes() if path.exists() else b"", "a MIXED file")
            when = "behind a cut body" if is_cut else "between requests"
            print(f"changed {when}, {name}: code {code}, {kind}")
            with contextlib.suppress(OSError):
                path.unlink()
            shutil.rmtree(folder / "r", ignore_errors=True)


def changing(bodies: list[bytes], *, is_cut: bool) -> type[Sender]:
    """A file that is the other of `bodies` from the fifth request on, or behind one cut body."""
    state, lock = {"requests": 0, "cuts": 0}, threading.Lock()

    class Changes(Sender):
        def do_GET(self) -> None:
            with lock:
                state["requests"] += 1
                is_new = bool(state["cuts"]) if is_cut else state["requests"] > 4
            self.body, etag = (bodies[1], '"two"') if is_new else (bodies[0], '"one"')
            start, end = self.span()
            self.begin(start, end, etag)
            with contextlib.suppress(OSError):
                if is_cut and not is_new and end - start > MB:
                    self.wfile.write(self.body[start : (start + end) // 2])
                    state["cuts"] = 1
                    self.close_connection = True
                    self.connection.shutdown(2)
                else:
                    self.wfile.write(self.body[start:end])

    return Changes


@contextlib.contextmanager
def swarm(folder: Path, *, classes: int) -> Iterator[tuple[Path, list[object]]]:
    """A dataset with its torrents, seeded; its definition, and the words that lead to the peer."""
    toml = pack_dataset(
        folder, classes=classes, train_per_class=100, val_per_class=5, image_bytes=100_000
    )
    text, tars = toml.read_text(), sorted(folder.glob("*.tar"))
    for tar in tars:
        (folder / f"{tar.name}.torrent").write_bytes(make_torrent(tar))
        line = f'name = "{tar.name}"'
        text = text.replace(line, f'{line}\ntorrent = "{tar.name}.torrent"')
    toml.write_text(text)
    with seeded(tars) as seeder:
        yield toml, ["--dataset", toml, "--peer", seeder.peer, "--no-dht", "--listen",
                     "127.0.0.1:0", "--quiet"]  # fmt: skip


def torrent(folder: Path) -> None:
    """A torrent of 1 GB on loopback, beside aria2c."""
    served = folder / "served"
    with swarm(served, classes=100) as (_, words):
        size_mb = sum(path.stat().st_size for path in served.glob("*.tar")) / MB
        peer = str(words[3])
        found = collections.defaultdict[str, list[float]](list)
        for _ in range(REPEATS):
            ended = ran(IMNETPREP, "download", "--root", folder / "r", *words)
            assert ended.code == 0, ended
            found["ours"].append(size_mb / ended.seconds)
            shutil.rmtree(folder / "r")
            files = sorted(served.glob("*.torrent"))
            ended = aria2c_by_torrent(folder / "a", files, peer)
            found["aria2c"].append(size_mb / ended.seconds)
            shutil.rmtree(folder / "a")
    for name, each in found.items():
        print(f"torrent on loopback, {name}: {statistics.median(each):.0f} MB/s", end=" ")
        print(f"({min(each):.0f}-{max(each):.0f})")


def aria2c_by_torrent(folder: Path, files: list[Path], peer: str) -> Ended:
    """aria2c takes no peer by its address: a tracker of ours names it."""
    host, _, port = peer.partition(":")

    class Tracker(Answering):
        def do_GET(self) -> None:
            address = bytes(map(int, host.split("."))) + int(port).to_bytes(2, "big")
            self.answer(b"d8:intervali60e5:peers6:" + address + b"e")

    with http_served(Tracker) as server:
        tracker = f"http://127.0.0.1:{server.server_port}/announce"
        return ran("aria2c", "-q", "--enable-dht=false", "--seed-time=0", "-d", folder,
                   f"--bt-tracker={tracker}", "--interface=127.0.0.1", "--file-allocation=none",
                   f"--listen-port={free_port()}", "-j2", *files)  # fmt: skip


def prepare(folder: Path) -> None:
    """From a swarm of 40 MB/s: when train stands, after the last piece; killed, the same tree."""
    served = folder / "served"
    with swarm(served, classes=60) as (_, words):
        found = []
        for _ in range(REPEATS):
            shutil.rmtree(folder / "r", ignore_errors=True)
            found.append(train_stands(folder / "r", [*words, "--max-down", "40MB"]))
        print(f"train stands after the last piece: {statistics.median(found):.2f} s", end=" ")
        print(f"({min(found):.2f}-{max(found):.2f}), median of {REPEATS}")
        trees = {split: tree(folder / "r" / split) for split in ("train", "val")}
        begun = time.monotonic()
        ended = ran(IMNETPREP, "organize", "--root", folder / "o", "--dataset", words[1],
                    "--archives", served, "--quiet")  # fmt: skip
        assert ended.code == 0, ended
        print(f"organize alone, of archives that are there: {time.monotonic() - begun:.1f} s")
        chance, done, number = random.Random(7), False, 0
        shutil.rmtree(folder / "o")
        while not done:
            command = [IMNETPREP, "prepare", "--root", folder / "k", *words, "--max-down", "40MB"]
            process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
            try:
                done = process.wait(chance.uniform(0.5, 3) if number < TRIALS else 600) == 0
                assert done, process.returncode
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                number += 1
        same = {split: tree(folder / "k" / split) for split in trees} == trees
        print(f"killed {number} times: the same tree: {same}")


def train_stands(root: Path, words: list[object]) -> float:
    """Seconds from the whole archive (its name) to the split's name."""
    command = [IMNETPREP, "prepare", "--root", root, *words]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    archive, split = root / "archives" / "ILSVRC2012_img_train.tar", root / "train"
    whole_s = stands_s = 0.0
    while process.poll() is None and not stands_s:
        whole_s = whole_s or (archive.exists() and time.monotonic())
        stands_s = split.exists() and time.monotonic()
        time.sleep(0.005)
    assert process.wait() == 0
    return stands_s - whole_s


class Link:
    """A link from this machine into a network namespace, with delay and loss, made of two TUNs.

    `far` is the address there, `near` the one here. TCP on both sides is the kernel's own.
    """

    def __init__(self, *, rtt_s: float, loss: float) -> None:
        self.namespace, self._delay_s, self._loss = f"bench{os.getpid()}", rtt_s / 2, loss
        self.near, self.far, self._over = "10.99.7.1", "10.99.7.2", threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> "Link":
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        self._tuns = (
            self._tun(None, self.near, self.far),
            self._tun(self.namespace, self.far, self.near),
        )
        ways = (self._tuns, self._tuns[::-1])
        self._threads = [threading.Thread(target=self._carry, args=way) for way in ways]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for tun in self._tuns:
            os.close(tun)
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)

    def _tun(self, namespace: str | None, address: str, peer: str) -> int:
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if namespace:
            other = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
            assert self._libc.setns(other, CLONE_NEWNET) == 0
            os.close(other)
        try:
            name = f"b{address.rpartition('.')[2]}{os.getpid()}"[:15]
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            flags = IFF_TUN | IFF_NO_PI
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            for words in (
                f"addr add {address} peer {peer} dev {name}",
                f"link set {name} mtu 65000 txqueuelen 10000 up",
                "link set lo up",
            ):
                subprocess.run(["ip", *words.split()], check=True)
            return tun
        finally:
            self._libc.setns(own, CLONE_NEWNET)
            os.close(own)

    def _carry(self, source: int, target: int) -> None:
        packets = collections.deque[tuple[float, bytes]]()
        while not self._over.is_set():
            now_s = time.monotonic()
            while packets and packets[0][0] <= now_s:
                self._write(target, packets.popleft()[1])
            rest_s = max(0.0, packets[0][0] - time.monotonic()) if packets else 0.1
            select.select([source], [], [], min(0.1, rest_s))
            for _ in range(64):
                try:
                    packet = os.read(source, 70_000)
                except BlockingIOError:
                    break
                if random.random() >= self._loss:
                    packets.append((time.monotonic() + self._delay_s, packet))

    def _write(self, target: int, packet: bytes) -> None:
        while not self._over.is_set():
            try:
                os.write(target, packet)
                return
            except BlockingIOError:
                select.select([], [target], [], 0.1)
            except OSError:
                return
