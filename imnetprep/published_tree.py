"""Whether a tree is of a published dataset, the whole of it or a choice of its classes."""

from imnetprep.catalog.datasets import Root, Split
from imnetprep.catalog.subsets import SubsetList, subset_of
from imnetprep.checking.recognise import Tree, UnknownImages, recognise, tree_of
from imnetprep.manifest import dataset_for
from imnetprep.messages import Checks, Progress
from imnetprep.verify import findings_by_split

# With more of its classes a tree is not somebody's choice of them, but one that lacks some.
_MOST_OF_A_CHOICE = 0.9


def published_tree(
    root: Root, *, dataset: str | None, jobs: int | None, progress: Progress
) -> Tree | None:
    """The tree of `root` as the published dataset that it is by its names; None: it is of none.

    Class folders of a part of the classes, each whole, are a subset of the dataset. Where their
    images are not those of the dataset, they are nobody's but the user's own: None.
    """
    if root.manifest.exists() and dataset_for(root.manifest, dataset).is_own:
        return None
    try:
        tree = recognise(root, dataset=dataset)
    except UnknownImages:
        return None
    if root.manifest.exists() or dataset is not None:
        return tree
    classes = _classes(root, tree)
    if not classes or len(classes) > _MOST_OF_A_CHOICE * len(tree.dataset.label_of_wnid):
        return tree
    entries = [("the folder", wnid) for wnid in classes]
    name = f"{len(classes)}-classes"
    part = tree_of(root, subset_of(tree.dataset, SubsetList(name, entries)))
    checks = Checks()
    looks = findings_by_split(
        root, part, splits=tuple(part.places), checks=checks, jobs=jobs, progress=progress
    )
    is_whole = all(next(findings, None) is None for _, findings in looks)
    return part if is_whole else None


def _classes(root: Root, tree: Tree) -> list[str]:
    """The class folders that lie in every split which is there; [] where splits differ."""
    folders = [
        {path.name for path in root.split(split).iterdir() if path.is_dir()}
        for split in (Split.TRAIN, Split.VAL)
        if root.split(split).is_dir()
    ]
    if not folders or any(each != folders[0] for each in folders):
        return []
    return sorted(folders[0] & tree.dataset.label_of_wnid.keys())
