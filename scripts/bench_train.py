"""`scripts/bench train`: the bars of training, each beside its peers in the same run.

IMNETPREP_BENCH_ONLY=loader,cache,ends,plain,waits,memory,parity,cuda picks parts. Every contestant
runs in a process of its own and they take turns; a line has the median of the 5 repeats
(IMNETPREP_BENCH_REPEATS) and their spread. IMNETPREP_BENCH_EPOCH shortens the epoch of `memory`.
IMNETPREP_TEST_DATA has sample1000, tiny10 and weights.

Peers are installed once, for this bench alone, below ~/.cache/imnetprep-bench (or
IMNETPREP_BENCH_CACHE): DALI downloads 450 MB. Pillow-SIMD is built from source there for timm,
where a compiler and libjpeg are.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent
PYTHON = HERE / ".venv" / "bin" / "python"
IMNETPREP = HERE / ".venv" / "bin" / "imnetprep"
DATASETS = HERE / "tests" / "datasets"
REPEATS = int(os.environ.get("IMNETPREP_BENCH_REPEATS", "5"))
PARTS = "loader,cache,ends,plain,waits,memory,parity,cuda"
ONLY = os.environ.get("IMNETPREP_BENCH_ONLY", PARTS).split(",")
CACHE = Path(os.environ.get("IMNETPREP_BENCH_CACHE", "~/.cache/imnetprep-bench")).expanduser()
_PATH = {"PYTHONPATH": str(HERE)}
TRAIN = "ILSVRC2012_img_train.tar"
PEERS = {"dali": ["nvidia-dali-cuda120==2.4.0"], "simd": ["--no-deps", "pillow-simd"]}
# Images that eight workers read in the part `memory`.
MILLION = int(os.environ.get("IMNETPREP_BENCH_EPOCH", "1281167"))
# Images of an epoch: some ten steps and more of either side.
IMAGES = {64: 640, 224: 96}

# The manifest of 1,281,167 samples, all of which are the one image of one shard.
_MANIFEST = """
import io, sys
from pathlib import Path
from PIL import Image
from imnetprep.catalog.datasets import Layout, Split, load_dataset
from imnetprep.manifest import SampleRecord, create_manifest, open_manifest
root, dataset = Path(sys.argv[1]), load_dataset("ilsvrc2012")
shard, body = root / "shards" / "train" / "train-000000.tar", io.BytesIO()
Image.radial_gradient("L").resize((40, 40)).convert("RGB").save(body, "JPEG")
shard.parent.mkdir(parents=True)
shard.write_bytes(bytes(512) + body.getvalue())
create_manifest(root / "manifest.db", dataset)
size_bytes = len(body.getvalue())
with open_manifest(root / "manifest.db", write=True) as manifest:
    manifest.add_split(Split.TRAIN, Layout.WEBDATASET, (
        SampleRecord(synset.label, name, size_bytes, bytes(16), shard=0, offset_bytes=512)
        for synset in dataset.synsets for name in dataset.names(Split.TRAIN, synset.label)
    ))
"""


class Bar(NamedTuple):
    """A line of the table at the end: `met` is None where nothing could be measured."""

    what: str
    wanted: str
    measured: str
    met: bool | None


_bars: list[Bar] = []


def main(folder: Path) -> None:
    """All parts that are asked for, one after another, and the table of the bars."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # watched by a pipe
    data = Path(os.environ["IMNETPREP_TEST_DATA"])
    parts: dict[str, Callable[[Path, Path], None]] = {
        "loader": _loader, "cache": _cache, "ends": _ends, "plain": _plain, "waits": _waits,
        "memory": _memory, "parity": _parity, "cuda": _cuda,
    }  # fmt: skip
    for name in ONLY:
        begun_s = time.monotonic()
        parts[name](folder, data)
        print(f"  ({name}: {time.monotonic() - begun_s:.0f} s, load {os.getloadavg()[0]:.1f})")
    print("\n| bar | wanted | measured | |\n| --- | --- | --- | --- |")
    for bar in _bars:
        verdict = {None: "not measured", True: "met", False: "**not met**"}[bar.met]
        print(f"| {bar.what} | {bar.wanted} | {bar.measured} | {verdict} |")


def _bar(what: str, ratio: float | None, least: float, detail: str = "") -> None:
    measured = "–" if ratio is None else f"{ratio:.2f}{detail}"
    _bars.append(Bar(what, f"≥ {least:g}", measured, None if ratio is None else ratio >= least))
    print(f"  {what}: {measured} (≥ {least:g})")


# Processes in turns.


class Contestant(NamedTuple):
    """What runs, and what is told of it."""

    words: list[object]
    note: str = ""


def _medians(contestants: Mapping[str, Contestant]) -> dict[str, dict[str, float]]:
    """The median of each number of each contestant; prints a line for each."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(REPEATS):  # each told as it comes: half an hour may pass until the medians
        for name, each in contestants.items():
            done = subprocess.run(
                list(map(str, each.words)), capture_output=True, text=True, check=False,
                env=os.environ | _PATH,
            )  # fmt: skip
            if done.returncode:
                print(f"  {name}: {done.stderr.strip().splitlines()[-1:]}")
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            if "seconds" in row:
                row["rate"] = row["images"] / row["seconds"]
                row["cpu_ms"] = 1000 * row["cpu_s"] / row["images"]
            rows[name].append(row)
            print(f"{name}: {row['rate']:.0f} images/s", file=sys.stderr, flush=True)
    medians = {}
    for name, found in rows.items():
        if not found:
            continue
        medians[name] = {key: statistics.median(row[key] for row in found) for key in found[0]}
        rates = sorted(row["rate"] for row in found)
        cpu = f", {medians[name]['cpu_ms']:.2f} ms of CPU each" if "cpu_ms" in found[0] else ""
        spread = f"({rates[0]:.0f} to {rates[-1]:.0f})"
        print(f"  {name:34} {medians[name]['rate']:7.0f} images/s {spread}{cpu}")
        if contestants[name].note:
            print(f"      {contestants[name].note}")
    return medians


def _ratio(found: Mapping[str, Mapping[str, float]], over: str, under: str) -> float | None:
    if over in found and under in found:
        return found[over]["rate"] / found[under]["rate"]
    return None


def _by_cpu(found: Mapping[str, Mapping[str, float]], over: str, under: str) -> str:
    """The same ratio by CPU time, which neighbours on the machine bend less."""
    if over in found and under in found:
        return f" (by CPU time {found[under]['cpu_ms'] / found[over]['cpu_ms']:.2f})"
    return ""


def _imnetprep(*words: object) -> str:
    done = subprocess.run(
        [str(PYTHON), "-m", "imnetprep", *map(str, words)], stdout=subprocess.PIPE, text=True,
        check=True, env=os.environ | _PATH,
    )  # fmt: skip
    return done.stdout


# The parts.


def _loader(folder: Path, data: Path) -> None:
    """Loaders on 1,000 photographs, to normalised floats in the process that would train."""
    originals, small, sharded = (folder / name for name in ("originals", "r256", "shards"))
    sample = ["--dataset", DATASETS / "sample1000.toml", "--archives", data / "sample1000"]
    for root, options in ((originals, []), (small, ["--resize", "256"])):
        _imnetprep("organize", "--root", root, *sample, *options, "--quiet")
    shutil.copytree(originals, sharded)
    _imnetprep("organize", "--root", sharded, "--dataset", DATASETS / "sample1000.toml",
               "--layout", "webdataset", "--shard-size", 100, "--quiet")  # fmt: skip
    dali, simd = _peer("dali"), _peer("simd")

    def measured(python: Path | None, name: str, root: Path) -> Contestant:
        script = HERE / "scripts" / "bench_loaders.py"
        return Contestant([python or PYTHON, script, name, root])

    contestants = {
        "classic ImageFolder": measured(None, "classic", originals),
        "timm": measured(None, "timm", originals),
        "timm, its fast options": measured(simd, "timm-fast", originals),
        "webdataset, on our shards": measured(None, "webdataset", sharded),
        "ours, originals": measured(None, "ours", originals),
        "ours, shards": measured(None, "ours", sharded),
        "ours, --resize 256": measured(None, "ours", small),
    }
    if dali:
        contestants["DALI on the CPU"] = measured(dali, "dali", originals)
    print(f"\nloader: 1,000 originals, 2 workers, {REPEATS} repeats in turns, to float32 batches")
    found, us = _medians(contestants), "ours, originals"
    classic = "classic ImageFolder"
    for name, least in (
        (classic, 1.6), ("timm", 1.2), ("timm, its fast options", 1.2), ("DALI on the CPU", 1.2),
        ("webdataset, on our shards", 1.2),
    ):  # fmt: skip
        detail = _by_cpu(found, us, name)
        _bar(f"loader, originals / {name}", _ratio(found, us, name), least, detail)
    name, us = "loader, `--resize 256` / classic on originals", "ours, --resize 256"
    _bar(name, _ratio(found, us, classic), 3.8, _by_cpu(found, us, classic))


def _tiny10(folder: Path, data: Path) -> Path:
    root = folder / "tiny10"
    if not root.exists():
        _imnetprep("organize", "--root", root, "--dataset", DATASETS / "tiny10.toml",
                   "--archives", data / "tiny10", "--quiet")  # fmt: skip
    return root


def _epochs(kind: str, root: Path, side_px: int, images: int) -> Contestant:
    return Contestant([PYTHON, HERE / "scripts" / "bench_epochs.py", kind, root, side_px, images])


def _cache(folder: Path, data: Path) -> None:
    """`--cache ram` on tiny10 from its second epoch on, beside the loader without."""
    root = _tiny10(folder, data)
    print(f"\ncache: tiny10 at 64 px, the second epoch of 5,000 images, {REPEATS} repeats")
    found = _medians({
        "our loader": _epochs("loader", root, 64, 5000),
        "our loader, --cache ram": _epochs("ram", root, 64, 5000),
    })  # fmt: skip
    ratio = _ratio(found, "our loader, --cache ram", "our loader")
    _bar("`--cache ram` on tiny10 / without", ratio, 5)


def _ends(folder: Path, data: Path) -> None:
    """Training end to end beside the slower of its two halves."""
    roots = {64: _tiny10(folder, data), 224: folder / "photographs"}
    sample = ["--dataset", DATASETS / "sample1000.toml", "--archives", data / "sample1000"]
    _imnetprep("organize", "--root", roots[224], *sample, "--quiet")
    for side_px, root in roots.items():
        images = IMAGES[side_px]
        print(f"\nend to end: resnet18, {side_px} px, {images} images, {REPEATS} repeats")
        found = _medians({
            "loader alone": _epochs("loader", root, side_px, 5 * images),
            "steps alone": _epochs("device", root, side_px, images),
            "training": _epochs("ours", root, side_px, images),
        })  # fmt: skip
        slower = min(found["loader alone"]["rate"], found["steps alone"]["rate"])
        name = f"end to end / min(loader, steps), CPU resnet18 at {side_px} px"
        _bar(name, found["training"]["rate"] / slower, 0.9)


def _plain(folder: Path, data: Path) -> None:
    """An epoch of tiny10 beside a plain loop with the same crops, batches and threads."""
    root = _tiny10(folder, data)
    print(f"\nplain loop: resnet18, 64 px, {IMAGES[64]} images of tiny10, {REPEATS} repeats")
    found = _medians({
        "plain PyTorch": _epochs("plain", root, 64, IMAGES[64]),
        "training": _epochs("ours", root, 64, IMAGES[64]),
    })  # fmt: skip
    _bar("CPU epoch of tiny10 / a plain PyTorch loop", _ratio(found, "training", "plain PyTorch"),
         1.2)  # fmt: skip
    _tell_wait("tiny10", found["training"]["waited"])


def _waits(folder: Path, _data: Path) -> None:
    """The share of the demo's training that waits for images."""
    place = folder / "demo"
    print("\nwaiting: the demo's own log")
    _imnetprep("demo", "--root", place)
    (log,) = place.rglob("runs/*/log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    epochs = [line for line in lines if "waited_s" in line and "val" in line]
    share = sum(line["waited_s"] for line in epochs) / sum(line["seconds"] for line in epochs)
    _tell_wait("the demo", share)


def _tell_wait(what: str, share: float) -> None:
    _bars.append(Bar(f"waiting for data, {what}", "< 3 %", f"{share:.1%}", share < 0.03))
    print(f"  waiting for data, {what}: {share:.2%} (< 3 %)")


def _memory(folder: Path, _data: Path) -> None:
    """Eight workers over one, on 1,281,167 samples; the whole epoch is read by the eight."""
    root = folder / "million"
    root.mkdir()
    subprocess.run([PYTHON, "-c", _MANIFEST, root], check=True, env=os.environ | _PATH)
    print(f"\nmemory: 1,281,167 samples, each one small image, an epoch of {MILLION:,} at 32 px")
    held = {}
    for workers, images in ((1, MILLION // 20), (8, MILLION)):
        words = [PYTHON, HERE / "scripts" / "bench_epochs.py", "memory", root, 32, images]
        out = subprocess.check_output(
            list(map(str, words)), text=True,
            env=os.environ | _PATH | {"IMNETPREP_BENCH_WORKERS": str(workers)},
        )  # fmt: skip
        held[workers] = json.loads(out.splitlines()[-1])
        early, late = held[workers]["early"], held[workers]["late"]
        print(f"  {workers} workers: {early:.0f} MB after a tenth, {late:.0f} MB at the end")
    each = (held[8]["early"] - held[1]["early"]) / 7
    growth = (held[8]["late"] - held[8]["early"]) / 8
    _bars.append(
        Bar("memory of a worker, 1,281,167 samples", "< 60 MB", f"{each:.0f} MB", each < 60)
    )
    _bars.append(Bar("growth of a worker over the epoch", "none", f"{growth:.1f} MB", growth < 1))
    print(f"  each of seven more: {each:.0f} MB (< 60); growth {growth:.1f} MB each")


def _cuda(_folder: Path, _data: Path) -> None:
    """The bars of a GPU, where there is one: `imnetprep bench` measures them."""
    import torch

    there = torch.cuda.is_available()
    print(f"\nCUDA: {torch.cuda.get_device_name() if there else 'there is no such device'}")
    if there:
        print(_imnetprep("bench", "--device", "cuda"))
    for what, wanted in (
        ("resnet50 224 px bf16 synthetic", "≥ 2,900 on an H100, 3,100 on an H200"),
        ("resnet18 224 px bf16 synthetic", "≥ 9,000"),
        ("end to end from a resized root on 16 cores / min(loader, device)", "≥ 0.9"),
        ("step / pytorch/examples' default step", "≥ 2"),
    ):
        _bars.append(Bar(what, wanted, "–", None))


# What decoding and resizing change.


def _photographs(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                for each in inner:
                    file = inner.extractfile(each)
                    assert file is not None
                    yield member.name.removesuffix(".tar"), file.read()


def _parity(_folder: Path, data: Path) -> None:
    """Pixels and counts of a published network: by each decoder, and after `--resize`."""
    import numpy as np
    import torch

    from imnetprep.images import Resize, resized_jpeg
    from imnetprep.networks.model import build_model
    from imnetprep.networks.weight_files import read_tensors
    from imnetprep.pixels.decoders import decode_pixels
    from imnetprep.pixels.transforms import Normaliser, Preprocessing, ValTransform

    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(224, 256, half, half, interpolation="bicubic")
    crop, normaliser = ValTransform(preprocessing), Normaliser(preprocessing, "cpu")
    model = build_model("timm:tf_efficientnet_lite0", classes=1000, image_size=224, seed=0)
    model.load_state_dict(read_tensors(data / "weights" / "tf_efficientnet_lite0.pth"))
    model.eval()
    bodies = list(_photographs(data / "sample1000" / TRAIN))
    wnids = sorted({wnid for wnid, _ in bodies})
    labels = torch.tensor([wnids.index(wnid) for wnid, _ in bodies])

    def hits(pixels: list[Any]) -> tuple[int, int]:
        with torch.inference_mode():
            ranks = torch.cat([
                model(normaliser.normalised(torch.from_numpy(np.stack(pixels[at : at + 50]))))
                .topk(5).indices for at in range(0, len(pixels), 50)
            ])  # fmt: skip
        right = ranks == labels[:, None]
        return int(right[:, 0].sum()), int(right.sum())

    first = [crop(decode_pixels(body)) for _, body in bodies]
    print("\nparity: 1,000 photographs, crops of 224 px, tf_efficientnet_lite0 of timm")
    print("| decoded by | largest difference of a pixel | mean | top-1 | top-5 |")
    print("| --- | --- | --- | --- | --- |")
    published = hits(first)
    print("| Pillow, originals | – | – | {} | {} |".format(*published))
    variants: dict[str, Callable[[bytes], Any]] = {
        name: partial(decode_pixels, decoder=name) for name in ("simplejpeg", "torchcodec")
    }

    def after(resize: Resize) -> Callable[[bytes], Any]:
        return lambda body: decode_pixels(resized_jpeg(body, resize).body)

    for side_px in (400, 320, 256):
        variants[f"Pillow, `--resize {side_px}` (q90)"] = after(Resize(side_px, 90))
    for name, decode in variants.items():
        pixels = [crop(decode(body)) for _, body in bodies]
        most = mean = 0.0
        for ours, theirs in zip(first, pixels, strict=True):
            difference = np.abs(ours.astype(int) - theirs)
            most, mean = max(most, difference.max()), mean + difference.mean() / len(first)
        top1, top5 = hits(pixels) if most else published
        print(f"| {name} | {most:.0f} | {mean:.2f} | {top1} | {top5} |")


# Peers that .venv lacks.


def _peer(name: str) -> Path | None:
    """The Python of a venv that has the peer and all of .venv; None: it cannot be installed."""
    python = CACHE / name / "bin" / "python"
    if not (CACHE / name / "whole").exists():
        print(f"{', '.join(PEERS[name])} is installed into {CACHE / name}")
        shutil.rmtree(CACHE / name, ignore_errors=True)
        try:
            subprocess.run([PYTHON, "-m", "venv", CACHE / name], check=True)
            words = ["-m", "pip", "install", "--quiet", *PEERS[name]]
            subprocess.run([python, *words], check=True)
        except subprocess.CalledProcessError as error:
            print(f"  {name} cannot be installed ({error.returncode}), and is not measured")
            return None
        (CACHE / name / "whole").touch()
    packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here, there = (
        subprocess.check_output([each, "-c", packages], text=True).strip()
        for each in (PYTHON, python)
    )
    (Path(there) / "zz_bench.pth").write_text(f"{here}\n")
    return python
