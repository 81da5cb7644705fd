"""`imnetprep subset`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import carry_out, json_option
from imnetprep.messages import WrongUsage

if TYPE_CHECKING:
    from imnetprep.split_plan import SplitPlan


@verb.command(short_help="Make a root of chosen classes or files of a dataset.")
@click.argument("list_name", metavar="LIST")
@verb.root_option
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="New root to make.  [default, with --archives: --root]",
)
@click.option("--copy", is_flag=True, help="Copy the images instead of hard-linking them.")
@click.option(
    "--archives",
    metavar="PLACE",
    help="Read archives, not a root: in a folder, - for a pipe, or at an address as"
    " `imnetprep sources` lists them.",
)
@verb.bucket_options
@verb.dataset_option
@verb.split_option()
@verb.jobs_option
@verb.dry_run_option()
@json_option
@verb.quiet_option
@session_options
def subset(
    list_name: str,
    root: Root,
    to: Path | None,
    copy: bool,
    archives: str | None,
    request_payer: bool,
    no_sign_request: bool,
    dataset: str | None,
    splits: tuple[Split, ...],
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Make a root of the classes or train files of --root, or of --archives, that LIST names.

    LIST is simclr-1pct, simclr-10pct, imagenet100, mini-imagenet, imagenette, imagewoof, or a
    text file of classes or of train file names, one a line. Classes are taken from every split.
    File names are taken from train; validation comes whole, for the classes of those files.

    The new root is a dataset of its own: its labels are ranks among its own classes.
    Interrupted at any instant, the same command resumes.

    With --archives no organized root is needed. Only the chosen classes are read of a tar of class
    tars, if it is on this machine or its server has byte ranges. --dataset says which dataset the
    archives are of.

    \b
    imnetprep subset imagenet100 --to imagenet100
    imnetprep subset mine.txt --root /data/imagenet --to /ssd/mine --copy
    imnetprep subset imagewoof --archives s3://my-bucket/imagenet --to imagewoof
    """
    verb.read_bucket(archives, request_payer=request_payer, no_sign_request=no_sign_request)
    from imnetprep.subset import plan_subset, plan_subset_of_archives

    plan: SplitPlan
    if archives is None:
        verb.refuse("all that --root holds is taken", "dataset", "splits")
        if to is None:
            raise WrongUsage("--to is missing", hint="add --to NEWROOT, the new root")
        plan = plan_subset(list_name, root, Root(to), copy=copy, jobs=jobs)
    else:
        verb.refuse("nothing is linked or copied from archives", "copy")
        if to is not None:
            verb.refuse("--to names the new root, and --archives what is read", "root")
        new = Root(to) if to else root
        plan = plan_subset_of_archives(
            list_name, archives, new, dataset=dataset, splits=splits, jobs=jobs
        )
    carry_out(plan, dry_run=dry_run, quiet=quiet)
