"""Part of a dataset as a root of its own, straight from the archives: no whole root in between.

It is organized as any dataset is, from the archives of the one that it is part of: what the list
leaves out is passed over, and a class tar that it does not choose from is not read at all.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import DEFAULT, Dataset, Split, load_dataset
from imnetprep.catalog.subsets import read_list, subset_of
from imnetprep.manifest import dataset_for
from imnetprep.organize import OrganizePlan, plan_dataset
from imnetprep.organizing.plan import home_of
from imnetprep.roots import Root
from imnetprep.sources.places import is_local
from imnetprep.subset import refuse_other_root


def plan_subset_of_archives(
    listed: str,
    archives: str,
    to: Root,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    jobs: int | None,
) -> OrganizePlan:
    """Look at the list, the archives and the root `to`, and change nothing.

    Raises as `plan_organize`, and ImnetprepError on what the list names and that dataset lacks.
    """
    source, listed_part = _dataset_at(archives, dataset, to), read_list(listed)
    chosen = subset_of(source, listed_part)
    refuse_other_root(chosen, to)
    plan = plan_dataset(to, chosen, splits=splits, archives=archives, jobs=jobs)
    facts: dict[str, Any] = {"dataset": source.name, "place": _shown(plan.planned[0].place)}
    return replace(plan, facts={"subset": listed_part.name, "source": facts})


def _dataset_at(archives: str, name: str | None, to: Root) -> Dataset:
    """The dataset called `name`; None: what the root holds whose archives these are, or ours."""
    if name is not None:
        return load_dataset(name)
    place = Path(archives)
    home = home_of(place.parent if is_local(archives) and place.is_file() else archives)
    if home is None or home.path.absolute() == to.path.absolute():
        return load_dataset(DEFAULT)
    return dataset_for(home.manifest, None)


def _shown(place: str | Path) -> str:
    """As the receipt says it: what follows an address may be a signature."""
    return str(Path(place).absolute()) if is_local(place) else str(place).partition("?")[0]
