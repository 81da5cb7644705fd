"""States of a process and its machine, and verbs that run in them: each does its work, or says in
two lines what it lacks; and the same command, in no such state, then does it.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from imnetprep import cli
from imnetprep.messages import UNREAD_EXIT_CODE
from imnetprep.sources.seeder import seeded
from imnetprep.synthetic import draw_dataset
from tests.conftest import TRAIN, command
from tests.fuzzing.folder_bucket import folder_served
from tests.servers import BUCKET, S3Server

# What a shell does before it becomes the command, in an empty folder.
_OF_A_PROCESS = {
    "files may not grow": "ulimit -f 1",
    "no file may be written": "ulimit -f 0",
    "few open files": "ulimit -n 12",
    "memory of 150 MB": "ulimit -v 150000",
    "memory of 400 MB": "ulimit -v 400000",
    "memory of 1 GB": "ulimit -v 1000000",
    "a small stack": "ulimit -s 512",
    "no locked memory": "ulimit -l 0",
    "no TMPDIR": "export TMPDIR=/nonexistent",
    "TMPDIR is a file": "touch file; export TMPDIR=$PWD/file",
    "no HOME": "unset HOME",
    "HOME is no folder": "export HOME=/dev/null XDG_CACHE_HOME=/dev/null XDG_CONFIG_HOME=/dev/null",
    "no environment": "for each in $(compgen -e); do unset $each; done",
    "the folder is gone": 'mkdir gone; cd gone; rmdir "$OLDPWD/gone"',
    "stdin is closed": "exec <&-",
    "stdout is closed": "exec >&-",
    "stderr is closed": "exec 2>&-",
    "all are closed": "exec <&- >&- 2>&-",
    "stdout is full": "exec >/dev/full",
    "stderr is full": "exec 2>/dev/full",
    "a broken pipe": "exec > >(true); sleep 0.2",
    "stderr is a broken pipe": "exec 2> >(true); sleep 0.2",
    "stdout may only be read": "exec >&0",
    "signals are ignored": "trap '' PIPE CHLD HUP INT TERM ALRM USR1 XFSZ",
    "a locale of ASCII": "export LC_ALL=C LANG=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
    "output of ASCII": "export PYTHONIOENCODING=ascii:strict",
    "no such locale": "export LC_ALL=xx_YY.KOI8 LANG=zz TZ=Nowhere/None",
    "umask 0777": "umask 0777",
    "umask 0": "umask 0",
    "no asserts": "export PYTHONOPTIMIZE=2",
    "warnings are errors": "export PYTHONWARNINGS=error",
    "development mode": "export PYTHONDEVMODE=1",
    "no terminal": "export TERM=none COLUMNS=1 LINES=-1",
    "odd numbers of threads": "export OMP_NUM_THREADS=-1 MKL_NUM_THREADS=x OPENBLAS_NUM_THREADS=0",
    "one core": "taskset -pc 0 $$ >/dev/null",
    "odd proxies": "export HTTP_PROXY=x HTTPS_PROXY='http://[::' ALL_PROXY=:// NO_PROXY=,",
    "odd settings of AWS": "export AWS_MAX_ATTEMPTS=x AWS_RETRY_MODE=y AWS_DEFAULT_REGION=' '",
    "odd files of AWS": "printf '\\0[\\377' > f; export AWS_CONFIG_FILE=f"
    " AWS_SHARED_CREDENTIALS_FILE=f",
    "no profile of AWS": "export AWS_PROFILE=none AWS_CA_BUNDLE=/none",
    "files of 1902": "find .. -type f -exec touch -d 1902-01-01 {} +",
    "files of 2200": "find .. -type f -exec touch -d 2200-01-01 {} +",
    "a clock that runs backwards": "printf 'import itertools, time\nnow, ticks = time.time(),"
    " itertools.count()\ntime.time = lambda: now - 9 * next(ticks)' > sitecustomize.py;"
    " export PYTHONPATH=$PWD:$PYTHONPATH",
    "odd graphics cards": "export CUDA_VISIBLE_DEVICES=x PYTORCH_CUDA_ALLOC_CONF=y MPLBACKEND=z",
}
_MOUNTED = 'exec unshare -m bash -c \'{} && exec "$@"\' bash "$@"'
# In a namespace of its own, which takes root.
_APART = {
    "no network": 'exec unshare -n "$@"',
    "read-only /dev/shm": _MOUNTED.format("mount -t tmpfs -o ro none /dev/shm"),
    "full /dev/shm": _MOUNTED.format("mount -t tmpfs -o size=4k none /dev/shm"),
    "a full TMPDIR": "mkdir full; export TMPDIR=$PWD/full; "
    + _MOUNTED.format("mount -t tmpfs -o size=4k,nr_inodes=1 none full"),
    "no /proc": _MOUNTED.format("mount -t tmpfs none /proc"),
    "no /dev": _MOUNTED.format("mount -t tmpfs none /dev"),
    "a read-only disk": _MOUNTED.format("mount --bind .. .. && mount -o remount,bind,ro .. .."),
}
STATES: Mapping[str, str] = _OF_A_PROCESS | _APART
_TRAIN = (
    "train --root {root} --arch shufflenet_v2_x0_5 --image-size 32 --epochs 1 --batch-size 8"
    " --workers 1 --device cpu"
)
VERBS = {
    "organize": "organize --root {new} --dataset {toml} --archives {archives} --jobs 2",
    "shards": "organize --root {root} --layout webdataset --shard-size 5 --jobs 2",
    "verify": "verify --root {root} --digests --decode --jobs 2",
    "push": f"sync-s3 s3://{BUCKET}/a --root {{root}} --push",
    "pull": f"sync-s3 s3://{BUCKET}/b --root {{new}} --pull",
    "download": "download --root {new} --dataset {toml} --split train --magnet {magnet}"
    " --peer {peer} --no-dht --listen 127.0.0.1:0 --wait 20s",
    "train": _TRAIN,
}


_HANGS_S = 600  # a busy machine needs minutes for a training
_NAME = os.fsdecode(b"\xc3\xa9 \xff")  # a folder may be called anything


class Places(NamedTuple):
    """A dataset that is drawn, a root made of it, and where commands find others."""

    drawn: Path
    organized: Path
    magnet: str
    peer: str
    environment: Mapping[str, str]

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Self]:
        """Places below `folder`, with a seeder and a bucket."""
        drawn = draw_dataset(
            folder / "drawn", classes=3, train_per_class=8, val_per_class=4, side_px=48
        )
        root, bucket = folder / "organized", folder / "bucket"
        words = ["--root", root, "--dataset", drawn, "--archives", drawn.parent, "--quiet"]
        assert cli.run(["organize", *map(str, words)]) == 0
        weights = bucket / "b" / "runs" / "other" / "last.pt"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
        with folder_served(bucket) as endpoint, seeded([drawn.parent / TRAIN]) as seeder:
            environment = S3Server(0).environment_of(endpoint=endpoint)
            yield cls(drawn, root, seeder.magnets[0], seeder.peer, environment)


def problem_of(state: str, verb: str, places: Places, beside: Path) -> str | None:
    """What is wrong with `verb` in `state`, run in a folder in `beside`; None: nothing."""
    with tempfile.TemporaryDirectory(prefix=_NAME, dir=beside) as folder:
        try:
            return _problem_in(Path(folder), state, verb, places)
        except subprocess.TimeoutExpired:
            return f"it hangs for {_HANGS_S} s"


def _problem_in(folder: Path, state: str, verb: str, places: Places) -> str | None:
    if state in _APART and subprocess.run(["unshare", "-mn", "true"], check=False).returncode:
        return "no namespace can be made here (that takes root)"
    words = _words(verb, places, folder)
    shell = ["bash", "-c", f'{STATES[state]}\nexec "$@"', "bash", *words]
    code, said = _run(shell, places, folder)
    if code not in (*range(6), UNREAD_EXIT_CODE):
        return f"code {code}: {said}"
    if any(each in said for each in ("Traceback", "Exception ignored", "terminate called")):
        return f"code {code}, and more than two lines: {said}"
    is_heard = "stderr" not in state and "all are" not in state
    is_refused = is_heard and code not in (0, 5, UNREAD_EXIT_CODE)
    if is_refused and not (
        said.count("Error: ") == 1 and said.splitlines()[-1].startswith("Hint: ")
    ):
        return f"code {code}, and not an error and a hint: {said}"
    if verb == "train" and any((folder / "root" / "runs").glob("*/last.pt")):
        if is_refused and "--resume" not in said:
            return f"code {code}, and no word on how it resumes: {said}"
        words.append("--resume")
    if code:
        code, said = _run(words, places, folder)
        return f"afterwards, in no such state: code {code}: {said}" if code else None
    return None


def _words(verb: str, places: Places, folder: Path) -> list[str]:
    """The command of `verb`, and what it works on, below `folder`."""
    for name in ("new", "here", "root/runs"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(places.organized, folder / "root", dirs_exist_ok=True)
    (folder / "root" / "runs" / "x").write_bytes(b"weights")
    found = {"root": folder / "root", "new": folder / "new", "toml": places.drawn}
    found |= {"archives": places.drawn.parent}
    met = {"magnet": places.magnet, "peer": places.peer}
    return command(*(each.format(**found, **met) for each in VERBS[verb].split()))


def _run(words: list[str], places: Places, folder: Path) -> tuple[int, str]:
    """The exit code of a command in `folder`/here, and what it says on stderr."""
    home = str(Path(__file__).parents[2])
    done = subprocess.run(
        words,
        cwd=folder / "here",
        env={**os.environ, **places.environment, "PYTHONPATH": home},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=_HANGS_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.decode(errors="replace")
