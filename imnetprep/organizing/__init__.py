"""Archives to a finished split, whatever interrupts it."""
