"""Order and nothing else."""
