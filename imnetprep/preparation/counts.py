"""How many images a class has, against how many it should have."""

from collections.abc import Sequence

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.errors import WrongBytes
from imnetprep.units import count


def check_count(
    dataset: Dataset, split: Split, label: int, names: Sequence[str], *, where: str
) -> None:
    """Raise WrongBytes unless `names` are as many as `dataset` has there; it tells what lacks."""
    wanted = dataset.counts(split)[label]
    if len(names) == wanted:
        return
    known = set(names)
    missing = [name for name in dataset.names(split, label) or () if name not in known]
    named = f"; missing: {', '.join(missing[:3])}" if missing else ""
    named += f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
    wnid = dataset.synsets[label].wnid
    raise WrongBytes(
        f"{where}: {wnid} has {count(len(names), 'image')}, not {wanted:,}{named}",
        hint=f"this is not the whole {dataset.published.name}; fetch the archive again",
    )
