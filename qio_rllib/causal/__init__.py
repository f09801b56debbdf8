"""Causal graphs, their discovery from data, identification and estimation of effects; NumPy and SciPy, no ray.

Sources: Pearl, "Causality", 2nd edition, 2009; Spirtes, Glymour and Scheines, "Causation, Prediction, and Search",
2nd edition, 2000.
"""
