"""PPO on JaxMARL's simple_spread, compiled as a whole; run by `beside_frameworks.py` with a Python that has jaxmarl.

    python jaxmarl_ppo_worker.py SETTINGS

SETTINGS is the JSON that `beside_frameworks.py` describes. JaxMARL's package holds environments and no trainers; this
is PPO of one policy for all agents with its networks apart, in the form that its authors' baselines have: an iteration
is one compiled function. An episode's end is taken for the end of what can be earned, as they take it. After "ready"
and the seconds that compiling took, each line of the input is answered by an iteration's row.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import optax
from jaxmarl import make


def networks(key, inputs, actions, hidden):
    """Return the weights of actor and critic: for each a list of (weight, bias)."""

    def layers(key, sizes):
        keys = jax.random.split(key, len(sizes) - 1)
        scales = [2**0.5] * (len(sizes) - 2) + [0.01 if sizes[-1] > 1 else 1.0]
        return [
            (jax.nn.initializers.orthogonal(scale)(each, (before, after)), jnp.zeros(after))
            for each, before, after, scale in zip(keys, sizes[:-1], sizes[1:], scales, strict=True)
        ]

    one, two = jax.random.split(key)
    return {"actor": layers(one, [inputs, *hidden, actions]), "critic": layers(two, [inputs, *hidden, 1])}


def forward(layers, x):
    """Return what a network says of rows ``[..., D]``."""
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def trainer(env, settings):
    """Return two functions: one begins (key -> carry), one trains for an iteration (carry -> carry, return)."""
    num_envs, steps = settings["num_envs"], settings["steps"]
    names, agents = env.agents, len(env.agents)
    rows, minibatch = num_envs * steps * agents, settings["minibatch"]
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings["grad_clip"]), optax.adam(settings["lr"], eps=1e-8)
    )

    def begin(key):
        key, reset_key, net_key = jax.random.split(key, 3)
        observations, state = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
        seen = jnp.stack([observations[name] for name in names], axis=1)
        weights = networks(net_key, seen.shape[-1], env.action_space(names[0]).n, settings["hidden"])
        return key, state, seen, weights, optimizer.init(weights)

    def step(weights, carry, _):
        key, state, seen = carry
        key, act_key, step_key = jax.random.split(key, 3)
        logits = forward(weights["actor"], seen)
        actions = jax.random.categorical(act_key, logits)
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], -1)[..., 0]
        given = {name: actions[:, n] for n, name in enumerate(names)}
        keys = jax.random.split(step_key, num_envs)
        after, state, rewards, done, _ = jax.vmap(env.step)(keys, state, given)
        reward = jnp.stack([rewards[name] for name in names], axis=1)
        over = jnp.broadcast_to(done["__all__"][:, None], reward.shape)
        record = (seen, actions, logp, reward, over, forward(weights["critic"], seen)[..., 0])
        return (key, state, jnp.stack([after[name] for name in names], axis=1)), record

    def loss(weights, batch):
        seen, actions, logp, advantages, targets = batch
        log_probs = jax.nn.log_softmax(forward(weights["actor"], seen))
        ratio = jnp.exp(jnp.take_along_axis(log_probs, actions[:, None], -1)[:, 0] - logp)
        clipped = jnp.clip(ratio, 1 - settings["clip"], 1 + settings["clip"])
        gain = jnp.minimum(ratio * advantages, clipped * advantages).mean()
        error = jnp.square(forward(weights["critic"], seen)[:, 0] - targets).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return -gain + settings["vf_coeff"] * error - settings["entropy_coeff"] * entropy

    def update(carry, index, batch):
        weights, moments = carry
        gradients = jax.grad(loss)(weights, tuple(column[index] for column in batch))
        changes, moments = optimizer.update(gradients, moments, weights)
        return (optax.apply_updates(weights, changes), moments), None

    @jax.jit
    def iterate(carry):
        key, state, seen, weights, moments = carry
        (key, state, seen), played = jax.lax.scan(
            lambda carry, _: step(weights, carry, _), (key, state, seen), None, steps
        )
        observations, actions, logp, rewards, over, values = played

        def credit(carried, now):
            advantage, following = carried
            reward, end, value = now
            error = reward + settings["gamma"] * following * (1 - end) - value
            advantage = error + settings["gamma"] * settings["lambda"] * (1 - end) * advantage
            return (advantage, value), advantage

        last = forward(weights["critic"], seen)[..., 0]
        _, advantages = jax.lax.scan(
            credit, (jnp.zeros_like(last), last), (rewards, over.astype(jnp.float32), values), reverse=True
        )
        targets = advantages + values
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        batch = tuple(
            column.reshape(rows, *column.shape[3:])
            for column in (observations, actions, logp, advantages, targets)
        )
        key, shuffle_key = jax.random.split(key)
        order = jax.vmap(lambda each: jax.random.permutation(each, rows))(
            jax.random.split(shuffle_key, settings["epochs"])
        )
        (weights, moments), _ = jax.lax.scan(
            lambda carry, index: update(carry, index, batch), (weights, moments), order.reshape(-1, minibatch)
        )
        return (key, state, seen, weights, moments), rewards.mean() * settings["episode"]

    return begin, iterate


def main():
    settings = json.loads(sys.argv[1])
    last = settings["episode"] - 1  # it compares the number of steps before the one that ends
    env = make("MPE_simple_spread_v3", num_agents=3, num_landmarks=3, max_steps=last)
    begin, iterate = trainer(env, settings)
    start = time.perf_counter()
    carry = begin(jax.random.PRNGKey(settings["seed"]))
    for _ in range(2):  # the second turn has other types of numbers, and is compiled too
        jax.block_until_ready(iterate(carry))
    print("ready", round(time.perf_counter() - start, 2), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        carry, score = jax.block_until_ready(iterate(carry))
        row = {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "env_steps": settings["num_envs"] * settings["steps"],
            "agent_return": float(score),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
