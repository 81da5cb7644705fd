"""`imnetprep organize`."""

import click

from imnetprep.catalog.datasets import Split
from imnetprep.commands.options import (
    archives_option,
    dataset_option,
    dry_run_option,
    jobs_option,
    json_option,
    quiet_option,
    root_option,
    split_option,
)
from imnetprep.commands.terminal import print_result, progress
from imnetprep.roots import Root
from imnetprep.units import count, format_bytes


@click.command(short_help="Make class folders of the archives, in one pass.")
@root_option
@dataset_option
@split_option
@archives_option
@click.option("--consume", is_flag=True, help="Give the archive's blocks back as they are done.")
@click.option(
    "--meta-bin", is_flag=True, help="Also write ROOT/meta.bin, for torchvision's ImageNet class."
)
@jobs_option
@dry_run_option
@json_option
@quiet_option
def organize(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: str | None,
    consume: bool,
    meta_bin: bool,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make class folders of the archives, in one pass: train/<wnid>/, val/<wnid>/.

    A split appears under its name when its archive is proved and its counts fit, never before.
    Killed at any instant, the same command goes on from the last class that was safe on the disk.

    With --consume the disk holds one copy, not two: of an archive that is proved, what is done is
    given up class by class; it is called NAME.consumed from then on.

    \b
    imnetprep organize
    imnetprep organize --root /data/imagenet --archives s3://my-bucket/imagenet
    curl https://example.org/ILSVRC2012_img_val.tar | imnetprep organize --archives - --split val
    """
    from imnetprep.organize import carry_out_organize, plan_organize

    plan = plan_organize(
        root, dataset=dataset, splits=splits, archives=archives, consume=consume, jobs=jobs
    )
    if dry_run:
        for planned in plan.splits:
            done = "is organized; nothing to do"
            text = f"{planned.split}: {done if planned.done else f'from {planned.address}'}"
            print_result(
                text,
                as_json=as_json,
                split=planned.split,
                address=planned.address,
                done=planned.done,
            )
        needs = plan.needs
        print_result(
            f"needs {format_bytes(needs.disk_bytes)} of disk, {count(needs.files, 'file')}",
            as_json=as_json,
            needed_bytes=needs.disk_bytes,
            needed_files=needs.files,
        )
        return
    for record in carry_out_organize(plan, root, jobs=jobs, progress=progress(quiet=quiet)):
        what = f"{count(record.samples, 'image')}, {format_bytes(record.size_bytes)}"
        text = f"{record.split}: {what} in {root.split(record.split)}"
        print_result(text, as_json=as_json, **record._asdict())
    if meta_bin:
        from imnetprep.training.meta_bin import write_meta_bin

        write_meta_bin(root, plan.dataset)
