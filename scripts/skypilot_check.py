#!/usr/bin/env python3
"""Does SkyPilot 0.14 take these tasks? Offline: without a cloud, credentials, or its server.

    PYTHON scripts/skypilot_check.py FILE.yaml…      by a Python that has skypilot[aws]==0.14.*

Task.from_yaml wants a price catalog, which it would fetch; one of the types that the tasks name is
written into a home of its own. What it does not look at: whether mounted files are there.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

_HEAD = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,"
    "AvailabilityZone,Arch,LocalDiskType,NVMeSupported,LocalDiskSize,LocalDiskCount"
)
_ROW = "{},T4,1.0,8.0,32.0,,1.0,0.5,us-east-1,us-east-1a,x86_64,ssd,True,450,1"


def main(names: list[str]) -> int:
    """Read each file as SkyPilot does, and say what it makes of it; 1 where it refuses one."""
    texts = [Path(name).read_text("utf-8") for name in names]
    types = {each for text in texts for each in re.findall(r"instance_type: (\S+)", text)}
    with tempfile.TemporaryDirectory(prefix="sky-home-") as home:
        for name in [each for each in os.environ if each.startswith("AWS_")]:
            del os.environ[name]  # with credentials it would ask the account for its zones
        os.environ |= {
            "HOME": home,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        }
        catalog = Path(home, ".sky/catalogs/v8/aws")
        catalog.mkdir(parents=True)
        rows = [_HEAD, *(_ROW.format(each) for each in sorted(types))]
        (catalog / "vms.csv").write_text("".join(f"{row}\n" for row in rows))
        import sky

        code = 0
        for name in names:
            try:
                resources = [str(each) for each in sky.Task.from_yaml(name).resources]
                print("ok  ", name, *resources)
            except Exception as error:
                code = 1
                print("no  ", name, type(error).__name__, " ".join(str(error).split()))
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
