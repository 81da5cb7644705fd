"""`scripts/bench faults`: verbs whose n-th call of a kind fails, on a small dataset.

`faults.c` (compiled here with gcc, preloaded) fails open, read, write, sync, rename, lock and more
below the folder of the command, once or from that call on. A fault must be mended on the way (code
0) or told in one error with a hint that fits: no exit code 70, no traceback, nothing that hangs.
The same command without a fault must then come to what an unbroken run makes: the same files, byte
for byte, the same manifest and receipt (but its times and inodes).

IMNETPREP_BENCH_ONLY=organize,train picks verbs; IMNETPREP_BENCH_PLACES (3) are the places in the
count of a kind, beside its first call; IMNETPREP_BENCH_SEED the same random places again;
IMNETPREP_BENCH_FAULT=pwrite:3:ENOSPC (`:on` behind it: from there on) is that fault alone, *:EIO
those of the sample that match.
"""

import contextlib
import fnmatch
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from tests.faults import NO_FAULT, Fault, Faults  # noqa: E402

PLACES = int(os.environ.get("IMNETPREP_BENCH_PLACES", "3"))
SEED = int(os.environ.get("IMNETPREP_BENCH_SEED", time.time_ns() % 1_000_000))
ONLY = os.environ.get("IMNETPREP_BENCH_ONLY", "")
ALONE = os.environ.get("IMNETPREP_BENCH_FAULT", "*")
HANGS_S = 90

_DISK = "EIO ESTALE ETIMEDOUT ENOMEM"
_WRITE = f"{_DISK} ENOSPC EDQUOT EFBIG EROFS"
_NAME = f"{_WRITE} EACCES EPERM ENAMETOOLONG"
ERRORS = {
    "open": f"{_NAME} EMFILE ENFILE EINVAL", "read": f"{_DISK} HALF", "pread": f"{_DISK} HALF",
    "write": f"{_WRITE} HALF", "pwrite": f"{_WRITE} HALF", "fsync": _WRITE,
    "fsyncdir": f"{_DISK} EINVAL ENOTSUP", "fdatasync": _WRITE, "syncfs": f"{_DISK} ENOSPC ENOSYS",
    "rename": f"{_NAME} EXDEV EBUSY", "link": f"{_NAME} EXDEV EMLINK ENOTSUP",
    "symlink": f"{_NAME} ENOTSUP", "unlink": f"{_DISK} EACCES EPERM EROFS EBUSY",
    "mkdir": f"{_NAME} EMLINK EINVAL", "rmdir": f"{_DISK} EACCES EBUSY",
    "lock": f"ENOLCK ENOSYS ENOTSUP {_DISK}", "flock": f"ENOLCK ENOSYS ENOTSUP {_DISK}",
    "ftruncate": f"{_WRITE} EINVAL", "fallocate": f"{_WRITE} ENOSYS ENOTSUP",
    "copy": f"{_WRITE} EXDEV EINVAL ENOSYS ENOTSUP HALF",
    "sendfile": f"{_DISK} EINVAL ENOSYS HALF", "mmap": "ENOMEM ENODEV EACCES",
    "statvfs": f"{_DISK} ENOSYS", "opendir": f"{_DISK} EMFILE EACCES",
    "readdir": _DISK, "stat": f"{_DISK} EACCES", "seek": "EINVAL EIO", "close": "EIO ENOSPC EDQUOT",
    "chmod": "EPERM EROFS ENOTSUP EIO", "fork": "EAGAIN ENOMEM", "thread": "EAGAIN",
}  # fmt: skip
# What a hint says of an error at least; of others only that there is one.
FITS = {
    "ENOSPC": "free|inode",
    "EDQUOT": "quota|free",
    "EMFILE": "ulimit -n",
    "ENFILE": "open files|ulimit -n",
    "EIO": "dmesg",
    "ENOMEM": "memory|batch-size",
    "EFBIG": "ulimit -f|file system",
    "EROFS": "--root",
    "ESTALE": "server|mount",
    "ETIMEDOUT": "server|mount",
    "ENOLCK": "--root|lock",
    "ENAMETOOLONG": "shorter",
    "EAGAIN": "ulimit -u|--jobs",
}
# What fails there is of the process, or a file that is done with.
_NAMELESS = ("fork", "thread", "close")
# An image that cannot be read is one of those that are no images.
_OF_AN_IMAGE = "--skip-bad|names every such image"
_MADE_ANEW = re.compile(r"(\.organizing|.*\.lock(\.workers)?|.*\.sync\.db.*|.*\.\d+\.tmp)(/|$)")
# Times and inodes are those of each run.
_CHANGING = {"recorded_at", "mtime_ns", "ctime_ns", "inode"}
_CHANGING |= {"seconds", "waited_s", "images_per_second"}

# Forks a process for each command: packages are imported once. The fault is set in the fork.
_SERVER = """
import atexit, importlib, json, mmap, os, pkgutil, signal, sys, threading, time
sys.path.remove("")  # the folder of a command is none of Python's
import imnetprep
from imnetprep import cli
for module in pkgutil.walk_packages(imnetprep.__path__, "imnetprep."):
    rooms = ("training", "networks", "loading", "exports", "predict", "contact_sheet")
    of_torch = module.name.startswith(tuple(f"imnetprep.{room}" for room in rooms))
    if not module.name.endswith("__main__") and of_torch <= (sys.argv[1] == "train"):
        importlib.import_module(module.name)
import boto3
page = mmap.mmap(os.open(os.environ["FAULTS"], os.O_RDWR), 4096)
for line in sys.stdin:
    task = json.loads(line)
    fault = bytes.fromhex(task["fault"])
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(task["folder"])
        os.environ.update(task["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for number in (1, 2):
            os.dup2(os.open(f"{task['told']}{number}", how, 0o644), number)
        sys.argv = ["imnetprep", *task["words"]]
        page[: len(fault)] = fault
        try:
            cli.main()
        except SystemExit as end:
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stderr.flush()
            os._exit(end.code)
    until, code = time.monotonic() + task["most_s"], None
    while code is None and time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
        time.sleep(0.002)
    page[: len(fault)] = bytes(len(fault))
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if code is None:
        os.waitpid(pid, 0)
    print(json.dumps(code), flush=True)
"""


class Ended(NamedTuple):
    """A command that has ended; code None: it hung and was killed."""

    code: int | None
    told: str


class Commands:
    """Commands of imnetprep below `folder`/work, with faults."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._told, self._faults = folder / "work", folder / "told", Faults(folder)
        self._servers: dict[str, subprocess.Popen[str]] = {}

    def _server(self, kind: str) -> subprocess.Popen[str]:
        """What forks processes that have imported torch (`train`), or all but that."""
        one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
        if kind not in self._servers:
            self._servers[kind] = subprocess.Popen(
                [sys.executable, "-c", _SERVER, kind],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **one, **self._faults.environment},
            )  # fmt: skip
        return self._servers[kind]

    def run(self, words: list[str], fault: Fault, environment: Mapping[str, str]) -> Ended:
        """Run one with a fault, which is set in the forked process alone."""
        self._faults.tell(NO_FAULT.packed(self.folder))
        task = {"words": words, "folder": str(self.folder), "environment": dict(environment),
                "fault": fault.packed(self.folder).hex(), "told": str(self._told),
                "most_s": HANGS_S}  # fmt: skip
        server = self._server("train" if words[0] == "train" else "prepare")
        assert server.stdin and server.stdout
        print(json.dumps(task), file=server.stdin, flush=True)
        code = json.loads(server.stdout.readline())
        return Ended(code, Path(f"{self._told}2").read_text(errors="replace"))

    def calls(self) -> dict[str, int]:
        """How often each kind was called by the last one."""
        return self._faults.calls()

    def close(self) -> None:
        """End the processes that fork."""
        for server in self._servers.values():
            server.terminate()
            server.wait()


class Verb(NamedTuple):
    """A command on a `template` of a folder: what it makes lies in `root` of a copy of that."""

    name: str
    words: list[str]
    environment: Mapping[str, str] = MappingProxyType({})
    again: Callable[[Path], list[str]] | None = None


def main(folder: Path) -> None:
    """Every verb, fault by fault."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the servers would outlive us
    print(f"seed {SEED}, {PLACES + 1} places of each kind")
    with contextlib.closing(Commands(folder)) as commands:
        wrong = sum(_sweep(commands, *each) for each in opened_verbs(VERBS, folder, commands))
    sys.exit(1 if wrong else 0)


def opened_verbs(
    makers: Mapping[str, "Maker"], folder: Path, commands: Commands
) -> Iterator[tuple[Verb, Path]]:
    """Each verb that is asked for, and the folder of what it works on."""
    for name, make in makers.items():
        if not ONLY or name in ONLY.split(","):
            template = folder / name
            template.mkdir()
            with make(template, commands) as verb:
                yield verb, template


def _sweep(commands: Commands, verb: Verb, template: Path) -> int:
    """All faults of one verb; prints what is wrong, then a row of the table."""
    ended = _fresh(commands, verb, template, NO_FAULT)
    assert ended.code == 0, ended
    wanted, calls = made(commands.folder / "root"), commands.calls()
    sample = _sampled(calls, random.Random(f"{SEED} {verb.name}"))
    faults = [each for each in sample if fnmatch.fnmatch(str(each), ALONE)]
    outcomes, wrong, begun = Counter[str](), 0, time.monotonic()
    for fault in faults:
        ended = _fresh(commands, verb, template, fault)
        problems = _problems(ended, fault)
        if ended.code or verb.again is None:
            problems += problems_again(commands, verb, wanted)
        else:
            problems += differences(wanted, made(commands.folder / "root"))
        outcomes["mended" if ended.code == 0 else "told"] += not problems
        if problems:
            wrong += 1
            print(f"  {verb.name} {fault}: code {ended.code}: {'; '.join(problems)}")
            print(f"    {ended.told[-500:]!r}")
    kinds = len({fault.kind for fault in faults})
    print(f"{verb.name}: {sum(calls.values()):,} calls of {kinds} kinds, {len(faults)} faults:"
          f" {outcomes['mended']} mended on the way, {outcomes['told']} told and equal after the"
          f" same command, {wrong} wrong ({time.monotonic() - begun:.0f} s)")  # fmt: skip
    return wrong


def problems_again(commands: Commands, verb: Verb, wanted: dict[str, Any]) -> list[str]:
    """What is wrong with how the same command ends that is run again."""
    words = verb.again(commands.folder) if verb.again else verb.words
    again = commands.run(words, NO_FAULT, verb.environment)
    if again.code != 0 or "Traceback" in again.told:
        return [f"run again: code {again.code}: {again.told[-400:]!r}"]
    return differences(wanted, made(commands.folder / "root"))


def _sampled(calls: dict[str, int], chance: random.Random) -> Iterator[Fault]:
    """Of each kind its first call, and some others, with each error."""
    if "*" not in ALONE:
        yield Fault.parse(ALONE)
        return
    for kind, errors in ERRORS.items():
        for error in errors.split() if calls[kind] else ():
            later = range(2, calls[kind] + 1)
            for at in (1, *sorted(chance.sample(later, min(PLACES, len(later))))):
                yield Fault(kind, at, error)
            if error != "HALF":
                yield Fault(kind, chance.randint(1, calls[kind]), error, lasting=True)


def _fresh(commands: Commands, verb: Verb, template: Path, fault: Fault) -> Ended:
    shutil.rmtree(commands.folder, ignore_errors=True)
    shutil.copytree(template, commands.folder, symlinks=True)
    return commands.run(verb.words, fault, verb.environment)


def _problems(ended: Ended, fault: Fault) -> list[str]:
    """What is wrong with how a command met its fault."""
    problems = []
    if ended.code is None:
        problems.append("it hangs")
    elif ended.code in (70, 139) or ended.code < 0:
        problems.append("a bug")
    if "Traceback" in ended.told or "Exception ignored" in ended.told:
        problems.append("a traceback")
    if ended.code == 0 or problems:
        return problems
    if ended.code == 5 and fault.error in ("EIO", "EACCES", "EPERM"):  # it is a finding
        return []
    lines = ended.told.splitlines()
    if sum(line.startswith("Error: ") for line in lines) != 1 or "Hint: " not in lines[-1]:
        problems.append("not one error with a hint")
    # SQLite keeps the number of the error to itself; where it does not come again it stays unknown.
    elif not re.search(f"{FITS.get(fault.error, '')}|{_OF_AN_IMAGE}", lines[-1]) and not (
        ".db: Input/output error" in lines[-2] or (".db: " in lines[-2] and not fault.lasting)
    ):
        problems.append(f"the hint does not fit {fault.error}")
    elif ": " not in lines[-2].removeprefix("Error: ") and fault.kind not in _NAMELESS:
        problems.append("the error names no file")
    return problems


def made(root: Path) -> dict[str, Any]:
    """All that lies below the root, comparable."""
    files: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_dir() or _MADE_ANEW.match(name):
            continue
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as database:
                files[name] = list(database.iterdump())
        elif path.suffix in (".json", ".jsonl"):
            files[name] = [_timeless(json.loads(line)) for line in _documents(path)]
        elif path.suffix not in (".png", ".html"):  # drawn, with the times of each run
            files[name] = path.read_bytes()
    return files


def _documents(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return [(name, _timeless(each)) for name, each in value.items() if name not in _CHANGING]
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    names = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    states = {(True, True): "differs", (True, False): "is missing", (False, True): "is left"}
    told = [f"{name} {states[name in wanted, name in found]}" for name in names[:4]]
    return [f"another end: {', '.join(told)}"] if names else []


# The verbs.

_PACK = (
    "import sys; from pathlib import Path; from imnetprep.synthetic import draw_dataset;"
    "draw_dataset(Path(sys.argv[1]), classes=3, train_per_class=8, val_per_class=3, side_px=36)"
)


def packed(template: Path) -> str:
    """Archives of three classes in the template, and their definition as the commands name it."""
    folder = template / "archives"
    folder.mkdir()
    code = [sys.executable, "-c", _PACK, str(folder)]
    subprocess.run(code, check=True, env={**os.environ, "PYTHONPATH": str(HERE)})
    return "archives/drawn.toml"


def move_archives(template: Path) -> None:
    """The archives lie in the root, their definition where it was."""
    place = template / "root" / "archives"
    place.mkdir(parents=True)
    for archive in (template / "archives").glob("*.tar"):
        archive.rename(place / archive.name)


def organize_words(definition: str, *more: str) -> list[str]:
    return ["organize", "--root", "root", "--dataset", definition, "--archives", "archives",
            "--jobs", "2", "--quiet", *more]  # fmt: skip


def _prepare(commands: Commands, template: Path, *words: str) -> None:
    """Run a command where the faults will be, and keep what it makes in the template."""
    shutil.rmtree(commands.folder, ignore_errors=True)
    shutil.copytree(template, commands.folder, symlinks=True)
    ended = commands.run(list(words), NO_FAULT, {})
    assert ended.code == 0, ended
    shutil.rmtree(template)
    shutil.copytree(commands.folder, template, symlinks=True)


@contextlib.contextmanager
def _organize(template: Path, _commands: Commands) -> Iterator[Verb]:
    yield Verb("organize", organize_words(packed(template)))


@contextlib.contextmanager
def _side_by_side(template: Path, _commands: Commands) -> Iterator[Verb]:
    definition = template / packed(template)
    lines = [line for line in definition.read_text().splitlines() if not line.startswith("md5")]
    definition.write_text("\n".join(lines))
    yield Verb("side-by-side", organize_words("archives/drawn.toml"))


@contextlib.contextmanager
def _shards(template: Path, _commands: Commands) -> Iterator[Verb]:
    words = ["--layout", "webdataset", "--shard-size", "7"]
    yield Verb("shards", organize_words(packed(template), *words))


@contextlib.contextmanager
def _shards_of_folders(template: Path, commands: Commands) -> Iterator[Verb]:
    _prepare(commands, template, *organize_words(packed(template)))
    words = ["organize", "--root", "root", "--layout", "webdataset", "--shard-size", "7"]
    yield Verb("shards-of-folders", [*words, "--jobs", "2", "--quiet"])


@contextlib.contextmanager
def _repair(template: Path, commands: Commands) -> Iterator[Verb]:
    _prepare(commands, template, *organize_words(packed(template)))
    first, second, *_ = sorted((template / "root" / "train").rglob("*.JPEG"))
    first.unlink()
    second.write_bytes(bytes(second.stat().st_size))
    words = ["repair", "--root", "root", "--from", "archives", "--digests", "--quiet"]
    yield Verb("repair", words)


@contextlib.contextmanager
def _adopt(template: Path, commands: Commands) -> Iterator[Verb]:
    _prepare(commands, template, *organize_words(packed(template)))
    for name in ("manifest.db", "receipt.json"):
        (template / "root" / name).unlink()
    words = ["adopt", "root", "--dataset", "archives/drawn.toml", "--jobs", "2", "--quiet"]
    yield Verb("adopt", words)


@contextlib.contextmanager
def _verify(template: Path, commands: Commands) -> Iterator[Verb]:
    _prepare(commands, template, *organize_words(packed(template)))
    yield Verb("verify", ["verify", "--root", "root", "--digests", "--jobs", "2", "--quiet"])


@contextlib.contextmanager
def _divide(template: Path, commands: Commands) -> Iterator[Verb]:
    _prepare(commands, template, *organize_words(packed(template)))
    (template / "root" / "train").rename(template / "photos")
    shutil.rmtree(template / "root")
    yield Verb("divide", ["divide", "photos", "--root", "root", "--val-fraction", "0.25"])


@contextlib.contextmanager
def _subset(template: Path, commands: Commands) -> Iterator[Verb]:
    _prepare(commands, template, *organize_words(packed(template)))
    (template / "root").rename(template / "whole")
    wnids = sorted(path.name for path in (template / "whole" / "train").iterdir())
    (template / "list.txt").write_text("\n".join(wnids[:2]))
    yield Verb("subset", ["subset", "list.txt", "--root", "whole", "--to", "root", "--quiet"])


@contextlib.contextmanager
def _train(template: Path, commands: Commands, workers: int = 0) -> Iterator[Verb]:
    _prepare(commands, template, *organize_words(packed(template)))
    words = ["train", "--root", "root", "--arch", "shufflenet_v2_x0_5", "--image-size", "32"]
    words += ["--epochs", "2", "--batch-size", "8", "--workers", f"{workers}"]
    words += ["--device", "cpu", "--quiet"]

    def again(work: Path) -> list[str]:
        resumes = (work / "root" / "runs" / "shufflenet_v2_x0_5" / "last.pt").exists()
        return [*words, "--resume"] if resumes else words

    yield Verb("train", words, again=again)


def _train_by_workers(
    template: Path, commands: Commands
) -> contextlib.AbstractContextManager[Verb]:
    return _train(template, commands, workers=2)


@contextlib.contextmanager
def _download(template: Path, _commands: Commands) -> Iterator[Verb]:
    from imnetprep.sources.seeder import seeded

    definition = packed(template)
    seeds = template.parent / "seeds"
    seeds.mkdir()
    names = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
    archives = [(template / "archives" / name).rename(seeds / name) for name in names]
    with seeded(archives) as seeder:
        words = ["download", "--root", "root", "--dataset", definition, "--quiet"]
        words += ["--no-dht", "--listen", "127.0.0.1:0", "--peer", seeder.peer, "--wait", "20s"]
        for magnet in seeder.magnets:
            words += ["--magnet", magnet]
        yield Verb("download", words)


@contextlib.contextmanager
def _pull(template: Path, commands: Commands) -> Iterator[Verb]:
    from tests.servers import BUCKET, s3_served

    os.environ["PATH"] = f"{HERE / '.venv' / 'bin'}:{os.environ['PATH']}"  # weed is there
    words = organize_words(packed(template), "--layout", "webdataset", "--shard-size", "7")
    _prepare(commands, template, *words)
    move_archives(template)
    _prepare(commands, template, "verify-archives", "--root", "root")
    weed = template.parent / "weed"
    weed.mkdir(exist_ok=True)
    with s3_served(weed) as s3:
        words = ["sync-s3", f"s3://{BUCKET}/faults", "--root", "root", "--jobs", "2", "--quiet"]
        shutil.rmtree(commands.folder, ignore_errors=True)
        shutil.copytree(template, commands.folder, symlinks=True)
        pushed = commands.run([*words, "--push"], NO_FAULT, s3.environment)
        assert pushed.code == 0, pushed
        shutil.rmtree(template)
        template.mkdir()
        yield Verb("pull", [*words, "--pull"], s3.environment)


Maker = Callable[[Path, Commands], contextlib.AbstractContextManager[Verb]]
VERBS: Mapping[str, Maker] = {
    "organize": _organize, "side-by-side": _side_by_side, "shards": _shards,
    "shards-of-folders": _shards_of_folders, "repair": _repair, "adopt": _adopt,
    "verify": _verify, "divide": _divide, "subset": _subset, "download": _download,
    "pull": _pull, "train": _train, "train-by-workers": _train_by_workers,
}  # fmt: skip
