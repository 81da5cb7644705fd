"""A small organized root, drawn: ten lines of code make a class that a network can learn."""

import random
from pathlib import Path

import xxhash
from PIL import Image, ImageDraw

from imnetprep.catalog.datasets import Layout, Root, Split, load_dataset
from imnetprep.manifest import SampleRecord, create_manifest, open_manifest

_COLOURS = ["#d03030", "#30a030", "#3050d0", "#d0c030", "#a030c0", "#30c0c0", "#222222", "#eeeeee"]


def _draw(path: Path, label: int, chance: random.Random) -> bytes:
    size = chance.choice([(40, 36), (36, 48), (44, 44)])
    image = Image.new("RGB", size, tuple(chance.randrange(100, 160) for _ in range(3)))
    left, top = chance.randrange(4, 14), chance.randrange(4, 14)
    box = (left, top, left + 20, top + 18)
    ImageDraw.Draw(image).ellipse(box, fill=_COLOURS[label % len(_COLOURS)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG")
    return path.read_bytes()


def _write_dataset(folder: Path, classes: int, train: int, val: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"n{10000000 + at}\t{at + 1}\tclass {at}, kind {at}\ta class" for at in range(classes)]
    (folder / "synsets.tsv").write_text("\n".join(["wnid\tilsvrc_id\twords\tgloss", *rows, ""]))
    form = f'name = "drawn{classes}"\nsynsets = "synsets.tsv"\n'
    for split, of_class in (("train", train), ("val", val)):
        form += f'[{split}]\nfile_name = "{{wnid}}_{{number}}.JPEG"\n'
        form += f"samples = {of_class * classes}\nsamples_per_class = {of_class}\n"
    for split in ("train", "val"):
        form += f'[[archives]]\nname = "{split}.tar"\nsplit = "{split}"\nform = "tar-of-tars"\n'
    (folder / "drawn.toml").write_text(form)
    return folder / "drawn.toml"


def draw_root(place: Path, *, classes: int = 3, train: int = 20, val: int = 7) -> Root:
    """An organized root with `train` and `val` images a class."""
    root = Root(place)
    dataset = load_dataset(str(_write_dataset(place / "definition", classes, train, val)))
    create_manifest(root.manifest, dataset)
    chance = random.Random(1)
    with open_manifest(root.manifest, write=True) as manifest:
        for split, of_class in ((Split.TRAIN, train), (Split.VAL, val)):
            records = []
            for synset in dataset.synsets:
                for number in range(of_class):
                    name = f"{synset.wnid}_{number}.JPEG"
                    body = _draw(root.split(split) / synset.wnid / name, synset.label, chance)
                    digest = xxhash.xxh128(body).digest()
                    records.append(SampleRecord(synset.label, name, len(body), digest))
            manifest.add_split(split, Layout.IMAGEFOLDER, records)
    return root
