"""How many images a class has, against how many it should have."""

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.columns import Columns
from imnetprep.messages import WrongBytes, count


def check_count(
    dataset: Dataset, split: Split, label: int, found: Columns | None, *, where: str
) -> None:
    """Raise WrongBytes unless `found` are as many as `dataset` has there; it tells what lacks."""
    wanted, samples = dataset.counts(split)[label], found.samples if found else 0
    if samples == wanted:
        return
    known = {name for name, *_ in found.rows()} if found else set()
    missing = [name for name in dataset.names(split, label) or () if name not in known]
    named = f"; missing: {', '.join(missing[:3])}" if missing else ""
    named += f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
    wnid = dataset.synsets[label].wnid
    raise WrongBytes(
        f"{where}: {wnid} has {count(samples, 'image')}, not {wanted:,}{named}",
        hint=f"this is not the whole {dataset.published.name}; fetch the archive again",
    )


def name_twice(where: str) -> WrongBytes:
    """The error for two images of one name, which `packed` and `joined` find."""
    return WrongBytes(
        f"{where}: an image stands there twice",
        hint="this is not the published archive; fetch it again from its source",
    )
