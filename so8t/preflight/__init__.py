"""What is looked at before a run: by `so8t doctor`, and as the first task of every run."""
