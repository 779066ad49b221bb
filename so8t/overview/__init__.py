"""What a run has come to, gathered once from the disk and shown twice: on a terminal and as a page of the Prefect UI."""
