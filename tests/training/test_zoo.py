"""Weights that hubs publish, where there is no way to them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_CUT_OFF = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from imnetprep.messages import ImnetprepError
from imnetprep.networks.model import build_model
from imnetprep.networks.zoo import timm_weights

def tell():
    tries.clear()
    try:
        print(timm_weights("test_resnet").source)
    except ImnetprepError as error:
        print(error, error.hint)
    print(len(tries))

tries = []
sys.addaudithook(lambda event, _: event == "socket.connect" and tries.append(event))
tell()
repository = Path(sys.argv[1], "hub", "models--timm--test_resnet.r160_in1k")
commit = repository / "snapshots" / (40 * "a")
for folder in (commit, repository / "refs"):
    folder.mkdir(parents=True)
(repository / "refs" / "main").write_text(commit.name)
network = build_model("timm:test_resnet", classes=1000, image_size=160, seed=0)
save_file(network.state_dict(), commit / "model.safetensors")
tell()
"""


@pytest.mark.slow
def test_timm_asks_a_few_times_where_there_is_no_way_and_takes_what_is_cached(
    tmp_path: Path,
) -> None:
    deaf = socket.socket()  # bound and not listening: whoever connects is refused
    deaf.bind(("127.0.0.1", 0))
    proxy = f"http://127.0.0.1:{deaf.getsockname()[1]}"
    names = ("https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
    settings = dict.fromkeys(names, proxy) | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    words = [sys.executable, "-c", _CUT_OFF, str(tmp_path)]
    with deaf:
        done = subprocess.run(words, env=os.environ | settings, stdout=subprocess.PIPE, check=True)
    error, tries, *cached = done.stdout.decode().splitlines()
    assert "timm's test_resnet cannot be downloaded: " in error and "refused" in error
    assert "https://huggingface.co/timm/test_resnet.r160_in1k" in error
    assert tries == "3"
    assert cached == ["timm:test_resnet", "1"]
