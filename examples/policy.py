"""A policy that remembers: which way to turn at the end of a corridor, as a sign at its beginning says.

Corridors lie end to end in the rows of a rollout, and `resets` says where each begins. What is done at their ends, and
well, becomes likelier: by the gradient of -(reward - baseline) log p(action), summed over ends (Williams 1992).
"""

import numpy as np

import cylstm
from examples import loading

rollouts, test = loading.corridors()  # x (B, T, 2); begins, ends, right (B, T)


def share(x, begins, ends, right):
    """Of the corridors that end as they should, where the likelier action is taken."""
    logits, _ = model(x, resets=begins)
    return ((logits[..., 0] > 0) == right)[ends].mean()


model = cylstm.Model(2, 16, 1, loss="binary_cross_entropy", seed=0)
optimizer, rng, baseline = cylstm.Adam(1e-2), np.random.default_rng(0), 0.5
before = share(*test)
for x, begins, ends, right in rollouts:
    logits, _, tape = model.forward(x, resets=begins)
    p = 1 / (1 + np.exp(-logits[..., 0]))
    action = rng.random(p.shape) < p  # whether to turn right
    reward = action == right
    slopes = ends * (reward - baseline) * (p - action) / ends.sum()
    optimizer.update(model.parameters, model.backward(tape, slopes[..., None]).parameters)
    baseline += 0.1 * (reward[ends].mean() - baseline)
after = share(*test)

print(f"right before {before:.3f}")
print(f"right after {after:.3f}")
