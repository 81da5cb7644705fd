"""`imnetprep bench`: what it measures, what it says of it, and what it keeps."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from imnetprep.catalog.datasets import Root
from imnetprep.devices.device import Place
from imnetprep.measuring.bench import Bench
from imnetprep.measuring.busy_cores import count_busy
from imnetprep.measuring.clock import INTERVALS, median_rate
from imnetprep.measuring.machine_rates import Subject, read_rates, write_rates
from imnetprep.measuring.printout import lines
from imnetprep.measuring.rates import Duration, Gain, Rate, Rates, duration, parse_rates
from imnetprep.measuring.verdict import verdict
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.training.data import read_data
from imnetprep.training.root_wish import root_side, root_wish
from tests.conftest import Run as RunCommand
from tests.conftest import snapshot

SMALL = [
    "--arch",
    "cnn-small",
    "--image-size",
    "16",
    "--batch-size",
    "8",
    "--workers",
    "0",
    "--device",
    "cpu",
]
SUBJECT = Subject(
    "a CPU", 4, "cuda A10G", 4, "imagefolder", "pillow", "", {"arch": "resnet18", "amp": True}
)
RATES = Rates(
    (Rate(224, 5500.0),), 256, (Rate(224, 2600.0),), 2500.0, 0.5, 3000.0, Gain(256, 2.43, 20), 0.5
)


@pytest.mark.parametrize(
    ("step", "loader", "end_to_end", "gain", "device", "workers", "words"),
    [
        (5500, 2600, 2500, 2.43, "cuda", 4,
         "loader-bound: 4 cores give 2,600 images/s, cuda wants 5,500;"
         " organize --resize 256: 2.4 ×, or 9 cores"),
        (5500, 2600, 2500, 1.02, "cuda", 4,
         "loader-bound: 4 cores give 2,600 images/s, cuda wants 5,500; 9 cores"),
        (1000, 600, 550, 1.0, "cuda", 2,
         "loader-bound: 2 workers give 600 images/s, cuda wants 1,000; --workers 4"),
        (1000, 600, 550, 1.0, "cuda", 0,
         "loader-bound: images read without --workers give 600 images/s, cuda wants 1,000;"
         " --workers 2"),
        (997, 112, 116, 7.0, "cpu", 4,
         "loader-bound: 4 cores give 112 images/s, cpu wants 997; organize --resize 256: 7.0 ×"),
        (997, 112, 116, 1.0, "cpu", 4,
         "loader-bound: 4 cores give 112 images/s, cpu wants 997"),
        (1000, 4000, 980, 2.4, "cuda", 2,
         "device-bound: cuda takes 1,000 images/s, the loader gives 4,000 (4.0 × as many)"),
        (1000, 1200, 700, 1.0, "cuda", 2,
         "device-bound: cuda takes 1,000 images/s, the loader gives 1,200 (1.2 × as many);"
         " together 700"),
        (61.25, 411, 50, 2.4, "cpu", 2,
         "device-bound: cpu takes 61.2 images/s, the loader gives 411 (6.7 × as many);"
         " together 50.0: they share the cores"),
        (61.25, None, None, None, "cpu", 2,
         "cpu alone: it wants 61.2 images/s; no images were read"),
    ],
)  # fmt: skip
def test_what_holds_a_training_back_is_said_in_words(
    step: float,
    loader: float | None,
    end_to_end: float | None,
    gain: float | None,
    device: str,
    workers: int,
    words: str,
) -> None:
    rates = Rates(
        (Rate(224, step),),
        256,
        () if loader is None else (Rate(224, loader),),
        end_to_end,
        gain=None if gain is None else Gain(256, gain, 20),
    )
    assert verdict(rates, device=device, cores=4, workers=workers) == words


def test_shards_that_come_in_each_epoch_may_hold_a_training_back() -> None:
    rates = replace(RATES, fetch=800.0)
    said = partial(verdict, device="cuda", cores=4, workers=4)
    assert said(rates, needed_bytes=150_300_000_001) == (
        "fetch-bound: shards come at 800 images/s, the loader gives 2,600, cuda wants 5,500;"
        " --cache-size 150301MB has them come once"
    )
    for other, needed_bytes in ((rates, 0), (replace(rates, fetch=3000.0), 10**9)):
        assert said(other, needed_bytes=needed_bytes).startswith("loader-bound")


@pytest.mark.parametrize(
    ("fetched_epochs", "time"), [(0, (3, 1, 9)), (1, (3, 1, 21)), (9, (15, 5, 45))]
)
def test_no_image_is_faster_than_its_shard_comes(
    fetched_epochs: int, time: tuple[float, float, float]
) -> None:
    rates = replace(RATES, end_to_end=1000.0, validation=1000.0, fetch=200.0)
    counts = {"train_images": 2000, "val_images": 1000, "fetched_epochs": fetched_epochs}
    assert duration(rates, [224] * 3, **counts) == pytest.approx(time)
    assert duration(replace(rates, fetch=None), [224] * 3, **counts) == pytest.approx((3, 1, 9))


def test_epochs_of_growing_crops_are_counted_by_their_pixels() -> None:
    rates = replace(
        RATES,
        step=(Rate(100, 4000.0), Rate(200, 1000.0)),
        loader=(Rate(100, 9000.0), Rate(200, 9000.0)),
        end_to_end=900.0,
        validation=500.0,
    )
    assert rates.training(200) == pytest.approx(900)
    assert rates.training(100) == pytest.approx(3600)
    # Half way in pixels, half way in seconds an image.
    assert rates.training(158) == pytest.approx(0.9 / ((1 / 4000 + 1 / 1000) / 2), rel=0.01)
    time = duration(rates, [100, 200], train_images=3600, val_images=1000)
    assert time and time == pytest.approx((6, 2, 3 + 6))
    assert duration(replace(rates, validation=None), [100], train_images=1, val_images=1) is None
    assert duration(replace(rates, end_to_end=None), [100], train_images=1, val_images=0) is None


def test_devices_stand_side_by_side() -> None:
    recipe = plan_recipe({"first_size": 160, "train_size": 192, "epochs": 16}, amp_pays=False)
    slow = Rates((Rate(160, 20.0), Rate(192, 15.5)), 8)
    growing = replace(RATES, step=(Rate(160, 9000.0), Rate(192, 5500.0)), loader=slow.step)
    benches = [
        Bench(Place(torch.device("cuda"), 4), recipe, SUBJECT, growing, Duration(65, 5, 4000)),
        Bench(Place(torch.device("cpu"), 2), recipe, replace(SUBJECT, cores=2), slow, None),
    ]
    text = [line for line in lines(benches) if "alone, 160" in line or "epoch" in line]
    assert [line.split()[-2:] for line in text] == [
        ["20.0", "–"], ["9,000", "20.0"], ["1:05", "–"], ["1:06:40", "–"],
    ]  # fmt: skip
    remarks = "\n".join(lines(benches)[-7:])
    assert "cuda: loader-bound: 4 cores give 15.5 images/s, cuda wants 5,500" in remarks
    assert "  50 % of the images lay in the page cache" in remarks
    assert "the recipe looks at 256 px at most: a root of organize --resize 256" in remarks
    assert "cpu: cpu alone: it wants 15.5 images/s" in remarks


def test_cores_that_others_use_are_counted() -> None:
    earlier = "cpu  9 9\ncpu0 100 0 50 1000 10 0 0 0 5 0\ncpu1 0 0 0 10 0 0 0 0 0 0\n"
    later = "cpu  9 9\ncpu0 115 0 55 1005 15 0 0 0 9 0\ncpu1 0 0 0 40 0 0 0 0 0 0\nintr 1\n"
    assert count_busy(earlier, later, {0, 1}) == pytest.approx(20 / 30)
    assert count_busy(earlier, later, {1}) == count_busy(later, later, {0}) == 0


def test_one_disturbed_interval_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, seconds = 0.0, iter([1.0, 1.0, 30.0, 1.0, 1.0])

    def work() -> int:
        nonlocal now_s
        now_s += next(seconds)
        return 8

    monkeypatch.setattr("time.perf_counter", lambda: now_s)
    ends: list[None] = []
    assert median_rate(work, seconds=5, on_interval=lambda: ends.append(None)) == 8
    assert len(ends) == INTERVALS


def test_a_bench_tells_rates_verdict_and_time_and_train_tells_the_time_again(
    root: Root, here: RunCommand
) -> None:
    before = snapshot(root.path)
    options = [*SMALL, "--root", root.path, "--epochs", 2, "--decode", "pillow"]
    done = here("bench", *options, "--first-size", 8, "--seconds", 0.2, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    rates = line["rates"]
    assert [each["side_px"] for each in rates["step"]] == [8, 16]
    assert [each["side_px"] for each in rates["loader"]] == [8, 16]
    assert all(each["images_per_s"] > 0 for each in rates["step"] + rates["loader"])
    assert 0 <= rates["wait_share"] <= 1 and rates["end_to_end"] > 0 < rates["validation"]
    assert rates["gain"]["side_px"] == 32 and rates["gain"]["images"] >= 4
    assert rates["cache"] is None or 0 <= rates["cache"] <= 1
    assert 0 < line["validation_s"] < line["epoch_s"] < line["total_s"]
    assert "-bound: " in line["verdict"]

    names = {name for name in snapshot(root.path) if name not in before}
    assert names == {".bench.json"}  # and no run, no weights
    plan = here("train", *options, "--first-size", 8, "--dry-run", "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["total_s"] == pytest.approx(line["total_s"])
    said = here("train", *options, "--first-size", 8, "--dry-run")
    assert "an epoch takes 0:0" in said.stdout and ": by imnetprep bench of 2" in said.stdout
    # Other sizes, another decoder, and images that are decoded once: never measured.
    for words in ([], ["--decode", "simplejpeg"], ["--cache", "ram"]):
        sizes = ["--first-size", 8] if words else []
        other = here("train", *options, *sizes, *words, "--dry-run", "--json")
        assert other.returncode == 0, other.stderr
        assert "total_s" not in json.loads(other.stdout)


@pytest.fixture
def photographs(tmp_path: Path) -> Root:
    """A plain tree of eight images, a quarter of them no images."""
    for number in range(8):
        path = tmp_path / "photographs" / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400, 300 + number)).save(path)
        if number < 2:
            path.write_bytes(path.read_bytes()[:2])
    return Root(tmp_path / "photographs", tmp_path / "runs")


def test_a_recipe_says_which_root_it_would_like(photographs: Root, here: RunCommand) -> None:
    samples = read_data(photographs).train
    sides: list[tuple[dict[str, Any], int]] = [
        ({}, 256), ({"image_size": 176}, 224), ({"image_size": 64, "train_size": 128}, 160),
        ({"val_resize": 400}, 416), ({"recipe": "fast16"}, 320),
    ]  # fmt: skip
    for options, side in sides:
        assert root_side(plan_recipe(options, amp_pays=False)) == side
    assert root_wish(plan_recipe({"image_size": 224}, amp_pays=False), samples) is None
    wish = "looks at 37 px at most, the images have 304 px: a root of organize --resize 64"
    assert wish in str(root_wish(plan_recipe({"image_size": 32}, amp_pays=False), samples))
    done = here("bench", *SMALL, "--root", photographs.path, "--no-val", "--seconds", 0.2)
    assert done.returncode == 0, done.stderr
    assert "the recipe looks at 18 px at most: a root of organize --resize 32 is" in done.stdout
    words = (*SMALL, "--root", photographs.path, "--runs", photographs.runs, "--no-val")
    run = here("train", *words, "--epochs", 1, "--on-bad-image", "skip")
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("a root of organize --resize 32 is read faster") == 1


def test_without_a_dataset_the_device_alone_is_measured(tmp_path: Path, here: RunCommand) -> None:
    done = here("bench", *SMALL, "--root", tmp_path / "absent", "--seconds", 0.1)
    assert done.returncode == 0, done.stderr
    assert "holds no dataset: the device alone is measured" in done.stderr
    assert "device alone, images/s" in done.stdout and "loader alone" not in done.stdout
    assert "no images were read" in done.stdout
    assert not any(tmp_path.iterdir())


def test_nothing_is_written_into_a_plain_tree(
    drawn: Root, tmp_path: Path, here: RunCommand
) -> None:
    shutil.copytree(drawn.path / "train", tmp_path / "photos" / "train")
    before = snapshot(tmp_path)
    options = (*SMALL, "--root", tmp_path / "photos", "--no-val", "--workers", 1, "--seconds", 0.1)
    done = here("bench", *options)
    assert done.returncode == 0, done.stderr
    assert "end to end, images/s" in done.stdout and "validation" not in done.stdout
    assert snapshot(tmp_path) == before


def test_what_makes_no_sense_is_refused_as_by_train(root: Root, here: RunCommand) -> None:
    before = snapshot(root.path)
    refusals: list[tuple[list[object], str, int]] = [
        (["--epochs", 0], "--epochs 0 is not between", 2),
        (["--device", "cpu,abacus"], "--device abacus is no device", 2),
        (["--arch", "resnet19"], "there is no architecture 'resnet19'", 2),
        (["--layout", "webdataset"], "no train split as webdataset", 1),
    ]
    for words, sentence, code in refusals:
        done = here("bench", *SMALL, "--root", root.path, *words)
        assert (done.returncode, done.stdout) == (code, "")
        assert sentence in done.stderr
    assert snapshot(root.path) == before


def test_rates_are_kept_by_subject_and_the_last_ones_count(root: Root) -> None:
    write_rates(root, SUBJECT, RATES)
    other = replace(SUBJECT, workers=8)
    write_rates(root, other, RATES)
    newer = replace(RATES, end_to_end=2550.0, gain=None)
    write_rates(root, SUBJECT, newer)
    entries = [read_rates(root, each) for each in (SUBJECT, other, replace(SUBJECT, cores=5))]
    assert [each and each.rates for each in entries] == [newer, RATES, None]
    assert len(json.loads((root.path / ".bench.json").read_text())["entries"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff", b"[]", b"{}", b'{"entries": 1}', b'{"entries": [1, {}, {"subject": []}]}',
        b"[" * 100_000, b" " * (2 << 20),
    ],
)  # fmt: skip
def test_a_damaged_file_counts_as_absent_and_is_replaced(root: Root, body: bytes) -> None:
    (root.path / ".bench.json").write_bytes(body)
    assert read_rates(root, SUBJECT) is None
    write_rates(root, SUBJECT, RATES)
    entry = read_rates(root, SUBJECT)
    assert entry and entry.rates == RATES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", []), ("step", [{"side_px": 0, "images_per_s": 1.0}]), ("step", 1),
        ("loader", [{"side_px": 8, "images_per_s": "1"}]), ("end_to_end", 0), ("wait_share", 2),
        ("validation", -1), ("gain", {"side_px": 1}), ("step_images", True), ("cache", "all"),
        ("busy_cores", None), ("fetch", 0),
        ("loader", [{"side_px": side, "images_per_s": 1} for side in (8, 4)]),
    ],
)  # fmt: skip
def test_rates_of_a_stranger_are_taken_only_as_what_they_must_be(name: str, value: Any) -> None:
    fields = json.loads(json.dumps(RATES.as_json()))
    assert parse_rates(fields) == RATES
    with pytest.raises((ValueError, KeyError)):
        parse_rates({**fields, name: value})


def test_a_write_that_ends_half_way_leaves_the_earlier_rates(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rates(root, SUBJECT, RATES)

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_rates(root, SUBJECT, replace(RATES, end_to_end=1.0))
    entry = read_rates(root, SUBJECT)
    assert entry and entry.rates == RATES
    assert [each.name for each in root.path.glob(".bench*")] == [".bench.json"]
