"""The device that a network computes on: picked, fed, and what is fast there.

Nothing here knows of training: an evaluation and a prediction compute by it as well.
"""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
