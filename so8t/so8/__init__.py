"""The mathematics: so(8) generators, rotations, adapters, the image tower and folding."""
