"""CartPole, a policy gradient over rollouts that hold many episodes. With `resets` none is cut out and padded."""

import swap
import torch
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torchrl.envs import Compose, GymEnv, InitTracker, SerialEnv, TransformedEnv
from torchrl.modules import LSTMModule, set_recurrent_mode
from torchrl.objectives.value.functional import reward2go


class WithResets(LSTMModule):
    """Rollouts (B, T) in one call; the final state lies at the last step, where one per episode would lie otherwise."""

    def forward(self, tensordict=None):
        if not self.recurrent_mode:
            return super().forward(tensordict)
        x, h, c, starts = (tensordict[key] for key in self.in_keys)
        first = [part[:, 0].transpose(0, 1).contiguous() for part in (h, c)]  # (L, B, H)
        y, last = self.lstm(x, tuple(first), resets=starts.squeeze(-1))
        states = [torch.zeros_like(part) for part in (h, c)]
        for state, part in zip(states, last, strict=True):
            state[:, -1] = part.transpose(0, 1)
        for key, value in zip(self.out_keys, (y, *states), strict=True):
            tensordict.set(key, value)
        return tensordict


def run(variant=None):
    ours = variant == "resets" and swap.engine() == "cylstm"
    lstm = (WithResets if ours else LSTMModule)(4, 64, in_key="observation", out_key="features")
    logits = TensorDictModule(torch.nn.Linear(64, 2), ["features"], ["logits"])
    choice = ProbabilisticTensorDictModule(
        ["logits"], ["action"], distribution_class=torch.distributions.Categorical, default_interaction_type="random"
    )  # fmt: skip
    policy = swap.accelerate(ProbabilisticTensorDictSequential(lstm, logits, choice))
    transforms = Compose(InitTracker(), lstm.make_tensordict_primer())
    environment = TransformedEnv(
        SerialEnv(8, lambda: GymEnv("CartPole-v1", categorical_action_encoding=True)), transforms
    )
    environment.set_seed(0)
    optimizer, losses = torch.optim.Adam(policy.parameters(), lr=3e-3), []
    for _ in range(3):
        with torch.no_grad():
            played = environment.rollout(128, policy, break_when_any_done=False)
        gained = reward2go(played["next", "reward"], played["next", "done"], gamma=0.98).squeeze(-1)
        weights = (gained - gained.mean()) / gained.std()
        for _ in range(10):
            with set_recurrent_mode(True):
                chances = policy.get_dist(played.clone()).log_prob(played["action"])
            loss = -(weights * chances).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return {"losses": losses, "gained": gained, "weights": lstm.lstm.weight_hh_l0.detach()}
