"""Reading: digits side by side in a strip, column by column, from labels that do not say which column is which.

Images of digits stand close together or overlap, at different heights, and none of them is cut out: the model is told
which digits a strip has, in their order, and CTC finds where they are (Graves et al. 2006). Strips to test by are made
of images that training has not seen.
"""

import numpy as np

import cylstm
from cylstm import ctc
from examples import loading

(x, y), (x_test, y_test) = loading.digit_strips()  # x: lists of (T, 10); y: lists of digits (n,)

BLANK = 10  # behind the ten digits, each of which is its own class
model = cylstm.Model(10, 64, 11, bidirectional=True, loss=cylstm.losses.CTC(blank=BLANK), seed=0,
                     input_dropout=0.2, recurrent_dropout=0.2)  # fmt: skip
model.fit(x, y, epochs=12, batch_size=16, optimizer=cylstm.Adam(cylstm.Cosine(1e-2, 12)), progress=False)
error = model.evaluate(x_test, y_test, metrics=["label_error"])["label_error"]
logits, _ = model(x_test)  # a list of (T, 11)
read = ctc.ctc_greedy(logits, blank=BLANK)  # of each, its labels and at which steps they are
hits = np.array([np.array_equal(found.labels, row) for found, row in zip(read, y_test, strict=True)])

print(f"character error rate {error:.4f}")
print(f"strips without an error {hits.mean():.3f}")


def picture(figure):
    """Three strips with what was read below them, where it was read; the first is one that was misread, if there is."""
    chosen = [*np.flatnonzero(~hits)[:1], *np.flatnonzero(hits), *np.flatnonzero(~hits)[1:]][:3]
    longest = max(len(x_test[n]) for n in chosen)
    panels = figure.subplots(3, 1, sharex=True)
    for axes, n in zip(panels, chosen, strict=True):
        axes.imshow(x_test[n].T, cmap="Greys", aspect="auto", extent=(0, len(x_test[n]), 10, 0))
        for label, start, end in zip(*read[n][:3], strict=True):
            axes.axvspan(start, end, color="C1", alpha=0.3, lw=0)
            axes.text((start + end) / 2, 12, label, ha="center", va="center", color="C1", weight="bold")
        wanted, found = ("".join(map(str, row)) for row in (y_test[n], read[n].labels))
        axes.set(ylabel="row of pixels", xlim=(0, longest), ylim=(14, 0))
        axes.set_title(f"it was {wanted}, read as {found}", color="k" if wanted == found else "C3", fontsize=10)
    panels[2].set_xlabel("column of pixels = step; coloured: the steps at which the digit below was read")
    figure.suptitle(f"Digits in a strip, never cut apart: {error:.1%} of characters are wrong")


loading.draw(picture, "ocr")
