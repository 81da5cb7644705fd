"""Networks trained, evaluated and shown: the only home of torch."""

import os

# Before torch is loaded: its threads sleep while they wait for each other. Spinning, two of them
# took 3.8 s for a step of 1.2 s on 2 cores of which another process had one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
