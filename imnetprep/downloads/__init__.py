"""Files fetched into ROOT/archives from servers, with what proves their bytes."""
