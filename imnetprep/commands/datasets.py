"""`imnetprep datasets`."""

import click

from imnetprep.catalog.datasets import BUILT_IN, Dataset, load_dataset
from imnetprep.commands.terminal import json_option, print_result
from imnetprep.commands.verb import Verb
from imnetprep.messages import WrongUsage, count, format_bytes


@click.command(cls=Verb, short_help="Show the built-in datasets, or check a definition.")
@click.argument("words", nargs=-1, metavar="[NAME | check FILE.toml]")
@json_option
def datasets(words: tuple[str, ...]) -> None:
    """Show the built-in datasets; or what NAME holds; or check a definition of your own.

    A definition is checked for keys that no definition has, for digests that cannot be, and for
    sums that its lists contradict; each problem is told with its line.

    \b
    imnetprep datasets
    imnetprep datasets imagenette
    imnetprep datasets check mine.toml
    """
    match words:
        case ():
            for name in BUILT_IN:
                _print(load_dataset(name))
        case ("check", name) | (name,) if name != "check":
            dataset = load_dataset(name)
            _print(dataset)
            for archive in dataset.archives:
                size = format_bytes(archive.size_bytes) if archive.size_bytes else "of unknown size"
                splits = " and ".join(archive.splits) or "of no split"
                if archive.labels_of:
                    splits = f"labels of {archive.split}"
                packaging = f"  [{archive.packaging}]" if archive.packaging else ""
                print_result(
                    f"  {archive.name}: {splits}, {size}{packaging}",
                    archive=archive.name,
                    splits=archive.splits,
                    size_bytes=archive.size_bytes,
                    packaging=archive.packaging,
                    digests=archive.digests,
                )
        case _:
            raise WrongUsage(
                f"datasets takes a name, or check and a file, not {' '.join(words)!r}",
                hint="imnetprep datasets",
            )


def _print(dataset: Dataset) -> None:
    samples = {split: dataset.samples(split) for split in dataset.splits}
    numbers = ", ".join(f"{split} {images:,}" for split, images in samples.items())
    classes = count(len(dataset.label_of_wnid), "class")
    print_result(
        f"{dataset.name}: {classes}, {numbers}: {dataset.title}",
        dataset=dataset.name,
        title=dataset.title,
        classes=len(dataset.label_of_wnid),
        samples=samples,
        terms=dataset.terms,
    )
