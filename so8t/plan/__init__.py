"""What a config needs before it is run: parameters, memory, disk and time, from shapes alone."""
