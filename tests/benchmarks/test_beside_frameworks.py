"""PPO beside other frameworks: who takes turns how long, what the table says, and how workers are spoken to."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import beside_frameworks as study
from beside_frameworks import HERE_BATCH, HERE_MPE2, Iteration

ENV_STEPS = 1600


class Scripted:
    """Takes a second by the clock and half of one of the CPU for a turn, and returns what it is told, then its last."""

    def __init__(self, returns, seconds=1.0):
        self.returns, self.seconds, self.turns = returns, seconds, 0

    def iterate(self):
        agent_return = self.returns[min(self.turns, len(self.returns) - 1)]
        self.turns += 1
        return Iteration(self.seconds, self.seconds / 2, ENV_STEPS, agent_return)

    def close(self):
        pass


def test_who_has_the_score_stops_and_who_has_not_goes_on_until_its_time_is_over():
    built = {"fast": Scripted([-30] * 4 + [-20]), "slow": Scripted([-30]), "BenchMARL, VMAS": Scripted([-10])}
    turns = study.compete(built, rounds=3, seconds=20)
    assert {name: len(played) for name, played in turns.items()} == {
        "fast": 9,  # the mean of 5 iterations reaches -21 when 4 are -30 no longer
        "slow": 20,
        "BenchMARL, VMAS": 4,
    }


def test_score_needs_whole_window_and_its_mean():
    def turns(*returns):
        return [Iteration(1.0, 1.0, ENV_STEPS, each) for each in returns]

    assert study.first_at_target(turns(*[-20] * 4)) is None
    assert study.first_at_target(turns(*[-20] * 5)) == 5
    assert study.first_at_target(turns(-22, -22, -21, -20, -20, -30)) == 5  # exactly -21


def test_table_holds_medians_of_common_rounds_and_ratios_to_own_path_on_such_environments():
    own = [Iteration(9.0, 9.0, ENV_STEPS, -30.0), *[Iteration(1.0, 0.5, ENV_STEPS, -20.0)] * 6]
    other = [Iteration(9.0, 9.0, ENV_STEPS, -30.0), *[Iteration(4.0, 1.0, ENV_STEPS, -30.0)] * 3]
    rows = study.summary({HERE_BATCH: own, "JaxMARL": other, HERE_MPE2: other, "RLlib, mpe2": other}, 3)
    first, jax, _, stock = rows
    assert (first["env_steps_per_s"], first["env_steps_per_cpu_s"]) == (1600, 3200)
    assert (first["counterpart"], first["counterpart_ratio"]) == ("", "")
    assert (first["env_steps_to_target"], first["seconds_to_target"]) == (6 * ENV_STEPS, 14.0)
    assert first["cpu_seconds_to_target"] == 9 + 5 * 0.5
    assert (jax["counterpart"], jax["counterpart_ratio"], jax["counterpart_cpu_ratio"]) == (
        HERE_BATCH,
        4.0,
        2.0,
    )
    assert (jax["env_steps_to_target"], jax["seconds_to_target"]) == ("", "")
    assert (stock["counterpart"], stock["counterpart_ratio"]) == (HERE_MPE2, 1.0)


def test_everybody_has_the_same_work():
    settings = study.SETTINGS
    assert settings["num_envs"] * settings["steps"] == ENV_STEPS == study.ENV_STEPS
    assert study.ENV_STEPS * study.AGENTS % settings["minibatch"] == settings["minibatch"] % study.AGENTS == 0
    for path in (study.OURS, study.STOCK):
        config = study.config_of(path, "mpe2.simple_spread_v3")
        assert config.num_envs_per_env_runner == settings["num_envs"]
        assert config.train_batch_size_per_learner == ENV_STEPS
        assert (config.minibatch_size, config.num_epochs) == (settings["minibatch"], settings["epochs"])
        assert (config.lr, config.gamma, config.lambda_) == (1e-3, 0.95, 0.95)
        assert (config.clip_param, config.entropy_coeff, config.grad_clip) == (0.2, 0.01, 0.5)
        assert (config.vf_loss_coeff, config.vf_clip_param, config.use_kl_loss) == (0.5, 1e4, False)
        assert config.metrics_num_episodes_for_smoothing == settings["num_envs"]
        assert config.model_config["fcnet_hiddens"] == settings["hidden"]
        assert config.model_config["fcnet_activation"] == "tanh"


def test_contestants_of_this_process_learn_an_iteration():
    for contestant in (study.PlainTorch(), study.StableBaselines3()):
        turn = contestant.iterate()
        contestant.close()
        assert turn.env_steps == ENV_STEPS
        assert turn.seconds > 0
        assert -60 < turn.agent_return < -15  # random play: about -26


WORKER = """
import sys
print("what a package prints at import")
print("ready 1.5", flush=True)
for number, line in enumerate(sys.stdin):
    if number == 2:
        sys.exit(3)
    print("a log line")
    print('{"seconds": 2.0, "cpu_seconds": 1.0, "env_steps": 1600, "agent_return": -%d}' % number, flush=True)
"""


def test_worker_answers_each_turn_and_its_end_is_told(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    worker = study.Worker("somebody", sys.executable, str(script))
    assert worker.start_s == 1.5
    assert [worker.iterate() for _ in range(2)] == [Iteration(2.0, 1.0, ENV_STEPS, -n) for n in range(2)]
    with pytest.raises(SystemExit, match="^somebody: its process ended with exit status 3$"):
        worker.iterate()
    worker.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jaxmarl", "/no/python", "--benchmarl", sys.executable], "--jaxmarl: no such Python: /no/python"),
        (
            ["--jaxmarl", sys.executable, "--benchmarl", sys.executable, "--rounds", "0"],
            "--rounds: expected at least 1",
        ),
    ],
)
def test_wrong_arguments_are_told(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["beside_frameworks.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        study.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
