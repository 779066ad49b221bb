"""Data that comes with the package: digits, tones, prompts and plain text."""
