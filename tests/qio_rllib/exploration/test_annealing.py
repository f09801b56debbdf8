import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qio_rllib.exploration import ExponentialAnnealing, QuantumAnnealing, make_annealing

LAWS = (ExponentialAnnealing, QuantumAnnealing)


@pytest.mark.parametrize("cls", LAWS)
def test_starts_at_alpha_0(cls):
    assert cls().alpha == 0.1
    assert (cls().alpha_0, cls().alpha_min, cls().decay) == (0.1, 0.01, 5e-4)


def test_exponential_closed_form():
    law = ExponentialAnnealing()
    for t in range(1, 6001):
        alpha = law.update(0.5)
        assert alpha == law.alpha
        assert alpha == pytest.approx(max(0.01, 0.1 * math.exp(-5e-4 * t)), rel=1e-12)
    assert alpha == 0.01


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50), st.floats(0.0, 1.0))
def test_quantum_closed_form(entropies, decay):
    law = QuantumAnnealing(alpha_0=2.0, alpha_min=0.5, decay=decay)
    for t, entropy in enumerate(entropies, 1):
        alpha = law.update(entropy)
        total = math.fsum(math.sqrt(1.0 - h * h) for h in entropies[:t])
        assert alpha == pytest.approx(max(0.5, 2.0 * math.exp(-decay * total)), rel=1e-9)


def test_quantum_stands_still_while_uniform_and_is_exponential_when_deterministic():
    uniform, certain, exponential = QuantumAnnealing(), QuantumAnnealing(), ExponentialAnnealing()
    for _ in range(100):
        uniform.update(1.0)
        certain.update(0.0)
        exponential.update(0.0)
    assert uniform.alpha == 0.1
    assert certain.alpha == exponential.alpha < 0.1


@given(st.lists(st.floats(0.0, 1.0), max_size=50))
def test_quantum_never_rises_and_never_outruns_the_exponential(entropies):
    quantum, exponential = QuantumAnnealing(decay=0.1), ExponentialAnnealing(decay=0.1)
    last = quantum.alpha
    for entropy in entropies:
        alpha = quantum.update(entropy)
        assert max(0.01, exponential.update(entropy)) <= alpha <= last
        last = alpha


@pytest.mark.parametrize("cls", LAWS)
@pytest.mark.parametrize("entropy", [math.nan, -0.01, 1.01, math.log(5), math.inf])
def test_an_entropy_that_is_not_normalised_is_refused(cls, entropy):
    law = cls()
    with pytest.raises(ValueError, match=r"entropy must be normalised, in \[0, 1\]"):
        law.update(entropy)
    assert law.get_state() == {"updates": 0, "progress": 0.0}


def test_rounding_beyond_the_ends_is_clamped():
    law = QuantumAnnealing(decay=1.0)
    law.update(1.0 + 5e-6)
    assert law.get_state() == {"updates": 1, "progress": 0.0}
    law.update(-5e-6)
    assert law.get_state() == {"updates": 2, "progress": 1.0}


@pytest.mark.parametrize("cls", LAWS)
def test_a_restored_law_continues_exactly(cls):
    law, restored = cls(decay=0.01), cls(decay=0.01)
    for k in range(20):
        law.update(k / 20)
    restored.set_state(json.loads(json.dumps(law.get_state())))
    assert restored.alpha == law.alpha
    assert restored.update(0.3) == law.update(0.3)
    assert restored.get_state() == law.get_state()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "keys updates and progress"),
        ({"updates": 1, "progress": 0.5, "alpha": 1}, "keys updates and progress"),
        ({"updates": -1, "progress": 0.0}, "updates must be an integer >= 0, got -1"),
        ({"updates": 1.5, "progress": 0.0}, "updates must be an integer"),
        ({"updates": 2, "progress": 2.5}, r"progress must be in \[0, updates\] = \[0, 2\], got 2.5"),
        ({"updates": 2, "progress": math.nan}, "progress must be in"),
        ({"updates": 2, "progress": "1"}, "progress must be in"),
    ],
)
def test_an_impossible_state_is_refused_and_changes_nothing(state, message):
    law = QuantumAnnealing()
    law.update(0.6)
    before = law.get_state()
    with pytest.raises(ValueError, match=message):
        law.set_state(state)
    assert law.get_state() == before


def test_make_annealing():
    assert make_annealing(None) is None
    assert type(make_annealing({"law": "exponential"})) is ExponentialAnnealing
    law = make_annealing({"law": "quantum", "alpha_0": 1, "alpha_min": 0.0, "decay": 0.2})
    assert type(law) is QuantumAnnealing
    assert (law.alpha_0, law.alpha_min, law.decay) == (1.0, 0.0, 0.2)
    assert repr(law) == "QuantumAnnealing(alpha_0=1.0, alpha_min=0.0, decay=0.2)"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"law": "quantun"}, "unknown annealing law 'quantun'; did you mean 'quantum'.*exponential"),
        ({"law": "zzz"}, "unknown annealing law 'zzz'; allowed: exponential, quantum"),
        ({"law": ["quantum"]}, "unknown annealing law"),
        ({"alpha_0": 0.1}, "needs a law, one of: exponential, quantum"),
        ({"law": "quantum", "alpha0": 1.0}, "unknown annealing key 'alpha0'; did you mean 'alpha_0'"),
        ({"law": "quantum", 3: 1.0}, "unknown annealing key 3; allowed: law, alpha_0, alpha_min, decay"),
        ({"law": "quantum", "alpha_min": 0.2}, "alpha_min must not exceed alpha_0, got 0.2 > 0.1"),
        ({"law": "quantum", "decay": -1.0}, "decay must be finite and >= 0, got -1.0"),
        ({"law": "quantum", "alpha_0": math.inf}, "alpha_0 must be finite"),
        ({"law": "quantum", "alpha_min": math.nan}, "alpha_min must be finite"),
        ({"law": "quantum", "decay": "5e-4"}, "decay must be a number, got '5e-4'"),
        ({"law": "quantum", "decay": True}, "decay must be a number, got True"),
    ],
)
def test_impossible_descriptions_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        make_annealing(spec)
