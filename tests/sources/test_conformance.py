"""What `download` promises, of every source alike: whole or absent, proved, gone on with, said."""

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.sources.seeder import make_torrent
from imnetprep.transfers.journal import read_part_sizes
from tests.sources.downloads import (
    ADDRESSES,
    OTHER_BODY,
    SIZES,
    Notes,
    StandIn,
    fetched,
    names_in,
    served,
)

TRAIN = "ILSVRC2012_img_train.tar"
PIECE = 1 << 14
RANGED = [name for name in ADDRESSES if name != "github, sources"]
_KILLED = """
import importlib, json, os, socket, sys, threading
class FromElsewhere(socket.socket):  # so that the server knows who asks
    def connect(self, address):
        self.bind(("127.0.0.2", 0))
        super().connect(address)
socket.socket = FromElsewhere
at, number, constants, words = json.loads(sys.argv[1])
def place(name):
    module, _, rest = name.rpartition(".")
    return importlib.import_module(f"imnetprep.{module}"), rest
for name, value in constants.items():
    setattr(*place(name), value)
module, owner, method = at.split(":")
owner, calls = getattr(importlib.import_module(f"imnetprep.{module}"), owner), 0
real, lock = getattr(owner, method), threading.Lock()
def counted(*arguments, **options):
    global calls
    real(*arguments, **options)
    with lock:
        calls += 1
        if calls == number:
            os.kill(os.getpid(), 9)
setattr(owner, method, counted)
from imnetprep import cli
cli.run(words)
"""


class Source(NamedTuple):
    """An address of the file, what stands in for its server, and the file's name and bytes here."""

    address: str
    server: StandIn
    name: str = "set.tar"
    dataset: Path | None = None

    def fetch(self, root: Path, **options: object) -> Notes:
        """Fetch it, and nothing else, with 8 jobs."""
        notes = Notes()
        (result,) = fetched(root, self.address, dataset=self.dataset, notes=notes, **options)  # type: ignore[arg-type]
        assert (root / "archives" / self.name).read_bytes() == self.server.body
        assert names_in(root) == [self.name]
        assert notes.bytes == notes.total or not notes.total
        assert result.is_new
        return notes


@pytest.fixture
def services(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """All sources' servers at one address, which they are led to; and nobody's credentials."""
    with served() as stand_in:
        for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_CONFIG_DIR", "HF_TOKEN",
                     "HF_HOME", "HF_TOKEN_PATH", "NETRC", "AWS_PROFILE"):  # fmt: skip
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name, value in stand_in.environment().items():
            monkeypatch.setenv(name, value)
        for name, constant in stand_in.constants().items():
            monkeypatch.setattr(f"imnetprep.{name}", constant)
        yield stand_in


@pytest.fixture
def torrents(packed: Path, tmp_path: Path) -> Path:
    """The definition of `packed` without digests, with the torrent of its train archive."""
    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    (folder / "t").write_bytes(make_torrent(folder / TRAIN, piece_bytes=PIECE))
    toml, line = folder / packed.name, f'name = "{TRAIN}"'
    lines = [each for each in toml.read_text().splitlines() if not each.startswith("md5")]
    toml.write_text("\n".join(lines).replace(line, f'{line}\ntorrent = "t"'))
    return toml


@pytest.fixture
def source(request: pytest.FixtureRequest, services: StandIn, torrents: Path) -> Source:
    """The source that the test's parameter names; `pieces`: a plain server, proved by a torrent."""
    if request.param == "pieces":
        services.body = (torrents.parent / TRAIN).read_bytes()
        return Source(f"{services.site}/plain/{TRAIN}", services, TRAIN, torrents)
    name = "tool-v1.tar.gz" if request.param == "github, sources" else "set.tar"
    return Source(ADDRESSES[request.param].format(site=services.site), services, name)


def of(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("source", names, indirect=True)


@of([*ADDRESSES, "pieces"])
def test_it_comes_whole_through_refusals_and_broken_bodies(source: Source, tmp_path: Path) -> None:
    source.server.refusals, source.server.cuts = 2, 3
    source.fetch(tmp_path / "root")
    sent_bytes = source.server.sent_bytes
    (result,) = fetched(tmp_path / "root", source.address, dataset=source.dataset)
    assert not result.is_new, "the second time it is said to be there"
    assert source.server.sent_bytes - sent_bytes <= 1, "and is not sent"


@of([*ADDRESSES, "pieces"])
def test_what_is_wrong_never_has_the_name(source: Source, tmp_path: Path) -> None:
    server, digest = source.server, ("sha256", hashlib.sha256(OTHER_BODY).hexdigest())
    if source.dataset is not None:
        server.spoil, digest = (lambda _start, body: bytes(len(body))), None  # type: ignore[assignment]
    with pytest.raises(WrongBytes) as refused:
        fetched(tmp_path / "root", source.address, dataset=source.dataset, digest=digest)
    assert refused.value.exit_code == 4 and refused.value.hint
    assert source.name not in names_in(tmp_path / "root")
    if source.dataset is None:
        assert names_in(tmp_path / "root") == [f"{source.name}.wrong"]
        server.body = OTHER_BODY
    server.spoil = lambda _start, body: body
    (result,) = fetched(tmp_path / "root", source.address, dataset=source.dataset, digest=digest)
    assert result.is_new


@of(RANGED)
@pytest.mark.parametrize("cuts", [0, 10])
def test_one_that_changes_is_begun_anew_and_said(source: Source, tmp_path: Path, cuts: int) -> None:
    """Between two requests, and behind bodies that broke."""
    source.server.change_at, source.server.cuts = 6, cuts
    notes = source.fetch(tmp_path / "root", jobs=1)
    assert source.server.body == OTHER_BODY
    assert [line for line in notes.lines if "has changed" in line and "begun anew" in line]


@of([*RANGED, "pieces"])
def test_a_disk_that_fills_up_keeps_the_part(source: Source, small_disk: Path) -> None:
    server, filler = source.server, small_disk / "filler"

    def fill(start: int, body: bytes) -> bytes:
        if server.asked_bytes.total() > 100_000 and not filler.exists():
            with filler.open("wb") as file:
                try:
                    while True:
                        file.write(bytes(1 << 16))
                        file.flush()
                except OSError:
                    pass
        return body

    server.spoil = fill
    with pytest.raises((ImnetprepError, OSError)) as full:
        source.fetch(small_disk, jobs=1)
    error = full.value.__cause__ or full.value
    assert "No space left" in str(error) or getattr(error, "errno", 0) == errno.ENOSPC
    assert source.name not in names_in(small_disk)
    filler.unlink()
    server.spoil = lambda _start, body: body
    before = server.sent_bytes
    source.fetch(small_disk)
    assert server.sent_bytes - before < len(server.body) - 50_000, "what was there is not sent"


@pytest.mark.skipif(sys.platform == "darwin", reason="it has no address 127.0.0.2 by itself")
@of([*RANGED, "pieces"])
def test_kills_cost_what_was_not_yet_on_record(source: Source, tmp_path: Path) -> None:
    """With 8 jobs, at random moments one after the other."""
    server, chance, root = source.server, random.Random(source.name), tmp_path / "root"
    step_bytes = PIECE if source.dataset else SIZES["transfers.range_download._JOURNALLED_BYTES"]
    at = "transfers.journal:PartJournal:keep_fetched"
    words = ["download", source.address, "--root", str(root), "--jobs", "8", "--quiet"]
    if source.dataset is not None:
        at, words = "sources.part_files:PartFiles:add", [*words, "--dataset", str(source.dataset)]
    least_bytes = 0
    for _ in range(3):
        number = chance.randrange(2, 12 if source.dataset is None else 5)
        constants = SIZES | server.constants() | {"retry._FIRST_WAIT_S": 0.001}
        told = json.dumps([at, number, constants, words])
        environment = {**os.environ, **server.environment()}
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, told], check=False, capture_output=True, env=environment
        )
        assert done.returncode == -9, done.stderr
        assert source.name not in names_in(root)
        least_bytes += number * step_bytes // 2  # the end of a range may be that short
    if source.dataset is None:  # what is on record; of pieces, what is there is right
        kept_bytes = sum(read_part_sizes(root / "archives" / ".download.db").values())
        assert kept_bytes >= least_bytes
        least_bytes = kept_bytes
    source.fetch(root)
    assert server.asked_bytes["127.0.0.1"] <= len(server.body) - least_bytes + 2
