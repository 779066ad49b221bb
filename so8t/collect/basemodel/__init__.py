"""How a base model comes into the store: made here, copied from a folder, or fetched from the Hub."""
