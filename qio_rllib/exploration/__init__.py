"""Exploration: the Q operator, annealing laws and contraction measurement, in plain torch."""

from qio_rllib.exploration.amplification import (
    LOG_FLOOR,
    OPERATORS,
    Amplification,
    amplify,
    normalized_entropy,
    validate_parameters,
)
from qio_rllib.exploration.annealing import (
    Annealing,
    ExponentialAnnealing,
    QuantumAnnealing,
    make_annealing,
)
from qio_rllib.exploration.contraction import (
    METRICS,
    ContractionEstimate,
    distance,
    estimate_contraction,
    sweep,
)
from qio_rllib.exploration.controls import operate, random_control, temperature_control

__all__ = [
    "LOG_FLOOR",
    "METRICS",
    "OPERATORS",
    "Amplification",
    "Annealing",
    "ContractionEstimate",
    "ExponentialAnnealing",
    "QuantumAnnealing",
    "amplify",
    "distance",
    "estimate_contraction",
    "make_annealing",
    "normalized_entropy",
    "operate",
    "random_control",
    "sweep",
    "temperature_control",
    "validate_parameters",
]
