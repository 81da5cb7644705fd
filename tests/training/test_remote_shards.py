"""Training from shards that lie elsewhere: the numbers of a local root, whatever is cached."""

import errno
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from imnetprep import retry
from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.fs import exclusive
from imnetprep.loading.order import Window, shuffled
from imnetprep.manifest import open_manifest
from imnetprep.messages import ImnetprepError, Interruption, Silent, SourceFailed, Task, WrongUsage
from imnetprep.organize_shards import plan_organize_shards
from imnetprep.remote_shards.cache import Cache
from imnetprep.remote_shards.place import ShardPlace
from imnetprep.remote_shards.shards import WrongShard
from imnetprep.reports.record import RunRecord
from imnetprep.samples.sample_list import read_samples
from imnetprep.sharding.make import Sharding
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.runs import Run
from tests.conftest import Run as RunCommand
from tests.conftest import spoil
from tests.drawn import draw_root
from tests.http_server import Answering
from tests.servers import BUCKET, WebServer, s3_served, web_served
from tests.training.stops import SignalAt
from tests.training.test_ranks import refuse_distance, train_as_ranks
from tests.training.test_train import numbers, refuse_difference, refuse_other_tensors, trained

SMALL = {"arch": "cnn-small", "image_size": 32, "batch_size": 4, "epochs": 2, "lr": 0.02}
SHARDS, VAL_SHARDS = 10, 4


@pytest.fixture(autouse=True, scope="module")
def no_plots() -> Iterator[None]:
    """They take most of the time, and are of another room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecord, "draw", lambda *_: None)
        yield


def sharded(place: Path, shard_size: int) -> Root:
    """60 training and 21 validation images in shards of so many."""
    root = draw_root(place)
    plan = plan_organize_shards(root, Sharding(shard_size), dataset=None, splits=(), jobs=1)
    assert len(list(plan.carry_out(Silent()))) == 2
    for split in ("train", "val"):
        shutil.rmtree(root.path / split)
    return root


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Shards of six images."""
    return sharded(tmp_path_factory.mktemp("near"), 6)


@pytest.fixture(scope="module")
def whole(near: Root) -> Run:
    """A training on the local shards, shuffled as a whole."""
    trained(near, run="whole", options=SMALL)
    return Run(near.run("whole"))


@pytest.fixture(scope="module")
def windowed(near: Root) -> Run:
    """A training on the local shards, shuffled among three of them."""
    trained(near, run="windowed", options={**SMALL, "shuffle_window": 3})
    return Run(near.run("windowed"))


@pytest.fixture
def web(near: Root) -> Iterator[WebServer]:
    """The shards and the manifest on a web server."""
    with web_served(near.path) as server:
        yield server


@pytest.fixture(scope="module")
def largest_bytes(near: Root) -> int:
    """What the largest train shard takes, up to its last image."""
    return largest(near, Split.TRAIN)


def largest(root: Root, split: Split) -> int:
    """What the largest shard of a split takes, up to its last image."""
    with open_manifest(root.manifest) as manifest:
        places = read_samples(manifest, split, root).places
    assert places is not None
    return int((places.offsets + places.sizes).max())


def fetches(web: WebServer) -> Counter[str]:
    """How often each shard was asked for, beside the look at its size."""
    return Counter(
        Path(path).stem for path, span in web.asked if path.endswith(".tar") and span != "bytes=0-0"
    )


def refuse_other_weights(run: Run, other: Run) -> None:
    """The two differ in nothing but the order in which validation rounds."""
    refuse_other_tensors(load_checkpoint(run.last).weights, load_checkpoint(other.last).weights)
    for line, other_line in zip(numbers(run), numbers(other), strict=True):
        assert line["train"] == other_line["train"]
        assert line["val"]["top1"] == other_line["val"]["top1"]
        assert line["val"]["loss"] == pytest.approx(other_line["val"]["loss"], rel=1e-5)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_window_keeps_few_shards_in_use(repeats: int) -> None:
    shards = torch.arange(600) % 20
    order = shuffled(600, batch_size=8, seed=3, repeats=repeats, window=Window(shards, 4))
    keys = order(1)
    assert torch.equal(keys, order(1)) and not torch.equal(keys, order(2))
    assert len(set(keys.tolist())) == len(keys) == 600
    places = [torch.nonzero(shards[keys % 600] == shard).flatten() for shard in range(20)]
    spans = [(int(each[0]), int(each[-1])) for each in places if len(each)]
    assert max(sum(start <= at <= end for start, end in spans) for at in range(600)) <= 5
    assert len({int(shard) for shard in shards[keys[300:332] % 600]}) >= 4


def test_a_cache_that_holds_all_gives_the_numbers_of_a_local_root(
    near: Root, whole: Run, web: WebServer, tmp_path: Path
) -> None:
    place = ShardPlace(web.address, Cache(tmp_path / "cache", 10**7))
    root = Root(tmp_path / "root")
    trained(root, options=SMALL, shards=place, workers=4)
    refuse_difference(Run(root.run("a")), whole)
    assert set(fetches(web).values()) == {1}
    assert len(fetches(web)) == SHARDS + VAL_SHARDS
    web.asked.clear()
    trained(root, run="b", options={**SMALL, "epochs": 1}, shards=place)
    assert not fetches(web)


@contextmanager
def weighed(web: WebServer, folder: Path) -> Iterator[list[int]]:
    """What lies in the cache at each request that the server gets."""
    sizes_bytes, send = list[int](), web.send

    def weigh(request: Answering) -> None:
        if folder.exists():
            with (folder / ".lock").open("ab") as lock, exclusive(lock.fileno()):  # one moment
                sizes_bytes.append(0)
                for path in folder.iterdir():
                    with suppress(FileNotFoundError):
                        sizes_bytes[-1] += path.stat().st_size
        send(request)

    web.send = weigh  # type: ignore[method-assign]
    yield sizes_bytes


def test_a_small_cache_is_never_over_its_size_and_an_epoch_fetches_each_shard(
    largest_bytes: int, windowed: Run, web: WebServer, tmp_path: Path
) -> None:
    limit_bytes = 5 * largest_bytes
    place = ShardPlace(web.address, Cache(tmp_path / "cache", limit_bytes))
    root = Root(tmp_path / "root")
    with weighed(web, tmp_path / "cache") as sizes_bytes:
        trained(root, options=SMALL, shards=place)
    assert limit_bytes / 2 < max(sizes_bytes) <= limit_bytes
    refuse_other_weights(Run(root.run("a")), windowed)
    assert load_checkpoint(Run(root.run("a")).last).recipe.shuffle_window == 3
    # Two epochs. A reader that is faster than those who fetch ahead may remove one too early.
    assert fetches(web).total() <= 2 * (SHARDS + VAL_SHARDS) + 2


def test_stopped_in_an_epoch_it_resumes_with_another_cache_and_other_workers(
    largest_bytes: int, windowed: Run, web: WebServer, tmp_path: Path
) -> None:
    sizes_bytes, root = [5 * largest_bytes, 10**7], Root(tmp_path / "root")
    options, workers = SMALL, 2
    for batches, limit_bytes in ((4, sizes_bytes[0]), (13, sizes_bytes[1])):
        place = ShardPlace(web.address, Cache(tmp_path / "cache", limit_bytes))
        with pytest.raises(Interruption):
            stop = SignalAt(signal.SIGTERM, batches=batches)
            trained(
                root, options=options, shards=place, resume=True, workers=workers, progress=stop
            )
        options, workers = {}, 0
    trained(root, options={}, shards=place, resume=True)
    refuse_other_weights(Run(root.run("a")), windowed)
    small = ShardPlace(web.address, Cache(tmp_path / "cache", 2 * largest_bytes))
    with pytest.raises(WrongUsage, match="is too small for shards of up to") as refused:
        trained(root, run="b", options=SMALL, shards=small)
    assert refused.value.hint == "--cache-size 1MB or more"


def test_two_ranks_train_on_the_batches_of_one(
    near: Root, largest_bytes: int, web: WebServer, tmp_path: Path
) -> None:
    place = ShardPlace(web.address, Cache(tmp_path / "cache", 6 * largest_bytes))
    root = Root(tmp_path / "root")
    options = {**SMALL, "arch": "mlp-small", "shuffle_window": 3}  # without BatchNorm
    trained(near, run="alone", options=options)
    assert train_as_ranks(root, 2, options=options, shards=place) == [0, 0]
    refuse_distance(Run(root.run("a")), Run(near.run("alone")))


def test_a_damaged_shard_is_refused_and_the_run_goes_on_once_it_is_mended(
    near: Root, whole: Run, tmp_path: Path
) -> None:
    root, copy = Root(tmp_path / "root"), tmp_path / "copy"
    shutil.copytree(near.path, copy)
    shard = copy / "shards" / "train" / "train-000003.tar"
    body = shard.read_bytes()
    spoil(shard, 800)
    place = ShardPlace(str(copy), Cache(tmp_path / "cache", 10**7))
    with pytest.raises(WrongShard, match=r"3\.tar is not what the manifest says: 1 image of 6"):
        trained(root, options=SMALL, shards=place, skip_bad=True)
    assert not list((tmp_path / "cache").glob("train-000003*"))
    shard.write_bytes(body)
    trained(root, options={} if Run(root.run("a")).is_begun else SMALL, shards=place, resume=True)
    refuse_difference(Run(root.run("a")), whole)


def test_a_place_that_is_gone_ends_with_one_error_and_the_run_is_saved(
    largest_bytes: int,
    windowed: Run,
    web: WebServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 1e-4)
    root = Root(tmp_path / "root")
    place = ShardPlace(web.address, Cache(tmp_path / "cache", 5 * largest_bytes))
    web.dies_after = 14
    with pytest.raises(SourceFailed, match=web.address) as refused:
        trained(root, options=SMALL, shards=place)
    run = Run(root.run("a"))
    assert refused.value.hint == "check the network; imnetprep train --resume --run a"
    position = load_checkpoint(run.last).position
    assert position.epoch == 0 and position.step > 0
    web.dies_after = None
    trained(root, options={}, shards=place, resume=True)
    refuse_other_weights(run, windowed)


def test_a_full_disk_below_the_cache_is_one_error(
    near: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    place = ShardPlace(str(near.path), Cache(tmp_path / "cache", 10**7))
    with pytest.raises(SourceFailed, match="cache: No space left on device"):
        trained(Root(tmp_path / "root"), options=SMALL, shards=place)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_place_that_cannot_be_trained_on_is_told(near: Root, tmp_path: Path) -> None:
    root, cache = Root(tmp_path / "root"), Cache(tmp_path / "cache", 10**7)
    with pytest.raises(ImnetprepError, match=r"manifest\.db is not there"):
        trained(root, options=SMALL, shards=ShardPlace(str(tmp_path), cache))
    with pytest.raises(WrongUsage, match="each sample is a file"):
        trained(draw_root(tmp_path / "files"), options={**SMALL, "shuffle_window": 3})
    few = ShardPlace(str(near.path), Cache(tmp_path / "cache", 110_000))
    with pytest.raises(WrongUsage, match="images are shuffled among 8 shards, which take"):
        trained(root, options={**SMALL, "shuffle_window": 8}, shards=few)


def test_the_command_reads_what_a_push_left_in_a_bucket(
    near: Root, whole: Run, here: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weed").mkdir()
    with s3_served(tmp_path / "weed") as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        address = f"s3://{BUCKET}/drawn"
        done = here("sync-s3", address, "--root", near.path, "--push", "--what", "shards,manifest")
        assert done.returncode == 0, done.stderr
        words: list[Any] = ["train", "--root", tmp_path / "root", "--shards", address]
        words += ["--device", "cpu", "--workers", 2, "--run", "a", "--log-every", 2]
        for option, choice in SMALL.items():
            words += [f"--{option.replace('_', '-')}", choice]
        done = here(*words, "--cache-dir", tmp_path / "cache", "--cache-size", "1MB")
        assert done.returncode == 0, done.stderr
    refuse_difference(Run(tmp_path / "root" / "runs" / "a"), whole)
    done = here("train", "--root", near.path, "--cache-size", "1MB")
    assert "only shards that lie elsewhere are cached" in done.stderr


class Calling(Silent):
    """Calls a function once, when a batch of the first epoch is done."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator[Task]:
        yield self

    def advance(self, amount: int) -> None:
        if self._call:
            call, self._call = self._call, None
            call()

    def tell(self, detail: str) -> None: ...


def test_the_cache_of_a_root_is_told_and_removed_once_nobody_reads_it(
    near: Root, here: RunCommand, run: RunCommand, tmp_path: Path
) -> None:
    root = Root(tmp_path / "root")

    def lines(runner: RunCommand, verb: str, *words: object) -> list[dict[str, Any]]:
        done = runner(verb, "--root", root.path, "--json", *words)
        assert done.returncode == 0, done.stderr
        is_told = f"another imnetprep is at work in {root.shard_cache}" in done.stderr
        assert is_told == (verb == "clean" and runner is run)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def cache(runner: RunCommand) -> dict[str, Any]:
        (status,) = [each for each in lines(runner, "status") if each["kind"] == "cache"]
        return status

    def look() -> None:
        """In another process: locks of a root keep none of the same one off."""
        assert cache(run)["at_work"] and cache(run)["shards"] > 0
        assert lines(run, "clean", "--yes")[-1]["found"] == 0

    place = ShardPlace(str(near.path), Cache(root.shard_cache, 10**7))
    looks = Calling(look)
    trained(root, options={**SMALL, "epochs": 1}, shards=place, workers=1, progress=looks)
    assert looks._call is None
    status, sizes = cache(here), [path.stat().st_size for path in root.shard_cache.glob("*.tar")]
    assert (status["shards"], status["at_work"]) == (SHARDS + VAL_SHARDS, False)
    assert status["size_bytes"] == sum(sizes)
    said = here("status", "--root", root.path).stdout
    assert f"{SHARDS + VAL_SHARDS} shards of other places, " in said
    removed = lines(here, "clean", "--yes")[0]
    assert (removed["kind"], removed["path"]) == ("cache", str(root.shard_cache))
    assert not list(root.shard_cache.glob("*.tar"))
    trained(root, options={}, shards=place, resume=True)


def test_val_shards_of_a_place_are_scored_as_those_of_a_root(
    near: Root, here: RunCommand, tmp_path: Path
) -> None:
    """Also where the cache is too small for all of them, and shards are read in turn."""
    root = sharded(tmp_path / "sharded", 2)
    trained(near, run="poor", options={**SMALL, "epochs": 1, "lr": 1e-6})
    best = near.run("poor") / "best.pt"
    words = ["evaluate", best, "--device", "cpu", "--batch-size", 4, "--json"]

    def scored(name: str, *more: object) -> dict[str, Any]:
        done = here(*words, "--report", tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
        score: dict[str, Any] = json.loads(done.stdout)
        return {key: score[key] for key in ("images", "top1", "top5", "loss")}

    scores = {"root": scored("root", "--root", root.path, "--workers", 0)}
    size_bytes = largest(root, Split.VAL)
    for name, limit_bytes in (("whole", 12 * size_bytes), ("small", 4 * size_bytes)):
        place = ["--root", tmp_path / "other", "--shards", root.path, "--workers", 2]
        place += ["--cache-dir", tmp_path / f"{name}-cache", "--cache-size", f"{limit_bytes}"]
        scores[name] = scored(name, *place)
        cached = list((tmp_path / f"{name}-cache").glob("*.tar"))
        assert all(path.name.startswith("val-") for path in cached)
        assert len(cached) == 11 if name == "whole" else len(cached) < 11
    assert scores["whole"] == scores["root"] and scores["root"]["images"] == 21
    assert scores["small"] == {**scores["root"], "loss": pytest.approx(scores["root"]["loss"])}
    for table in ("classes.csv", "confusion.csv", "mistakes.csv"):
        bodies = {(tmp_path / name / table).read_text() for name in scores}
        assert len(bodies) == 1
    mistakes = (tmp_path / "root" / "mistakes.csv").read_text().splitlines()
    assert len(mistakes) == 1 + 21 - scores["root"]["top1"] > 1
    assert not (tmp_path / "other").exists()
    done = here(*words, "--root", root.path, "--cache-size", "1MB")
    assert "only shards that lie elsewhere are cached" in done.stderr


def test_images_held_out_of_train_are_scored_at_a_place_without_val_shards(
    near: Root, here: RunCommand, tmp_path: Path
) -> None:
    root = Root(
        shutil.copytree(near.path, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    )
    with open_manifest(root.manifest, write=True) as manifest:
        manifest.drop_split(Split.VAL, Layout.WEBDATASET)
    shards = ["--shards", root.path, "--device", "cpu", "--root", tmp_path / "root"]
    options = {**SMALL, "val_fraction": 0.2}
    place = ShardPlace(str(root.path), Cache(tmp_path / "root" / ".shards", 10**7))
    (report, *_) = trained(Root(tmp_path / "root"), options=options, shards=place)
    done = here("evaluate", *shards, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == report.val.images
    assert f"{root.path} has no val split: scored on 17 images of train" in done.stderr


def test_a_bench_fetches_a_few_shards_and_train_tells_the_time_by_it(
    near: Root, largest_bytes: int, web: WebServer, here: RunCommand, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    words = ["--root", root, "--arch", "mlp-small", "--image-size", 16, "--batch-size", 8]
    words += ["--device", "cpu", "--workers", 0, "--epochs", 2, "--decode", "pillow", "--json"]
    small = ["--shards", web.address, "--cache-size", f"{6 * largest_bytes}"]

    def told(verb: str, *more: object) -> dict[str, Any]:
        done = here(verb, *words, *more)
        assert done.returncode == 0, done.stderr
        line: dict[str, Any] = json.loads(done.stdout)
        return line

    bench = told("bench", *small, "--seconds", 0.2)
    assert {name[:5] for name in fetches(web)} == {"train", "val-0"}
    assert set(fetches(web).values()) == {1} and len(fetches(web)) <= 5
    rates = bench["rates"]
    assert min(rates["fetch"], rates["loader"][0]["images_per_s"], rates["validation"]) > 0
    assert rates["cache"] is None and bench["subject"]["shards"] == web.address
    assert {path.name for path in root.iterdir()} == {".bench.json", ".shards"}
    # The time of all images, of which each comes in each epoch.
    assert bench["epoch_s"] >= 60 // 8 * 8 / rates["fetch"]
    assert told("train", *small, "--dry-run")["total_s"] == pytest.approx(bench["total_s"])
    # At another place, and in a root, nothing was measured.
    assert "total_s" not in told("train", "--shards", near.path, "--dry-run")
    assert "total_s" not in told("train", "--root", near.path, "--dry-run")


def test_a_bench_of_shards_that_all_lie_in_the_cache_tells_no_rate_of_theirs(
    near: Root, here: RunCommand, tmp_path: Path
) -> None:
    trained(Root(tmp_path), options={**SMALL, "epochs": 1}, shards=_place(near, tmp_path))
    words = ["--root", tmp_path, "--shards", near.path, "--arch", "mlp-small", "--image-size", 16]
    words += ["--batch-size", 8, "--device", "cpu", "--workers", 0, "--val-fraction", 0.2]
    done = here("bench", *words, "--seconds", 0.2)
    assert done.returncode == 0, done.stderr
    assert "end to end, images/s" in done.stdout and "shards" not in done.stdout
    assert f"measured on some shards of {near.path}, which are fetched first" in done.stderr
    refusals: list[tuple[list[object], str]] = [
        (["--shuffle-window", 8, "--cache-size", 110_000], "images are shuffled among 8 shards"),
        (["--shards", tmp_path / "absent"], "manifest.db is not there"),
        (["--layout", "webdataset"], "--layout cannot be used: --shards has shards"),
    ]
    for more, sentence in refusals:
        done = here("bench", *words, *more)
        assert done.returncode and done.stdout == ""
        assert sentence in done.stderr


def _place(near: Root, root: Path) -> ShardPlace:
    return ShardPlace(str(near.path), Cache(root / ".shards", 10**7))
