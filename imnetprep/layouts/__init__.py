"""How samples lie on disk: one module per layout."""
