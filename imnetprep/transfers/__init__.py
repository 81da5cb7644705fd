"""Files on their way here: ranges side by side, each judged as it comes, resumed after a kill."""
