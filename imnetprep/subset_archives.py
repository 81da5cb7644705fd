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
    list_name: str,
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
    source, subset_list = _dataset_at(archives, dataset, to), read_list(list_name)
    part = subset_of(source, subset_list)
    refuse_other_root(part, to)
    plan = plan_dataset(to, part, splits=splits, archives=archives, jobs=jobs)
    facts: dict[str, Any] = {"dataset": source.name, "place": _public_place(plan.groups[0].place)}
    return replace(plan, facts={"subset": subset_list.name, "source": facts})


def _dataset_at(archives: str, name: str | None, to: Root) -> Dataset:
    """The dataset called `name`; None: what the root holds whose archives these are, or ours."""
    if name is not None:
        return load_dataset(name)
    place = Path(archives)
    home = home_of(place.parent if is_local(archives) and place.is_file() else archives)
    if home is None or home.path.absolute() == to.path.absolute():
        return load_dataset(DEFAULT)
    return dataset_for(home.manifest, None)


def _public_place(place: str | Path) -> str:
    """`place` for the receipt: without a query, which may be a signature."""
    return str(Path(place).absolute()) if is_local(place) else str(place).partition("?")[0]
