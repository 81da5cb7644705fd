"""Networks trained and validated."""

import imnetprep.loading  # noqa: F401  # says how the threads of torch wait, before it is loaded
