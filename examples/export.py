"""Export: a model leaves Python, as ONNX and as C, and both say what it says.

It learns from the sunspots of 1700 to 1930 to tell those of the next year. onnxruntime runs the one file; a C compiler
makes a program of the other, which needs neither Python nor a library. What is not installed here is left out.
"""

import shutil
import subprocess
import tempfile
from importlib.util import find_spec

import numpy as np

import cylstm
from cylstm import exchange
from examples import loading

spots = loading.sunspots()  # (309,)

PROGRAM = r"""#include <stdio.h>
#include "spots.h"
int main(void) {
    spots_state state; float x, y;
    for (spots_reset(&state); scanf("%f", &x) == 1; printf("%.9g\n", y)) spots_step(&state, &x, &y);
}"""
x = (spots[:-1, None] / 100).astype("float32")  # (308, 1): hundreds of them in each year
model = cylstm.Model(1, 16, 1, loss="mse", seed=0)
model.fit(x[None, :230], x[None, 1:231], epochs=300, optimizer=cylstm.Adam(1e-2), progress=False)
answers = {"Python": model.predict(x)[:, 0]}
with tempfile.TemporaryDirectory() as folder:
    if find_spec("onnxruntime"):
        from onnxruntime import InferenceSession

        exchange.save(model, f"{folder}/spots.onnx", states=False)
        answers["ONNX"] = InferenceSession(f"{folder}/spots.onnx").run(None, {"x": x[None]})[0][0, :, 0]
    if shutil.which("cc"):
        exchange.save(model, f"{folder}/spots.h", name="spots")
        subprocess.run(["cc", "-x", "c", "-", "-o", "spots", "-lm"], input=PROGRAM.encode(), cwd=folder, check=True)
        said = subprocess.check_output(f"{folder}/spots", input="\n".join(map(str, x[:, 0])).encode())
        answers["C"] = np.array(said.split(), "float32")
off = {name: 100 * (answers[name] - answers["Python"]) for name in [*answers][1:]}  # in sunspots

print("\n".join(f"{name} is off by at most {np.abs(off[name]).max():.1e} sunspots" for name in off))


def picture(figure):
    """All answers on top of each other, and how far those of the files are from Python's."""
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(np.arange(1701, 2009), spots[1:], "k.", ms=4, label="counted")
    for name, style, width in zip(answers, ("C0-", "C1--", "C2:"), (5, 2, 1.2), strict=False):
        above.plot(np.arange(1701, 2009), 100 * answers[name], style, lw=width, label=f"foretold, {name}")
        if name in off:
            below.plot(np.arange(1701, 2009), off[name], style[:2], label=f"{name} less Python")
    above.set(ylabel="sunspots", xlim=(1900, 2010), title="One model, run by Python, by onnxruntime and as C")
    below.set(xlabel="year (those after 1930 were not learnt from)", ylabel="difference, sunspots")
    for axes in (above, below):
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


loading.draw(picture, "export")
