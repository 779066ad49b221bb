"""Prefect's view of a step: caching, retries, timeouts, progress. Thin: the work is in so8t."""
