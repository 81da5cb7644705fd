"""`imnetprep clean`."""

import click

from imnetprep.catalog.datasets import Root
from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_note, print_result
from imnetprep.messages import count, format_bytes

# As imnetprep.clean has them, which is not loaded for --help.
_KINDS = ("temporary", "part", "leftover", "cache", "archive", "unfinished")


@verb.command(short_help="Show what can be removed from the root; --yes removes it.")
@verb.root_option
@verb.runs_option
@click.option(
    "--only",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS),
    help="Only this kind; may be repeated.  [default: what can be had again]",
)
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@verb.dry_run_option("List what would be removed, even with --yes.")
@json_option
def clean(root: Root, kinds: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Show what can be removed from the root, and why; with --yes, remove it.

    \b
    temporary   files of processes that are gone
    part        unfinished archives, and what is known of their pieces; with
                --only part also those that the dataset names no place for
    leftover    what organize left and cannot resume; runs that ended before a step
    cache       shards in ROOT/.shards, which --shards fetched from another place
    archive     archives that are verified and whose images are organized; with
                --only archive also those that the dataset names no place for
    unfinished  what can be resumed, runs without an epoch too: taken only with
                --only unfinished

    Where another imnetprep is at work in the archives or the splits nothing is removed. Links are
    left alone, and runs that have an epoch, and a cache that a process reads.

    \b
    imnetprep clean
    imnetprep clean --only archive --yes
    """
    from imnetprep.clean import carry_out_clean, plan_clean

    plan = plan_clean(root, kinds=kinds)
    yes = yes and not dry_run
    for folder in (*(() if yes else plan.busy), *filter(None, [plan.busy_cache])):
        print_note(f"another imnetprep is at work in {folder}: what it uses is left out")
    width = max((len(str(each.path)) for each in plan.removable), default=0)
    number = size_bytes = 0
    for each in carry_out_clean(root, kinds=kinds) if yes else plan.removable:
        source = verb.from_here(f"; again: {each.source}") if each.source else ""
        text = f"{each.kind:10}  {format_bytes(each.size_bytes):>7}"
        text = f"{text}  {each.path!s:{width}}  {verb.from_here(each.reason)}{source}"
        print_result(text, **each._asdict(), removed=yes)
        number, size_bytes = number + 1, size_bytes + each.size_bytes
    total = f"{count(number, 'thing')}, {format_bytes(size_bytes)}"
    if number:
        total += " removed" if yes else ": nothing is removed yet; --yes does it"
    print_result(
        total if number else "nothing to remove", found=number, total_bytes=size_bytes, removed=yes
    )
