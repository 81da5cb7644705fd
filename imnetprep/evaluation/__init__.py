"""A network scored on the validation images of a root, and what it gets wrong."""

import imnetprep.loading  # noqa: F401  # says how the threads of torch wait, before it is loaded
