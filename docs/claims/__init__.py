"""What is claimed, how each figure of it is computed, and from which raw files: the source of docs/results.md."""
