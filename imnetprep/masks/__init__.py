"""Images with masks: pairs of files, their pixels, and batches of them."""
