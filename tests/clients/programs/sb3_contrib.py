"""CartPole without velocities, RecurrentPPO: learn, then a policy's steps. With `resets` in one call per sequence."""

import gymnasium
import numpy as np
import swap
import torch
from gymnasium.wrappers import TransformObservation
from sb3_contrib import RecurrentPPO
from sb3_contrib.ppo_recurrent.policies import MlpLstmPolicy
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv


class WithResets(MlpLstmPolicy):
    """The sequences of a batch in one call, where sb3-contrib takes one step after the other."""

    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        B = lstm_states[0].shape[1]
        x = features.reshape(B, -1, lstm.input_size).swapaxes(0, 1)  # (T, B, I)
        y, states = lstm(x, lstm_states, resets=episode_starts.reshape(B, -1).swapaxes(0, 1) > 0)
        return y.swapaxes(0, 1).flatten(end_dim=1), states


class Losses(BaseCallback):
    def __init__(self):
        super().__init__()
        self.values = []

    def _on_step(self):
        return True

    def _on_rollout_start(self):  # what the training before it has left in the log
        if "train/loss" in self.logger.name_to_value:
            self.values += [self.logger.name_to_value[f"train/{name}"] for name in ("loss", "value_loss")]

    _on_training_end = _on_rollout_start


def environment():
    seen = np.array([0, 2])
    whole = gymnasium.make("CartPole-v1")
    box = gymnasium.spaces.Box(whole.observation_space.low[seen], whole.observation_space.high[seen])
    return TransformObservation(whole, lambda observation: observation[seen], box)


def run(variant=None):
    environments = DummyVecEnv([environment] * 4)
    policy = WithResets if variant == "resets" and swap.engine() == "cylstm" else MlpLstmPolicy
    model = RecurrentPPO(
        policy, environments, n_steps=128, batch_size=128, n_epochs=4, seed=0, device="cpu",
        policy_kwargs={"lstm_hidden_size": 64})  # fmt: skip
    swap.accelerate(model.policy)
    losses = Losses()
    model.learn(1536, callback=losses, log_interval=None)
    observation, states, starts = environments.reset(), None, np.ones(4, bool)
    for _ in range(100):
        actions, states = model.predict(observation, states, starts, deterministic=True)
        observation, _, starts, _ = environments.step(actions)
    with torch.no_grad():
        values = [part.norm() for part in model.policy.parameters()]
    return {"losses": losses.values, "norms of the weights": values}
