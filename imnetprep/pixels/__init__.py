"""Images to what a network sees: decoded, cropped, normalised.

Nothing here knows where an image lies, nor in which batch it is.
"""

import os

from imnetprep.jobs import share_cores

share_cores()  # before torch is loaded
# Large tensors on huge pages, where Linux has some: of what a batch cost to normalise on a CPU, a
# third was page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
