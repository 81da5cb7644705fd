"""`imnetprep verify`."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.terminal import (
    json_option,
    print_finding,
    print_result,
    print_split,
    stderr_progress,
)
from imnetprep.messages import FINDINGS_EXIT_CODE, Progress, count

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.checking.recognise import Place, Tree


@verb.command(short_help="Compare the organized images with their manifest.")
@verb.root_option
@verb.dataset_option
@verb.split_option()
@verb.digests_option
@verb.decode_option
@click.option(
    "--adopt", is_flag=True, help="Write the manifest of class folders that another program made."
)
@verb.layout_option()
@verb.jobs_option
@verb.dry_run_option("Look for findings, and write neither receipt nor manifest.")
@json_option
@verb.quiet_option
def verify(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    digests: bool,
    decode: bool,
    adopt: bool,
    layout: Layout | None,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Compare the organized images with the manifest: counts, names and sizes.

    Class folders without a manifest, because another program made them, are recognised by names
    and counts and compared with their dataset; a file without a JPEG's end marker is decoded. With
    --adopt, if there is no finding but `changed`, every image is then read once and the manifest
    is written. `changed` are images that were resized or re-encoded, as their sizes show; the
    manifest, and all who read it, then say so.

    A line for each finding; exit code 5 if there is any. Without --adopt nothing is changed but
    the receipt, which keeps the result. `imnetprep verify-archives` reads the published archives.

    \b
    imnetprep verify --digests --decode
    imnetprep verify --root /data/somebodys-imagenet --adopt
    """
    if layout not in (None, Layout.IMAGEFOLDER):
        verb.refuse("only class folders that another program made can be adopted", "adopt")
    from imnetprep.checking.recognise import recognise
    from imnetprep.messages import CHANGE_KIND, Checks
    from imnetprep.proving.receipt import record_verify
    from imnetprep.verify import findings

    progress = stderr_progress(quiet=quiet)
    tree = recognise(root, dataset=dataset)
    strangers = [place for place in tree.places.values() if not place.listed]
    for place in strangers:
        if not splits or place.split in splits:
            _print_unlisted(tree, place)
    kinds = Counter[str]()
    checks = Checks(digests=digests, decode=decode)
    for finding in findings(
        root, tree, splits=splits, layout=layout, checks=checks, jobs=jobs, progress=progress
    ):
        kinds[finding.kind] += 1
        print_finding(finding)
    found = kinds.total()
    kinds_of_check = ["counts", "names"] + ["sizes"] * (len(strangers) < len(tree.places))
    kinds_of_check += ["end markers"] * bool(strangers and not decode)
    kinds_of_check += ["digests"] * digests + ["decoding"] * decode
    if root.manifest.exists() and not dry_run:  # else it is somebody's tree, and stays as it is
        record_verify(root, "samples", splits=splits, checks=kinds_of_check, findings=found)
    summary = f"{count(found, 'finding')} in {', '.join(splits) or 'all splits'}"
    print_result(f"{summary} ({', '.join(kinds_of_check)})", findings=found)
    if adopt and found == kinds[CHANGE_KIND]:
        _adopt(root, tree, splits, jobs=jobs, dry_run=dry_run, progress=progress)
    return FINDINGS_EXIT_CODE if found else 0


def _print_unlisted(tree: "Tree", place: "Place") -> None:
    holds = f"{count(place.images, 'image')} in {count(place.class_folders, 'class folder')}"
    print_result(
        f"{place.split}: {tree.dataset.name} by its names, {holds}, no manifest",
        split=place.split,
        dataset=tree.dataset.name,
        folder=place.folder,
        images=place.images,
        class_folders=place.class_folders,
        manifest=False,
    )


def _adopt(
    root: Root,
    tree: "Tree",
    splits: tuple[Split, ...],
    *,
    jobs: int | None,
    dry_run: bool,
    progress: Progress,
) -> None:
    """Write the manifest of each split that has none, or say what would be written."""
    from imnetprep.adopt import adopt

    if dry_run:
        for place in tree.places.values():
            if not place.listed and (not splits or place.split in splits):
                text = f"{count(place.images, 'image')} to read and list in {root.manifest}"
                print_result(f"{place.split}: {text}", split=place.split)
        return
    for record in adopt(root, tree, splits=splits, jobs=jobs, progress=progress):
        print_split(record, root.manifest)
