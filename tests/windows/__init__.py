"""The Windows lane: what needs no torch, under a real Windows CPython in Wine."""
