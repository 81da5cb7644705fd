"""`imnetprep verify`."""

from collections import Counter
from typing import TYPE_CHECKING

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_finding, print_result, stderr_progress
from imnetprep.messages import FINDINGS_EXIT_CODE, Progress, count, move_away, shell_command

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.checking.recognise import Place, Tree
    from imnetprep.messages import Checks


@verb.command(short_help="Compare the organized images with their manifest.")
@verb.root_option
@verb.dataset_option
@verb.split_option()
@verb.digests_option
@verb.decode_option
@verb.layout_option()
@verb.jobs_option
@verb.dry_run_option("Look for findings, and write neither receipt nor manifest.")
@json_option
@verb.quiet_option
@session_options
def verify(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    digests: bool,
    decode: bool,
    layout: Layout | None,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Compare the organized images with the manifest: counts, names and sizes.

    Class folders without a manifest, because another program made them, are recognised by names
    and counts and compared with their dataset; a file without a JPEG's end marker is decoded.
    `changed` are images that were resized or re-encoded, as their sizes show. `imnetprep adopt`
    writes the manifest of such a tree.

    A line for each finding; exit code 5 if there is any. Nothing is changed but the receipt, which
    keeps the result. `imnetprep verify-archives` reads the published archives.

    \b
    imnetprep verify --digests --decode
    imnetprep verify --root /data/somebodys-imagenet
    """
    from imnetprep.checking.recognise import recognise
    from imnetprep.messages import Checks

    progress = stderr_progress(quiet=quiet)
    kinds = print_findings(
        root,
        recognise(root, dataset=dataset),
        splits=splits,
        layout=layout,
        checks=Checks(digests=digests, decode=decode),
        jobs=jobs,
        dry_run=dry_run,
        progress=progress,
    )
    return FINDINGS_EXIT_CODE if kinds else 0


def print_findings(
    root: Root,
    tree: "Tree",
    *,
    splits: tuple[Split, ...],
    layout: Layout | None,
    checks: "Checks",
    jobs: int | None,
    dry_run: bool,
    progress: Progress,
) -> Counter[str]:
    """Print all that is wrong with `tree`; returns how many findings there are of each kind."""
    from imnetprep.proving.receipt import record_verify
    from imnetprep.verify import findings_by_split

    strangers = [place for place in tree.places.values() if not place.listed]
    for place in strangers:
        if not splits or place.split in splits:
            _print_unlisted(tree, place)
    kinds, numbers = Counter[str](), dict[str, int]()
    for name, findings in findings_by_split(
        root, tree, splits=splits, layout=layout, checks=checks, jobs=jobs, progress=progress
    ):
        start = kinds.total()
        for finding in findings:
            kinds[finding.kind] += 1
            print_finding(finding)
        numbers[name] = kinds.total() - start
    kinds_of_check = ["counts", "names"] + ["sizes"] * (len(strangers) < len(tree.places))
    kinds_of_check += ["end markers"] * bool(strangers and not checks.decode)
    kinds_of_check += ["digests"] * checks.digests + ["decoding"] * checks.decode
    total = kinds.total()
    keeps = root.manifest.exists() and not dry_run  # else it is somebody's tree, and stays as it is
    if keeps and not record_verify(root, numbers, checks=kinds_of_check):
        progress.note(f"{root.receipt} is not to be written to: it does not keep the result")
    summary = f"{count(total, 'finding')} in {', '.join(splits) or 'all splits'}"
    print_result(f"{summary} ({', '.join(kinds_of_check)})", findings=total)
    if total and not tree.dataset.archives:
        words = ["--digests"] * checks.digests + ["--decode"] * checks.decode
        repair = shell_command("imnetprep", "repair", "--root", root.path, *words)
        if total > kinds["extra"]:
            progress.note(f"{repair} takes what it can from the folder that the images came from")
        if kinds["extra"]:
            adopt = shell_command("imnetprep", "adopt", root.path)
            progress.note(f"{move_away(root.manifest)}; then {adopt} takes images that were added")
    return kinds


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
