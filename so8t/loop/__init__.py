"""Training that goes on from wherever it was stopped: phases, checkpoints, signals, progress. Knows no model."""
