"""One thin door per verb: options in, one call, a report out."""
