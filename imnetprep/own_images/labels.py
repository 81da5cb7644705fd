"""The class of each image of a flat folder: by its file name, or by a table of both."""

import re
import signal
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from imnetprep.catalog.datasets import Split
from imnetprep.catalog.file_names import is_class_name
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.own_images.content import ImageFolder
from imnetprep.own_images.folder import as_text, is_file_name, read_class_folders, read_flat_folder
from imnetprep.own_images.tables import ImageNames, Row, read_table, refuse_surplus

# Of processor time, for one file name: no expression that ends at all takes a thousandth of it.
_LONGEST_MATCH_S = 1.0


def read_labelled(
    folder: Path, *, rule: str | None, table: Path | None, columns: str | None
) -> ImageFolder:
    """The images of `folder` by class, all of them as train: of class folders, or flat with `rule`
    or `table`.

    `rule`: "name", the class is the word of the file name before its first separator; else a
    regular expression whose first group is the class. `table`: CSV, TSV or JSON lines that name a
    file by its path below the folder, its name, or its name without an ending, in one of two
    `columns`, as `read_table` has them.

    Raises WrongUsage on a rule or columns that cannot be, ImnetprepError on a table that cannot be
    read and as `read_class_folders`; images without a class are problems of the folder.
    """
    if rule is None and table is None:
        return read_class_folders(folder)
    content = read_flat_folder(folder, deep=table is not None)
    files = content.splits[Split.TRAIN][""]
    if table is not None:
        labels = _labels_of_table(content, files, table, columns)
    else:
        labels = _labels_by_rule(rule or "", files)
        says = {files[path]: "says no class in its name" for path in files if path not in labels}
        content.problems |= says
        if len(labels) > 2 and len(set(labels.values())) == len(labels):
            raise ImnetprepError(
                f"every image of {folder} has a class of its own by --label-from {rule}",
                hint=r"--label-from takes a regular expression, such as '(.+)_\d+', or name",
            )
    content.splits[Split.TRAIN] = _by_class(content, files, labels)
    return content


def _compiled(rule: str) -> re.Pattern[str]:
    if rule == "name":
        return re.compile(r"^([^._\s-]+)[._\s-]")
    try:
        pattern = re.compile(rule)
    except (re.error, OverflowError, RecursionError) as error:
        raise WrongUsage(
            f"--label-from {rule!r} is no regular expression: {error}", hint="--label-from name"
        ) from error
    if not pattern.groups:
        raise WrongUsage(
            f"--label-from {rule!r} has no group for the class",
            hint=r"--label-from '(.+)_\d+', or --label-from name",
        )
    return pattern


def _labels_by_rule(rule: str, paths: Iterable[str]) -> dict[str, str]:
    """The class that `rule` finds in the name of each file, where it finds one.

    Raises WrongUsage where it would search a name for ever, as `(a+)+b` can. The limit is kept in
    the main thread only, which alone may have signals; `re` looks for those while it searches.
    """
    pattern, labels, path = _compiled(rule), dict[str, str](), ""
    is_main = threading.current_thread() is threading.main_thread()
    earlier = signal.signal(signal.SIGVTALRM, _refuse_to_go_on) if is_main else None
    try:
        for path in paths:
            if is_main:
                signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_MATCH_S)
            match = pattern.search(Path(path).name)
            if match and match[1]:
                labels[path] = match[1]
    except TimeoutError:
        raise WrongUsage(
            f"--label-from {rule} does not end on {Path(path).name}",
            hint=r"--label-from '(.+)_\d+': an expression without a repetition in a repetition",
        ) from None
    finally:
        if is_main:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, earlier)
    return labels


def _refuse_to_go_on(_number: int, _frame: object) -> None:
    raise TimeoutError


def _labels_of_table(
    content: ImageFolder, files: Mapping[str, str], table: Path, columns: str | None
) -> dict[str, str]:
    rows = read_table(table, columns, files)
    names, first_rows = ImageNames(files, (row.file for row in rows)), dict[str, Row]()
    for row in rows:
        path = names.find(row.file)
        if path is None:
            refuse_surplus(table, row)
            reason = f"names {row.file}, {names.reason(row.file)}"
            content.problems[f"{table}, line {row.line},"] = reason
        elif (first := first_rows.setdefault(path, row)).label != row.label:
            reason = f"is {row.label} in line {row.line} of {table.name}, and {first.label} in"
            content.problems[files[path]] = f"{reason} line {first.line}"
    if not first_rows:
        raise ImnetprepError(
            f"none of the {len(rows):,} lines of {table} names an image of {content.folder}",
            hint="--columns FILE,LABEL names the two columns",
        )
    rest = (files[path] for path in files if path not in first_rows)
    content.problems |= dict.fromkeys(rest, f"is not in {table.name}")
    return {path: row.label for path, row in first_rows.items()}


def _by_class(
    content: ImageFolder, files: Mapping[str, str], labels: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The files by class and by a name of their own in it, with their folders in front: what is
    added later changes no name.
    """
    classes: dict[str, dict[str, str]] = defaultdict(dict)
    for path, wnid in labels.items():
        name = as_text(path.replace("/", "_"))
        if not is_class_name(wnid):
            content.problems[files[path]] = f"is of {wnid!r}, which is no name of a class"
        elif not is_file_name(name) or name in classes[wnid]:
            content.problems[files[path]] = "has a name that cannot be kept"
        else:
            classes[wnid][name] = files[path]
    return {wnid: of_class for wnid, of_class in sorted(classes.items()) if of_class}
