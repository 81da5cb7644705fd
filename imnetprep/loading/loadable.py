"""Where torch ends the process as soon as it is loaded: told in words before."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from imnetprep.messages import ImnetprepError

_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
_LIBRARIES = ("libc10_cuda.so", "libc10_hip.so")  # which parse them when they are loaded


def require_loadable() -> None:
    """Raise ImnetprepError where torch could not be loaded: in a folder that is gone (its oneMKL
    exits), or for a setting of its allocator.

    A process of its own tries a setting, in some hundredths of a second, where there is one.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ImnetprepError(
            "the folder that this command runs in is gone",
            hint="cd into one that is there, then run the same command again",
        ) from error
    settings = [name for name in _SETTINGS if os.environ.get(name)]
    torch = find_spec("torch") if settings else None
    for folder in (torch and torch.submodule_search_locations) or ():
        for library in (Path(folder) / "lib" / name for name in _LIBRARIES):
            code = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
            words = [sys.executable, "-c", code, str(library)]
            if library.exists() and subprocess.run(words, capture_output=True).returncode < 0:
                values = " ".join(f"{name}={os.environ[name]}" for name in settings)
                raise ImnetprepError(
                    f"torch cannot be loaded with {values}",
                    hint=f"unset {' '.join(settings)}, or set what torch takes: NAME:VALUE,…",
                )
