"""The planners again, in NumPy and float64, one row after the other, as the papers and the docstrings state them."""

import numpy as np


class Oracle:
    """Plans one decision after another for one row; ``returns`` takes one sequence ``[H, A]``."""

    def __init__(self, settings, num_actions, is_discrete, rng):
        self.s, self.actions, self.discrete, self.rng = settings, num_actions, is_discrete, rng
        self.center, self.kept = None, []

    def plan(self, returns):
        s, shape = self.s, (self.s.horizon, self.actions)
        if self.discrete:
            uniform = np.full(shape, 1 / self.actions)
            center = uniform if self.center is None else (uniform + self.center) / 2
        else:
            center = np.zeros(shape) if self.center is None else self.center
        spread, kept = np.full(shape, s.initial_deviation), self.kept
        for i in range(s.iterations):
            count = s.candidates
            if s.method == "icem":
                floor = min(2 * s.elites, s.candidates)
                count = max(int(np.ceil(s.candidates / s.shrink**i)), floor)
            pool = self.draw(center, spread, count)
            if s.method == "icem" and i == s.iterations - 1:
                pool.append(self.middle(center))
            pool += kept
            scores = [returns(x) for x in pool]
            order = sorted(range(len(pool)), key=lambda n: -scores[n])
            weights = self.weights(scores, order)
            mean = sum(w * x for w, x in zip(weights, pool, strict=True))
            deviation = np.sqrt(sum(w * (x - mean) ** 2 for w, x in zip(weights, pool, strict=True)))
            center = s.momentum * center + (1 - s.momentum) * mean
            spread = s.momentum * spread + (1 - s.momentum) * np.maximum(deviation, s.least_deviation)
            kept = [pool[n] for n in order[: int(s.keep_elites * s.elites)]] if s.method == "icem" else []
        if s.warm_start:
            last = uniform[-1:] if self.discrete else mean[-1:]
            self.center = np.concatenate([mean[1:], last])
            self.kept = [np.concatenate([x[1:], x[-1:]]) for x in kept]
        answer = self.middle(mean)
        if s.method == "icem" and returns(answer) < scores[order[0]]:
            answer = pool[order[0]]
        return answer, returns(answer)

    def draw(self, center, spread, count):
        s = self.s
        if self.discrete:
            chances = self.rng.random((count, s.horizon), np.float32)
            mixed = (1 - s.uniform_share) * center + s.uniform_share / self.actions
            chosen = (chances[..., None] >= mixed.cumsum(-1)).sum(-1)
            return list(np.eye(self.actions)[chosen])
        noise = self.rng.standard_normal((count, s.horizon, self.actions), np.float32).astype(float)
        if s.method == "icem":
            frequencies = np.fft.rfftfreq(s.horizon)
            frequencies[0] = frequencies[1]
            gain = frequencies ** (-s.noise_exponent / 2)
            both = np.concatenate([gain, gain[1 : (s.horizon + 1) // 2]])  # negative frequencies too
            noise = np.fft.irfft(np.fft.rfft(noise, axis=1) * gain[:, None], s.horizon, axis=1)
            noise /= np.sqrt(np.mean(both**2))
        return list(np.clip(center + spread * noise, -1, 1))

    def middle(self, center):
        return np.eye(self.actions)[center.argmax(-1)] if self.discrete else center

    def weights(self, scores, order):
        s, weights = self.s, np.zeros(len(scores))
        if s.method == "mppi":
            best, median = scores[order[0]], scores[order[len(scores) // 2]]
            weights = np.exp((np.array(scores) - best) / (s.temperature * (best - median)))
            return weights / weights.sum()
        weights[order[: s.elites]] = 1 / s.elites
        return weights
