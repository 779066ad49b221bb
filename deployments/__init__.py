"""The top: server, work pool, worker, and the `so8t` command."""
