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


def picture(figure):
    """A row of the test: its corridors, and the probability of turning right all along them."""
    x, begins, ends, right = (array[:1] for array in test)
    p = 1 / (1 + np.exp(-model(x, resets=begins)[0][0, :, 0]))
    steps, ends, right = np.arange(len(p)), ends[0], right[0]
    above, below = figure.subplots(2, 1, sharex=True)
    above.bar(steps, x[0, :, 0], color="C0", label="the sign: +1 for right,\n-1 for left")
    above.bar(steps, x[0, :, 1], color="C1", alpha=0.7, label="a corridor's end")
    above.set(ylabel="what is seen", title=f"A sign that is seen once is remembered: {after:.1%} of corridors end well")
    below.step(steps, p, where="mid", color="C2", label="what the policy says")
    for hit, marker in ((True, "o"), (False, "X")):
        chosen = ends & (((p > 0.5) == right) == hit)
        name = "the right way" if hit else "the wrong way"
        below.plot(steps[chosen], p[chosen], marker, color="C2" if hit else "C3", label=name)
    below.set(xlabel="step (grey lines: a corridor begins, the state is reset)", ylabel="probability of\nturning right")
    for axes in (above, below):
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
        for step in steps[begins[0]]:
            axes.axvline(step - 0.5, color="0.7", lw=0.8, zorder=0)


loading.draw(picture, "policy")
