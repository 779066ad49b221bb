"""Looks after runs from outside: what hangs, what runs full, what failed, and what may be done about it."""
