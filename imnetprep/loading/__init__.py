"""Samples of an organized root to batches of pixels, read, decoded and cropped by workers.

Nothing here knows of training: an evaluation and a contact sheet read by it as well.
"""

import os

# Before torch is loaded: its threads sleep while they wait for each other. Spinning, two of them
# took 3.8 s for a step of 1.2 s on 2 cores of which another process had one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Large tensors on huge pages, where Linux has some: of what a batch cost to normalise on a CPU, a
# third was page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
