"""What a finished run makes of its checkpoint."""

from pathlib import Path

import pytest
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_rllib.algorithms import PPOConfig
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.finished_run import draw, finish
from qio_rllib.experiments.recorder import RunRecorder


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_module_of_another_package_is_evaluated_and_noted_to_have_no_policy_file(tmp_path):
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .evaluation(evaluation_duration=2)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule))
    )
    directory = RunDirectory.create(tmp_path, "x")
    directory.update_info(status="running")
    algorithm = config.build_algo()
    checkpoint = algorithm.save_to_path(str(directory.path / "checkpoint"))
    algorithm.stop()
    experiment = Experiment("PPO", "CartPole-v1", {"training_iteration": 1})
    recorder = RunRecorder(directory)
    recorder.checkpoints.add(Path(checkpoint), {"training_iteration": 0})
    result = finish(experiment, directory, recorder)
    assert set(result.evaluation) == {"greedy", "sampled"}
    (note,) = [note for note in result.notes if note.startswith("policy.pt: ")]
    assert "an RLModule of another package" in note
    assert not (directory.path / "policy.pt").exists()
    assert directory.info()["notes"] == list(result.notes)


def test_the_learning_curve_ends_with_the_final_evaluation(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "qio_rllib.artifacts.plots.plot_learning_curve", lambda rows, *rest: drawn.append(list(rows))
    )
    directory = RunDirectory.create(tmp_path, "x")
    recorder = RunRecorder(directory)
    for iteration in (1, 2):
        recorder.on_trial_result(
            0, [], None, {"training_iteration": iteration, "num_env_steps_sampled_lifetime": 100 * iteration}
        )
    experiment = Experiment("PPO", "CartPole-v1", {"training_iteration": 2})
    draw(experiment, directory, recorder)
    draw(experiment, directory, recorder, {"greedy": {"episode_return": 7.0}})
    recorder.close()
    key = "evaluation/greedy/episode_return"
    assert [key in row for row in drawn[0]] == [False, False]
    assert [row.get(key) for row in drawn[1]] == [None, 7.0]
    assert key not in recorder.progress.rows[-1]
