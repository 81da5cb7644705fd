"""`imnetprep verify`."""

import click

from imnetprep.catalog.datasets import Split
from imnetprep.commands.options import (
    jobs_option,
    json_option,
    quiet_option,
    root_option,
    split_option,
)
from imnetprep.commands.terminal import print_result, progress
from imnetprep.commands.verify_archives import archives_option, verify_archives
from imnetprep.errors import FINDINGS_EXIT_CODE, WrongUsage
from imnetprep.roots import Root
from imnetprep.units import count


@click.command(short_help="Compare the images with the manifest.")
@root_option
@split_option
@click.option("--digests", is_flag=True, help="Also read every byte and compare its xxh128.")
@click.option("--decode", is_flag=True, help="Also decode every image to its last pixel.")
@archives_option
@jobs_option
@json_option
@quiet_option
def verify(
    root: Root,
    splits: tuple[Split, ...],
    digests: bool,
    decode: bool,
    archives: str | None,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare the organized images with the manifest: counts, names and sizes.

    A line for each finding; exit code 5 if there is any. Nothing is changed but the receipt, which
    keeps the result. With --archives it reads every byte of the published archives instead: it
    names the wrong bytes, by the pieces of their torrent, and the images in them.

    \b
    imnetprep verify --digests --decode
    imnetprep verify --archives
    """
    if archives is not None:
        if digests or decode:
            raise WrongUsage(
                "--digests and --decode are of images, --archives of archives",
                hint="verify the one first, then the other",
            )
        return verify_archives(
            root, archives, splits=splits, jobs=jobs, as_json=as_json, quiet=quiet
        )
    from imnetprep.preparation.receipts import record_verify
    from imnetprep.verify import Checks, findings

    found = 0
    checks = Checks(digests=digests, decode=decode)
    for finding in findings(
        root, splits=splits, checks=checks, jobs=jobs, progress=progress(quiet=quiet)
    ):
        found += 1
        text = f"{finding.kind}: {finding.path} {finding.what}"
        print_result(text, as_json=as_json, **finding._asdict())
    looked_at = ["counts", "names", "sizes"] + ["digests"] * digests + ["decoding"] * decode
    record_verify(root, "samples", splits=splits, checks=looked_at, findings=found)
    summary = f"{count(found, 'finding')} in {', '.join(splits) or 'all splits'}"
    print_result(f"{summary} ({', '.join(looked_at)})", as_json=as_json, findings=found)
    return FINDINGS_EXIT_CODE if found else 0
