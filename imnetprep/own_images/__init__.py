"""Images of one's own: what lies in a folder, and which class each image is of."""
