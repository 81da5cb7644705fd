"""Without a direction, and on a dry run, a sync only says what it would do, and what that costs."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Root
from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError, Silent
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import Head, ListedObject
from imnetprep.sync.journal import SyncJournal, open_sync_journal
from imnetprep.sync.keys import Content, LocalFile
from imnetprep.sync.plan import Action, Direction, Step, plan_sync
from imnetprep.sync.remote_receipt import ObjectRecord, RemoteReceipt
from imnetprep.sync.survey import Survey
from imnetprep.transfers.checksums import Checksums
from tests.conftest import tree
from tests.proxy import Proxy
from tests.servers import BUCKET, S3Server
from tests.sync.conftest import Sync, keys_there, names, put

WRITES = {
    "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
    "DeleteObjects", "DeleteObject", "AbortMultipartUpload",
}  # fmt: skip


def test_without_a_direction_both_plans_are_told_and_nothing_is_done(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, whole: Path
) -> None:
    put(s3, f"{prefix}/archives/theirs.tar", b"x" * 1000)
    before = tree(whole)
    done = sync(whole)
    assert done.returncode == 0, done.stderr
    assert "push: send" in done.stdout and "archives/ILSVRC2012_img_train.tar" in done.stdout
    assert "pull: fetch" in done.stdout and "archives/theirs.tar" in done.stdout
    assert "nothing is done yet" in done.stderr
    assert tree(whole) == before
    assert not WRITES & {*names(proxy)}
    assert keys_there(s3, prefix) == {"archives/theirs.tar": 1000}


def test_a_process_that_syncs_again_keeps_no_memory_of_the_first_time(
    proxy: Proxy, prefix: str, whole: Path
) -> None:
    """In a process of its own: what other tests leave behind would be frozen too, and die."""
    code = (
        "import gc, sys\n"
        "from imnetprep.cli import run\n"
        "for _ in range(4):\n"
        "    assert run(sys.argv[1:]) == 0\n"
        "    print('frozen', gc.get_freeze_count())\n"
    )
    words = ["sync-s3", f"s3://{BUCKET}/{prefix}", "--root", str(whole)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    counts = [int(words[1]) for words in lines if words[0] == "frozen"]
    assert counts[0] > 1000 and counts[1] == counts[2] == counts[3]


def test_a_root_that_is_not_there_is_not_made_by_looking(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    put(s3, f"{prefix}/archives/theirs.tar", b"x")
    for code, words in ((0, []), (0, ["--pull", "--dry-run"]), (1, ["--push"]), (1, ["--check"])):
        assert sync(tmp_path / "no" / "root", *words).returncode == code
    assert not (tmp_path / "no").exists()


def test_a_dry_run_does_nothing_in_either_direction(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, whole: Path, tmp_path: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    there = keys_there(s3, prefix)
    (whole / "runs/first/last.pt").write_bytes(b"newer")
    (whole / "archives/more.tar").write_bytes(b"more")
    before = {name: body for name, body in tree(whole).items() if not name.startswith(".sync")}
    for words in ("--push --replace --delete --yes", "--pull --replace --delete --yes"):
        done = sync(whole, *words.split(), "--dry-run")
        assert done.returncode == 0, done.stderr
        assert not WRITES & {*names(proxy)}
    after = {name: body for name, body in tree(whole).items() if not name.startswith(".sync")}
    assert after == before
    assert keys_there(s3, prefix) == there


def test_with_json_each_line_is_a_table(sync: Sync, whole: Path) -> None:
    for words in ([], ["--push"]):
        done = sync(whole, "--json", *words)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        told_of = [each for each in told if "why" in each and each["direction"] == "push"]
        steps = {each["file"]: each for each in told_of}
        sums = [each for each in told if "cost_usd" in each]
        size_bytes = (whole / "archives/ILSVRC2012_img_val.tar").stat().st_size
        assert steps["archives/ILSVRC2012_img_val.tar"] == {
            "direction": "push",
            "action": "send",
            "file": "archives/ILSVRC2012_img_val.tar",
            "size_bytes": size_bytes,
            "why": "not in the bucket",
            "requests": 1,
        }
        assert [each["direction"] for each in sums] == (["push"] if words else ["push", "pull"])
        assert sums[0]["files"] == len([e for e in steps.values() if e["action"] == "send"])
        assert sums[0]["requests"] == sum(e["requests"] for e in steps.values())
    sent = {each["file"]: each for each in told if "done" in each}
    assert {each["done"] for each in sent.values()} == {"send"}
    assert {*sent} == {*steps, "manifest.db"}
    assert all(each["checksum"] and each["etag"] for each in sent.values())


def test_what_it_costs_is_by_the_prices_that_are_named(sync: Sync, whole: Path) -> None:
    done = sync(whole, "--json", "--push", "--dry-run", "--request-prices", "2000,1")
    summed = json.loads(done.stdout.splitlines()[-1])
    assert summed["cost_usd"] == 2 * summed["requests"]
    assert sync(whole, "--request-prices", "cheap").returncode == 2


def test_what_is_only_compared_costs_nothing_unless_it_may_be_replaced(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "root/archives/a.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"here")
    put(s3, f"{prefix}/archives/a.tar", b"then", ChecksumAlgorithm="CRC64NVME")
    words = ["--dry-run", "--json", "--request-prices", "2000,1000"]
    for way, price in (("--push", 2), ("--pull", 1)):
        told = sync(tmp_path / "root", way, *words).stdout.splitlines()
        assert [json.loads(told[0])["action"], json.loads(told[-1])["cost_usd"]] == ["compare", 0]
        told = sync(tmp_path / "root", way, "--replace", *words).stdout.splitlines()
        assert json.loads(told[-1])["cost_usd"] == price


PATHS = ["archives/a.tar", "archives/b.tar", "shards/val/index.json", "runs/r/last.pt"]
BODIES = st.sampled_from([None, b"a", b"b", b"longer"])
SIDES = st.fixed_dictionaries({path: st.tuples(BODIES, BODIES) for path in PATHS})
Sides = dict[str, tuple[bytes | None, bytes | None]]


def _survey(root: Root, journal: SyncJournal, sides: Sides, *, bucket: Any = None) -> Survey:
    """Both sides hold these bodies. Not known is what b's are here, and what ?'s are there.

    Without a `bucket` nothing is to be asked for.
    """
    here, there, records = {}, {}, {}
    for path, (ours, theirs) in sides.items():
        place = root.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if ours is not None:
            place.write_bytes(ours)
            here[path] = LocalFile(path, len(ours), place.stat().st_mtime_ns)
            if ours != b"b":
                known = Checksums(Checksum.empty("crc32").over(ours))
                journal.keep_file(path, file_state(place), known)
        if theirs is not None:
            there[path] = ListedObject(f"p/{path}", len(theirs), theirs.hex())
            known = Checksums(Checksum.empty("crc32").over(theirs))
            if not theirs.endswith(b"?"):
                records[path] = ObjectRecord(theirs.hex(), known)
    return Survey(
        root=root,
        bucket=bucket,
        address=S3Address(BUCKET, "p"),
        journal=journal,
        kind="crc32",
        contents=frozenset(Content),
        progress=Silent(),
        local=here,
        remote=there,
        receipt=RemoteReceipt({}, records),
    )


RUN, ARCHIVE = "runs/r/last.pt", "archives/a.tar"
# Path; the bodies on both sides, as `_survey` knows them; which sides have changed since the last
# sync (None: there was none); what a push does, and one with --replace and --delete; so a pull.
ROWS = {
    "only here": (ARCHIVE, b"a", None, None, "send send keep delete"),
    "only in the bucket": (ARCHIVE, None, b"a", None, "keep delete fetch fetch"),
    "equal": (ARCHIVE, b"a", b"a", None, "skip skip skip skip"),
    "unread": (ARCHIVE, b"b", b"b", None, "compare compare compare compare"),
    "no checksum": (ARCHIVE, b"a", b"?", None, "keep send keep fetch"),
    "unread, no checksum": (ARCHIVE, b"b", b"?", None, "keep send keep fetch"),
    "another checksum": (ARCHIVE, b"a", b"c", None, "keep send keep fetch"),
    "another size": (ARCHIVE, b"a", b"longer", None, "keep send keep fetch"),
    "another size, unread": (ARCHIVE, b"b", b"longer", None, "keep send keep fetch"),
    "another size, no checksum": (ARCHIVE, b"a", b"longer?", None, "keep send keep fetch"),
    "an archive changed here": (ARCHIVE, b"a", b"c", "local", "keep send keep fetch"),
    "a run never synced": (RUN, b"a", b"c", None, "keep send keep fetch"),
    "a run equal": (RUN, b"a", b"a", "local remote", "skip skip skip skip"),
    "a run changed here": (RUN, b"a", b"c", "local", "send send newer fetch"),
    "a run changed here, unread": (RUN, b"b", b"longer", "", "send send newer fetch"),
    "a run of one size, unread": (RUN, b"b", b"c", "local", "compare compare compare compare"),
    "a run changed there": (RUN, b"a", b"c", "remote", "newer send fetch fetch"),
    "a run changed on both sides": (RUN, b"a", b"c", "local remote", "keep send keep fetch"),
    "a run changed on no side": (RUN, b"a", b"c", "", "keep send keep fetch"),
}


class _SilentBucket:
    """A bucket whose server keeps no checksums."""

    def head(self, key: str) -> Head:
        return Head(1, "e", None)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_each_relation_of_the_two_sides_has_its_actions(
    row: tuple[str, bytes | None, bytes | None, str | None, str], tmp_path: Path
) -> None:
    path, ours, theirs, changed, actions = row
    root, planned = Root(tmp_path), []
    with open_sync_journal(root, endpoint="", keep=False) as journal:
        # Neither side is empty: --delete refuses that.
        sides = {path: (ours, theirs), "archives/z.tar": (b"z", b"z")}
        found = _survey(root, journal, sides, bucket=_SilentBucket())
        if changed is not None:
            value = str(Checksums(Checksum.empty("crc32").over(ours or b"")))
            etag = "before" if "remote" in changed else (theirs or b"").hex()
            value = "crc32:0" if "local" in changed else value
            journal.keep_synced(found.address / path, etag, value)
        for direction, force in product(Direction, (False, True)):
            plan = plan_sync(found, direction=direction, replace=force, delete=force)
            planned += [step.action for step in plan.steps if step.path == path]
    assert planned == actions.split()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sides=SIDES, direction=st.sampled_from(Direction), replace=st.booleans(), delete=st.booleans()
)
def test_whatever_lies_where_nothing_is_lost_that_was_not_given_up(
    tmp_path: Path, sides: Sides, direction: Direction, replace: bool, delete: bool
) -> None:
    root, pushing = Root(tmp_path), direction is Direction.PUSH
    source = {path: pair[0 if pushing else 1] for path, pair in sides.items()}
    target = {path: pair[1 if pushing else 0] for path, pair in sides.items()}
    with open_sync_journal(root, endpoint="", keep=False) as journal:

        def planned(**more: Any) -> list[Step]:
            found = _survey(root, journal, sides)
            return list(plan_sync(found, direction=direction, **more).steps)

        if delete and not any(body is not None for body in source.values()):
            with pytest.raises(ImnetprepError, match="would remove all"):
                planned(replace=replace, delete=True)
            return
        for step in planned(replace=replace, delete=delete):
            ours, theirs = source[step.path], target[step.path]
            match step.action:
                case Action.SEND | Action.FETCH:
                    assert ours is not None and ours != theirs
                    assert theirs is None or replace
                    target[step.path] = ours
                case Action.DELETE:
                    assert ours is None and delete
                    target[step.path] = None
                case Action.SKIP:
                    assert ours == theirs
                case Action.COMPARE:
                    assert ours is not None and theirs is not None and len(ours) == len(theirs)
                    target[step.path] = ours if replace else theirs
                case Action.KEEP:
                    assert ours != theirs
        if replace and delete:
            assert target == source
        sides = {path: (source[path], source[path]) for path in sides}
        assert {step.action for step in planned()} <= {Action.SKIP, Action.COMPARE}


@pytest.mark.parametrize(
    ("part_bytes", "parts"), [(4, "1"), (4, "1 2 3 4"), (0, "1"), (4, ""), (-1, ""), (1 << 62, "")]
)
def test_parts_that_are_not_those_of_the_whole_are_damage(part_bytes: int, parts: str) -> None:
    """Else a range is looked for in a part that there is not."""
    with pytest.raises(ValueError):
        Checksums.parse("crc32", 10, "0", part_bytes, parts)
    assert Checksums.parse("crc32", 10, "0", 4, "1 2 3").parts == (1, 2, 3)
