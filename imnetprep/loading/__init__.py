"""Samples of an organized root to batches of pixels, read, decoded and cropped by workers.

Nothing here knows of training: an evaluation and a contact sheet read by it as well.
"""

import os

from imnetprep.jobs import share_cores

share_cores()  # before torch is loaded
# Large tensors on huge pages, where Linux has some: of what a batch cost to normalise on a CPU, a
# third was page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
