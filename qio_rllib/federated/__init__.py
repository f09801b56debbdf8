"""Federated learning: what many clients send, and what a server may make of it; NumPy and cryptography, no ray."""
