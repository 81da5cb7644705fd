"""`imnetprep adopt`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import (
    json_option,
    print_result,
    print_split,
    stderr_progress,
    take_images,
)
from imnetprep.commands.verify import print_findings
from imnetprep.messages import (
    CHANGE_KIND,
    FINDINGS_EXIT_CODE,
    Checks,
    Progress,
    count,
    move_away,
    shell_command,
)

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.checking.recognise import Tree


@verb.command(short_help="Make a dataset of train/CLASS/ and val/CLASS/, where they lie.")
@click.argument("folder", type=verb.ExistingPath(file_okay=False))
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the root here, of links to FOLDER, which is not written to.  [default: FOLDER]",
)
@verb.dataset_option
@verb.split_option()
@verb.one_class_option
@verb.skip_bad_option
@verb.jobs_option
@verb.dry_run_option("Say what FOLDER holds, and write nothing.")
@json_option
@verb.quiet_option
@session_options
def adopt(
    folder: Path,
    root: Path | None,
    dataset: str | None,
    splits: tuple[Split, ...],
    one_class: bool,
    skip_bad: bool,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Make a dataset of FOLDER, which holds train/CLASS/IMAGE and val/CLASS/IMAGE.

    The images stay where they are; each is read once, and listed in a manifest. Also valid/,
    validation/ or test/ instead of val/, and only train/. A tree of a published dataset that
    another program made is recognised by its names, and adopted if `imnetprep verify` finds nothing
    wrong; `changed` images, resized or encoded anew, are listed as such. Images of your own are any
    others: all that cannot be taken is named at once.

    \b
    imnetprep adopt photos
    imnetprep adopt /shared/imagenet --root mine
    """
    from imnetprep.own_images.adopt_folder import (
        adopt_folder,
        lead_links,
        link_splits,
        root_dataset,
    )
    from imnetprep.own_images.content import describe_classes, refuse_root_in, require_writable
    from imnetprep.own_images.folder import read_split_folders
    from imnetprep.published_tree import published_tree

    progress, place = stderr_progress(quiet=quiet), Root(root or folder)
    if root is None and not dry_run:
        require_writable(folder)
    if root is not None and place.path.resolve() != folder.resolve():
        refuse_root_in(folder, place)
    if root is not None and not dry_run and not place.manifest.exists():
        link_splits(read_split_folders(folder), place)
    tree = published_tree(
        Root(folder) if dry_run else place, dataset=dataset, jobs=jobs, progress=progress
    )
    if tree is not None:
        verb.refuse(f"{folder} is {tree.dataset.name} by its names", "one_class", "skip_bad")
        if root is not None and not dry_run and place.manifest.exists():
            lead_links(read_split_folders(folder), place, jobs=jobs, progress=progress)
        return _adopt_published(place, tree, splits, jobs=jobs, dry_run=dry_run, progress=progress)
    content = read_split_folders(folder)
    if splits:
        content.select(splits)
    take_images(content, one_class=one_class, skip_bad=skip_bad, jobs=jobs, progress=progress)
    for split, classes in content.splits.items():
        sizes = {wnid: len(files) for wnid, files in classes.items()}
        print_result(f"{split}: {describe_classes(classes)}", split=split, classes=sizes)
    root_dataset(place, content)  # a root of other images is refused before it is changed
    if not dry_run:
        lead_links(content, place, jobs=jobs, progress=progress)
        for record in adopt_folder(place, content, jobs=jobs, progress=progress):
            print_split(record, place.split(record.split))
        _tell_unlisted_shards(place, progress)
    return 0


def _tell_unlisted_shards(root: Root, progress: Progress) -> None:
    """Say what becomes of shards that an earlier manifest listed, and this one does not."""
    from imnetprep.manifest import splits_in

    for split in Split:
        folder = root.split(split, Layout.WEBDATASET)
        if folder.exists() and split not in splits_in(root, Layout.WEBDATASET):
            make = shell_command(
                *("imnetprep", "organize", "--root", root.path, "--layout", "webdataset")
            )
            progress.note(
                f"{folder} has shards that {root.manifest} does not list: {move_away(folder)};"
                f" then {make} makes them anew"
            )


def _adopt_published(
    root: Root,
    tree: "Tree",
    splits: tuple[Split, ...],
    *,
    jobs: int | None,
    dry_run: bool,
    progress: Progress,
) -> int:
    """Write the manifest of each split that has none, if all of them are right."""
    from imnetprep.adopt import adopt as adopt_tree

    kinds = print_findings(
        root,
        tree,
        splits=splits,
        layout=None,
        checks=Checks(),
        jobs=jobs,
        dry_run=True,  # what it found is recorded when all is adopted
        progress=progress,
    )
    if kinds.total() > kinds[CHANGE_KIND]:
        return FINDINGS_EXIT_CODE
    for place in tree.places.values() if dry_run else ():
        if not place.listed and (not splits or place.split in splits):
            text = f"{count(place.images, 'image')} to read and list in {root.manifest}"
            print_result(f"{place.split}: {text}", split=place.split)
    if not dry_run:
        for record in adopt_tree(root, tree, splits=splits, jobs=jobs, progress=progress):
            print_split(record, root.manifest)
        _tell_unlisted_shards(root, progress)
    return FINDINGS_EXIT_CODE if kinds else 0
