"""Conformance checks that anyone can run on any environment."""
