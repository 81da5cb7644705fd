"""What a command leaves that is killed or crashes, and what its workers show, holds no secret.

Each long verb halts midway with secrets in its addresses and its environment, its processes are
looked at as the process list has them, and then it is killed by -9: the files below its root,
TMPDIR and HOME are looked through.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.messages import OUR_BUG_EXIT_CODE
from imnetprep.sources.seeder import seeded
from tests.conftest import TRAIN, VAL, command
from tests.drawn import draw_root
from tests.faults import Fault, Faults
from tests.fuzzing.folder_bucket import folder_served
from tests.planted import (
    PASSKEY,
    PASSWORD,
    QUERY,
    SECRETS,
    environment_of,
    repeating_served,
    require_no_secret,
)
from tests.servers import BUCKET
from tests.stopped import halted

_JOURNAL, _SYNC = "imnetprep.organizing.journal:Journal", "imnetprep.sync.journal:SyncJournal"
_ORGANIZE = "organize --root {new} --dataset {toml} --archives"
_SYNC_S3 = f"sync-s3 s3://{BUCKET}/remote --endpoint-url {{bucket}} --root"
# Before which call it halts, and the command.
_HALTS = {
    "organize": (f"{_JOURNAL}.add:2", f"{_ORGANIZE} {{signed}}"),
    "redirected": (f"{_JOURNAL}.mark_whole:1", f"{_ORGANIZE} {{redirected}}"),
    "subset": (
        "imnetprep.organizing.publish:publish:1",
        "subset {list} --root {new} --dataset {toml} --archives {signed}",
    ),
    "repair": ("imnetprep.repair:_Repair._give_names:1", "repair --root {root} --from {signed}"),
    "push": (f"{_SYNC}.keep_synced:1", f"{_SYNC_S3} {{root}} --push"),
    "pull": (f"{_SYNC}.keep_file:1", f"{_SYNC_S3} {{new}} --pull"),
    "download": (
        "imnetprep.sources.part_files:PartFiles.finish:1",
        "download --root {new} --dataset {toml} --split train --magnet {magnet} --peer {peer}"
        " --no-dht --listen 127.0.0.1:0",
    ),
    "download from a server": (
        "imnetprep.downloads.fetch_file:FileFetcher._give_name:1",
        "download {signed} --root {new} --dataset {toml} --split train",
    ),
    "prepare": (
        f"{_JOURNAL}.mark_whole:1",
        "prepare {redirected} --root {new} --dataset {toml} --split val",
    ),
}
_HALTS_WITH_WORKERS = {
    "shards": (f"{_JOURNAL}.add_shard:2", f"{_ORGANIZE} {{signed}} --layout webdataset --jobs 2"),
    "organize by processes": (f"{_JOURNAL}.add:1", f"{_ORGANIZE} {{archives}} --jobs 2"),
    "shards of folders": (
        f"{_JOURNAL}.add_shard:1",
        "organize --root {root} --layout webdataset --shard-size 5 --jobs 2",
    ),
    "train": (
        "imnetprep.training.saves:save_checkpoint:1",
        "train --root {drawn} --arch shufflenet_v2_x0_5 --image-size 32 --epochs 2 --batch-size 8"
        " --workers 1 --device cpu",
    ),
}


@pytest.fixture
def places(tmp_path: Path, packed: Path, organized: Path) -> Iterator[dict[str, object]]:
    """What stands in the braces of a command: a root, archives, and servers of both."""
    archives, bucket = tmp_path / "archives", tmp_path / "bucket"
    shutil.copytree(packed.parent, archives)
    toml = archives / packed.name
    lines = toml.read_text().splitlines()  # without digests processes may read side by side
    toml.write_text("\n".join(line for line in lines if not line.startswith("md5")))
    next((organized / "train" / "n01440764").iterdir()).unlink()
    for folder in (organized / "runs" / "one", bucket / "remote" / "runs" / "other"):
        folder.mkdir(parents=True)
        (folder / "last.pt").write_bytes(b"weights")
    (tmp_path / "list.txt").write_text("n01440764\n")
    files = {name: (archives / name).read_bytes() for name in (TRAIN, VAL)}
    tracker = f"http%3A%2F%2F127.0.0.1%3A9%2F{PASSKEY}%2Fannounce"
    with (
        repeating_served(files) as host,
        folder_served(bucket) as endpoint,
        seeded([packed.parent / TRAIN]) as seeder,
    ):
        yield {
            "new": tmp_path / "new",
            "root": organized,
            "drawn": draw_root(tmp_path / "drawn").path,
            "archives": archives,
            "toml": toml,
            "list": tmp_path / "list.txt",
            "bucket": endpoint,
            "signed": f"http://me:{PASSWORD}@{host}/files?{QUERY}",
            "redirected": f"http://me:{PASSWORD}@{host}/redirect?{QUERY}",
            "magnet": f"{seeder.magnets[0]}&tr={tracker}",
            "peer": seeder.peer,
        }


@pytest.mark.parametrize("name", [*_HALTS, *_HALTS_WITH_WORKERS])
def test_a_killed_command_has_kept_no_secret(
    name: str, places: dict[str, object], tmp_path: Path
) -> None:
    if name == "train":
        pytest.importorskip("torch")
    at, text = (_HALTS | _HALTS_WITH_WORKERS)[name]
    words, environment = [each.format(**places) for each in text.split()], environment_of(tmp_path)
    with halted(at, *words, environment=environment, output=tmp_path / "output") as process:
        workers = list(_descendants(process.pid))
        assert bool(workers) is (name in _HALTS_WITH_WORKERS)
        for worker in workers:
            _require_nothing_shown(worker, process.pid, environment)
    require_no_secret(tmp_path)


def _descendants(pid: int) -> Iterator[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    for child in [int(each) for path in children for each in path.read_text().split()]:
        yield child
        yield from _descendants(child)


def _require_nothing_shown(worker: int, parent: int, environment: dict[str, str]) -> None:
    """No secret is in the words of a process but those that the user typed, nor in its environment
    but those that the user had there.
    """
    words, of_parent = (Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (worker, parent))
    entries = set(Path(f"/proc/{worker}/environ").read_text().split("\0"))
    entries -= {f"{name}={value}" for name, value in {**os.environ, **environment}.items()}
    for secret in SECRETS:
        assert words == of_parent or secret.encode() not in words
        assert not [each for each in entries if secret in each]


@pytest.mark.parametrize(
    ("words", "fault"),
    [(f"{_ORGANIZE} {{signed}}", "fsync"), (f"{_SYNC_S3} {{root}} --push", "pread")],
    ids=["organize", "push"],
)
def test_the_traceback_of_a_crash_has_no_secret(
    words: str, fault: str, places: dict[str, object], tmp_path: Path
) -> None:
    """EBADF is what a program earns by itself, so it counts as a bug of ours."""
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    faults = Faults(compiled)
    below = tmp_path / ("root/runs" if "--push" in words else "new")
    faults.tell(Fault(fault, 1, "EBADF").packed(below))
    done = subprocess.run(
        command(*(each.format(**places) for each in words.split())),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment_of(tmp_path), **faults.environment},
    )
    assert done.returncode == OUR_BUG_EXIT_CODE, done
    (path,) = (tmp_path / "tmp").glob("*.traceback")
    assert "Bad file descriptor" in path.read_text()
    require_no_secret(tmp_path, done.stdout, done.stderr)
