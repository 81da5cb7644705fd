"""Archives to a finished split, kill-safe."""
