"""Search for the reinforcement's settings: short trials from one warm-up, before the training itself."""
