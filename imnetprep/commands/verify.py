"""`imnetprep verify`."""

import click

from imnetprep.catalog.datasets import Split
from imnetprep.commands.options import (
    jobs_option,
    json_option,
    layout_option,
    quiet_option,
    root_option,
    split_option,
)
from imnetprep.commands.terminal import print_result, progress
from imnetprep.errors import FINDINGS_EXIT_CODE
from imnetprep.roots import Layout, Root
from imnetprep.units import count


@click.command(short_help="Compare the images with the manifest.")
@root_option
@split_option
@layout_option()
@click.option("--digests", is_flag=True, help="Also read every byte and compare its xxh128.")
@click.option("--decode", is_flag=True, help="Also decode every image to its last pixel.")
@jobs_option
@json_option
@quiet_option
def verify(
    root: Root,
    splits: tuple[Split, ...],
    layout: Layout | None,
    digests: bool,
    decode: bool,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare the organized images with the manifest: counts, names and sizes.

    A line for each finding; exit code 5 if there is any. Nothing is changed.

    \b
    imnetprep verify --digests --decode
    """
    from imnetprep.findings import Checks
    from imnetprep.verify import findings

    found = 0
    checks = Checks(digests=digests, decode=decode)
    for finding in findings(
        root,
        splits=splits,
        layout=layout,
        checks=checks,
        jobs=jobs,
        progress=progress(quiet=quiet),
    ):
        found += 1
        text = f"{finding.kind}: {finding.path} {finding.what}"
        print_result(text, as_json=as_json, **finding._asdict())
    looked_at = ["counts", "names", "sizes"] + ["digests"] * digests + ["decoding"] * decode
    summary = f"{count(found, 'finding')} in {', '.join(splits) or 'all splits'}"
    print_result(f"{summary} ({', '.join(looked_at)})", as_json=as_json, findings=found)
    return FINDINGS_EXIT_CODE if found else 0
