"""What a run shows, made of its log and plain values: curves, a page, trackers. No torch."""
