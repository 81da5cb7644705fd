"""Networks by their names, and weights of other programs; nothing here knows of training."""

import imnetprep.loading  # noqa: F401  # says how the threads of torch wait, before it is loaded
