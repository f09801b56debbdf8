"""What a training run leaves behind: tables, plots, animations and policy files."""
