"""Samples to batches of pixels, read, decoded and cropped by workers in the order of an epoch.

Nothing here knows of training: an evaluation and a contact sheet read by it as well.
"""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
