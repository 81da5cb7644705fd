"""A sync that would compare nothing is an error, and its hint names what was perhaps meant."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.proxy import Proxy, Rule
from tests.servers import BUCKET, S3Server
from tests.sync.conftest import Sync, make_run, put


def _hint(sync: Sync, here: Run, root: Path, *words: object, place: str) -> str:
    """The hint of a sync that compares nothing; its first command finds something to compare."""
    done = sync(root, *words, place=place)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 findings" not in done.stdout and "0 files" not in done.stdout
    hint = done.stderr.splitlines()[-1].removeprefix("Hint: ")
    if hint.startswith("imnetprep sync-s3") and "--check" in words:
        words = tuple(shlex.split(hint.partition(";")[0]))
        assert here(*words[1:]).returncode in (0, 5), hint
    return hint


def test_a_prefix_that_is_mistyped_is_told_with_those_beside_it(
    sync: Sync, here: Run, proxy: Proxy, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    make_run(root, "first")
    for name in ("imagenet", "imagenette", "other"):
        put(s3, f"{prefix}/{name}/runs/first/last.pt", b"first last.pt" * 50)
    there = f"imnetprep sync-s3 --root {root} s3://{BUCKET}/{prefix}/imagenet"
    for way in ("--pull", "--check"):
        hint = _hint(sync, here, root, way, place=f"{prefix}/imagnet")
        assert hint.startswith(f"{there} {way}; or ") and "/other" not in hint
        assert f"{prefix}/imagenette {way}" in hint
    assert "imnetprep sync-s3" in hint and "--push sends what is here" in hint
    for wrong in ("imagnet/deeper/still", "imagenet/runs"):
        assert _hint(sync, here, root, "--pull", place=f"{prefix}/{wrong}").startswith(there)
    hint = _hint(sync, here, root, "--pull", place=prefix)  # one too high
    assert hint.count("imnetprep sync-s3") == 3
    put(s3, f"{prefix}/imagenet/launches/a/log.txt", b"beside the runs")
    done = sync(root, "--pull", "--what", "archives", place=f"{prefix}/imagenet")
    assert f"nothing at s3://{BUCKET}/{prefix}/imagenet: no archives" in done.stderr
    assert f"Hint: aws s3 ls s3://{BUCKET}/{prefix}/imagenet/\n" in done.stderr
    proxy.rules = [
        Rule("refuse", rf"prefix=t%2F[^%]*%2F&|prefix={prefix}/&", status=403, code="AccessDenied")
    ]
    hint = _hint(sync, here, root, "--pull", place=f"{prefix}/imagnet")
    assert hint == f"aws s3 ls s3://{BUCKET}/{prefix}/imagnet/"
    proxy.rules = []
    hint = _hint(sync, here, root, "--pull", place=f"{prefix}/imagenet/runs/first")
    assert hint.startswith("aws s3 ls ")  # it is there, and no root


def test_a_root_that_is_mistyped_is_told_with_those_beside_it(
    sync: Sync, here: Run, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    put(s3, f"{prefix}/runs/first/last.pt", b"first last.pt" * 50)
    make_run(tmp_path / "imagenet", "first")
    make_run(tmp_path / "my imagenet", "first")
    for way in ("--push", "--check"):
        hint = _hint(sync, here, tmp_path / "imagnet", way, place=prefix)
        assert hint.startswith(
            f"imnetprep sync-s3 s3://{BUCKET}/{prefix} --root {tmp_path}/imagenet"
        )
        assert "'my imagenet'" in hint or "/my imagenet'" in hint
    assert not (tmp_path / "imagnet" / "runs").exists()
    shutil.rmtree(tmp_path / "imagenet")
    shutil.rmtree(tmp_path / "my imagenet")
    hint = _hint(sync, here, tmp_path / "imagnet", "--push", place=prefix)
    assert hint.startswith("name the right folder by --root")
    (tmp_path / "folders" / "train").mkdir(parents=True)
    hint = _hint(sync, here, tmp_path / "folders", "--push", place=prefix)
    assert "--layout webdataset makes shards" in hint


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_plan_of_two_empty_sides_is_an_error(
    words: list[str], sync: Sync, prefix: str, tmp_path: Path
) -> None:
    done = sync(tmp_path / "none", *words)
    assert done.returncode == 1 and f"{tmp_path}/none has no archives" in done.stderr
    assert not (tmp_path / "none").exists()
