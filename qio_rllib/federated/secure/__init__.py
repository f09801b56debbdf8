"""Secure aggregation: a server learns the sum of many clients' vectors and nothing else of them.

After Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", 2017, and Bell et al.,
"Secure single-server aggregation with (poly)logarithmic overhead", 2020.
"""
