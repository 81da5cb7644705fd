"""Trainings that grow before an expensive one: an image, a batch, a small set, the root."""
