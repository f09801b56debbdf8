"""Experiments: settings, validation, training, studies."""
