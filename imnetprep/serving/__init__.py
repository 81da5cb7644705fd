"""A page in the browser that is asked what a picture shows, and what it may be asked."""
