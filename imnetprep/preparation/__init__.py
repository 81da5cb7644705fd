"""Samples to a finished split, kill-safe, and what proves it."""
