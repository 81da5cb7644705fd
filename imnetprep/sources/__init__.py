"""Where archives come from: one module per kind of address."""
