"""Mistakes in the variants of a cell, put back into the oracle: see test_mutations.py."""

import numpy as np
import pytest
from against_oracle import layer_norm_written_out
from gradcheck import RTOL, gradient_error
from mistakes import is_found, mutated, worst_gradient_error

from cylstm import LSTM, oracle
from cylstm.cell import LAYER_NORMS

VARIANT_MUTATIONS = {  # of a cell with peepholes and clip, of one that is coupled as well, of one with other functions
    "a peephole's gradient from the state after the step": (
        "(dz_i * c_prev).sum(axis=0)", "(dz_i * c[t + 1]).sum(axis=0)"),
    "f's from i's": ("(dz_f * c_prev).sum(axis=0)", "(dz_i * c_prev).sum(axis=0)"),
    "o's from the state before the step": ("(dz_o * c[t + 1]).sum(axis=0)", "(dz_o * c_prev).sum(axis=0)"),
    "no gradient through o's peephole": ("            dc_t = dc_t + dz_o * variant.P[2]\n", "            pass\n"),
    "o's peephole with another gate's weight": ("dc_t + dz_o * variant.P[2]", "dc_t + dz_o * variant.P[1]"),
    "no gradient through i's peephole": ("dc_prev + dz_i * variant.P[0] + dz_f", "dc_prev + dz_f"),
    "no gradient through f's peephole": (" + dz_f * variant.P[1]\n", "\n"),
    "forward, i's and f's peepholes changed over": (
        "z_i + variant.P[0] * c_prev, z_f + variant.P[1] * c_prev",
        "z_i + variant.P[1] * c_prev, z_f + variant.P[0] * c_prev"),
    "forward, o sees the state before the step": ("z_o + variant.P[2] * c\n", "z_o + variant.P[2] * c_prev\n"),
    "a gradient through what was clipped": (
        "dc_t = dc_t * (np.abs(f[t] * c_prev + i[t] * (kept * g[t])) <= variant.clip)\n", "pass\n"),
    "clipping tanh(c) in the place of c": ("c = np.clip(c, -", "c = np.clip(np.tanh(c), -"),
    "clipped above only": ("np.clip(c, -variant.clip, variant.clip)", "np.minimum(c, variant.clip)"),
    "coupled: i has no gradient from f": ("            di, df = di - df, 0 * df\n", "            df = 0 * df\n"),
    "coupled: the gradient from f with the wrong sign": ("di - df, 0 * df", "di + df, 0 * df"),
    "coupled: f's own weights have a gradient": ("di - df, 0 * df", "di - df, df"),
    "coupled the other way round": ("        f = 1 - i\n    # c =", "        i = 1 - f\n    # c ="),
    "a gradient through what was cut before it was squashed": ("(passes * variant.squashed(inside, n)[1] for",
                                                               "(variant.squashed(inside, n)[1] for"),
    "a slope at what was not cut": ("inside, passes = variant.cut(z[t])", "inside, passes = z[t], 1"),
    "o's gradient from c in the place of f(c)": ("dh_t * f_c * slope_o, dh_t", "dh_t * c[t + 1] * slope_o, dh_t"),
    "the value of f(c) for its slope": ("slope_o, dh_t * o[t] * slope_c", "slope_o, dh_t * o[t] * f_c"),
    "another function's slope for g": ("dg * slope_g", "dg * np.split(slope, 4, axis=1)[2]"),
    "another gate's slope": ("df * slope_f, dg", "df * slope_i, dg"),
    "forward, o is of what was not cut": ("variant.squashed(variant.cut(z_o)[0], 0)[0]", "variant.squashed(z_o, 0)[0]"),
    "forward, g by the gates' function": ("(z_f, 0), (z_g, 1))", "(z_f, 0), (z_g, 0))"),
}  # fmt: skip
BEGUN = "        h_prev, c_prev = before(keep[t], mask, h[t], c[t], variant)\n"
DROPPED = BEGUN.replace("c[t]", "states[t]") + "        # h_t reaches"
DROP_MUTATIONS = {  # of a cell whose inputs, states, updates and weights are dropped
    "di of g before it was masked": ("di = dc_t * (kept * g[t])\n", "di = dc_t * g[t]\n"),
    "no mask on the way back to g": ("dg = kept * (dc_t * i[t])\n", "dg = dc_t * i[t]\n"),
    "forward, no mask on g": ("c = f * c_prev + i * (kept * g)\n", "c = f * c_prev + i * g\n"),
    "forward, what c has is dropped": ("c = f * c_prev + i * (kept * g)\n", "c = kept * (f * c_prev + i * g)\n"),
    "R trained on the state before it was masked": (DROPPED, DROPPED.replace("mask", "1.0")),
    "no mask on the way back to h": ("return dz.T @ h, mask * (dz @ R)", "return dz.T @ h, dz @ R"),
    "forward, no mask on h": (f"{BEGUN}        i[t]", f"{BEGUN}        i[t]".replace("mask", "1.0")),
    "forward, the cell is dropped as well": ("return mask * h, c\n", "return mask * h, mask * c\n"),
    "the gradient of weights that were dropped": (
        "            dR = dR if weight_masks is None else weight_masks[n] * dR\n", ""),
    "dh through the weights as they are": ("            R = R if weight_masks is None else weight_masks[n] * R\n", ""),
    "forward, no weight dropped": ("                R = weight_masks[n] * R\n", "                pass\n"),
    "dx of inputs that were dropped": (
        "    dlayer = dlayer if input_mask is None else dlayer * input_mask\n", ""),
    "forward, no input dropped": (" * (1.0 if input_mask is None else input_mask)", ""),
}  # fmt: skip
GATE_MUTATIONS = {  # of a cell where h has a mask for each gate
    "forward, one mask for all": ("for h_n, R_n in zip(h,", "for h_n, R_n in zip([h[0]] * 4,"),
    "R trained on one gate's state": ("dz_n.T @ h_n for", "dz_n.T @ h[0] for"),
    "no mask on the way back": ("sum(m_n * (dz_n @ R_n)", "sum((dz_n @ R_n)"),
    "one mask on the way back": ("sum(m_n * (dz_n @ R_n)", "sum(mask[2] * (dz_n @ R_n)"),
}  # fmt: skip
OLD_H = "before(keep[t], 1.0, h[t], c[t], variant)[0]"
C_KEPT = "(1 - new_c[t]) * c_prev\n        # a row"
ZONEOUT_MUTATIONS = {  # of a cell with zoneout, recurrent dropout and resets, and of one with other functions as well
    "forward, h of the c that is kept": (
        "o[t] * np.tanh(seen)\n", "o[t] * np.tanh(new_c[t] * c_t + (1 - new_c[t]) * c_prev)\n"),
    "forward, h kept as dropout masked it": (OLD_H, "h_prev"),
    "forward, h kept across a reset": (OLD_H, "h[t]"),
    "forward, c kept across a reset": (C_KEPT, C_KEPT.replace("c_prev", "c[t]")),
    "forward, what is kept is dropped": (f"h_t = new_h[t] * h_t + (1 - new_h[t]) * {OLD_H}", "h_t = new_h[t] * h_t"),
    "forward, h by c's mask": ("h_t = new_h[t] * h_t", "h_t = new_c[t] * h_t"),
    "forward, the mask of another step": ("c_t = new_c[t] * c_t + ", "c_t = new_c[t - 1] * c_t + "),
    "backward through the state that is kept": ("alive, keep, mask, c, (new_c, new_h), kept = run\n",
                                                "alive, keep, mask, _, (new_c, new_h), kept = run\n    c = states\n"),
    "no gradient of h past a step": ("dh_prev + dh_old, ", "dh_prev, "),
    "that of h with the mask of dropout": ("dh_prev + dh_old, ", "dh_prev + mask * dh_old, "),
    "no gradient of c past a step": (", dc_prev + dc_old\n", ", dc_prev\n"),
    "all of h's gradient through the step": ("dh_t, dc_t = new_h[t] * dh_t, new_c", "dh_t, dc_t = dh_t, new_c"),
    "all of c's gradient through the step": ("dh_t, new_c[t] * dc_t\n", "dh_t, dc_t\n"),
    "all of c's gradient past the step": ("(1 - new_c[t]) * dc_t\n", "dc_t\n"),
}  # fmt: skip
OF_R_P = "dR_p += dh_t.T @ (o[t] * variant.squashed(seen, 2)[0])"
PROJECTION_MUTATIONS = {
    "a tanh behind the projection": ("h_t = h_t @ variant.R_p.T\n", "h_t = np.tanh(h_t @ variant.R_p.T)\n"),
    "forward, of c alone": ("h_t = h_t @ variant.R_p.T\n", "h_t = np.tanh(c_t) @ variant.R_p.T\n"),
    "no gradient of a projection": (f"            {OF_R_P}\n", "            pass\n"),
    "a projection trained on c alone": (OF_R_P, "dR_p += dh_t.T @ tanh_c"),
    "a projection trained on the step before": (
        OF_R_P, "dR_p += dh_t.T @ (o[t] * np.tanh(c[t]))"),
    "the last step's alone": ("dR_p += dh_t.T", "dR_p = dh_t.T"),
    "trained on what comes from above alone": ("dR_p += dh_t.T", "dR_p += dy[t].T"),
    "a gradient through what was cut": ("< variant.proj_clip)\n", "< np.inf)\n"),
    "none through what was not": ("< variant.proj_clip)\n", ">= variant.proj_clip)\n"),
    "cut by what comes out of the gates": ("2)[0]) @ variant.R_p.T) < ", "2)[0])[:, :2]) < "),
    "forward, cut before the projection": (
        "h_t = h_t @ variant.R_p.T\n",
        "h_t = np.clip(h_t, -variant.proj_clip, variant.proj_clip) @ variant.R_p.T\n"),
    "forward, cut above only": (
        "h_t = np.clip(h_t, -variant.proj_clip, variant.proj_clip)", "h_t = np.minimum(h_t, variant.proj_clip)"),
    "back through the first numbers of h": (
        "dh_t = dh_t @ variant.R_p\n", "dh_t = dh_t @ np.eye(*variant.R_p.shape)\n"),
}  # fmt: skip
NORM_MUTATIONS = {
    "no mean taken off": ("centred = z - z.mean(axis=1, keepdims=True)", "centred = z"),
    "eps beside the deviation": ("keepdims=True) + eps)", "keepdims=True)) + eps"),
    "the variance of a sample": (
        ".mean(axis=1, keepdims=True) + eps", ".sum(axis=1, keepdims=True) / 2 + eps"),
    "deviation and mean taken for constants": (
        "scale * (dn - dn.mean(axis=1, keepdims=True) - n * (dn * n).mean(axis=1, keepdims=True))", "scale * dn"),
    "no gradient through the deviation": (" - n * (dn * n).mean(axis=1, keepdims=True)", ""),
    "no gradient through the mean": ("(dn - dn.mean(axis=1, keepdims=True) - ", "(dn - "),
    "what the next step gets is not normalised": (
        "d = dseen + dc if self.carried else dseen", "d = dseen"),
    "what the next step gets is": ("return by_c if self.carried else dc + by_c", "return by_c"),
    "c's gain left out on the way back": ("d * self.c[0])", "d)"),
    "c's shift left out": (" + self.c[1]\n", "\n"),
    "c's gain trained on c": ("np.stack([(d * n).sum", "np.stack([(d * c).sum"),
    "a gain left out on the way back": ("dz * gain), (dz", "dz), (dz"),
    "a gain trained on what was not normalised": ("(dz * n).sum(axis=0)\n", "(dz * z).sum(axis=0)\n"),
    "x's gain for h": ("(variant.norm.h, recurrent(", "(variant.norm.x, recurrent("),
    "the bias normalised as well": ("((variant.norm.x, x @ W.T),", "((variant.norm.x, x @ W.T + b),"),
    "the sum normalised": ("(variant.norm.x, x @ W.T),", "(variant.norm.x, x @ W.T + recurrent(h_prev, R)),"),
    "W trained on the sum's gradient": ("dW += dz_x.T @ x[t]", "dW += dz.T @ x[t]"),
    "R trained on the sum's gradient": ("dR += dR_t\n", "dR += dz.T @ h_prev\n"),
    "dx of the sum's gradient": ("dx[t] = dz_x @ W", "dx[t] = dz @ W"),
    "h of c as it is": ("return seen if self.norm is not None and self.norm.carried else c, seen",
                        "return seen if self.norm is not None and self.norm.carried else c, c"),
    "c's norm of the last step alone": ("dnorm[2] += dnorm_c", "dnorm[2] = dnorm_c"),
}  # fmt: skip
FIRST_STATE_MUTATIONS = {
    "h begins with zeros behind a reset": ("h, c = keep * h + (1 - keep) * variant.first[0], ", "h, c = keep * h, "),
    "its gradient is not masked": ("dh_first += ((1 - keep[t]) * dh_prev)", "dh_first += ((1 - keep[t]) * (dz_h @ R))"),
    "c begins with zeros behind a reset": ("keep * c + (1 - keep) * variant.first[1]\n", "keep * c\n"),
    "no gradient of h at resets": ("dh_first += ((1 - keep[t]) * dh_prev)", "dh_first += (0 * dh_prev)"),
    "that of what was kept": ("dh_first += ((1 - keep[t]) * dh_prev)", "dh_first += (keep[t] * dh_prev)"),
    "no gradient of c at resets": ("((1 - keep[t]) * dc_prev)", "(0 * dc_prev)"),
    "c's from behind the step": ("((1 - keep[t]) * dc_prev)", "((1 - keep[t]) * dc_t)"),
    "no gradient where rows begin": ("(0 if given else begun.sum(axis=0))", "0"),
    "that of a state which the caller gave": ("(0 if given else begun.sum(axis=0))", "begun.sum(axis=0)"),
    "of one row": ("begun.sum(axis=0)", "begun[0]"),
}


VARIANTS = {
    "peepholes, clip": dict(peepholes=True, cell_clip=0.7),
    "all": dict(peepholes=True, cell_clip=0.7, coupled=True),
    "activations": dict(peepholes=True, activations=("sigmoid", "exponential", "softplus"), gate_clip=0.5),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_unchanged_variants_pass(variant):
    assert worst_gradient_error(oracle, **VARIANTS[variant]) <= RTOL


@pytest.mark.parametrize("mistake", VARIANT_MUTATIONS)
def test_a_mistake_in_a_variant_fails_the_gradient_check(mistake):
    """Those of forward are seen where backward goes back through the right one."""
    module = mutated(*VARIANT_MUTATIONS[mistake])
    assert is_found(module, *VARIANTS.values())


@pytest.fixture(scope="module")
def drops():
    """Masks of one layer of H = 3 on B = 2 rows of I = 5, each with some zeros."""
    rng = np.random.default_rng(8)
    shapes = dict(input_mask=(2, 5), recurrent_masks=(1, 2, 3), update_masks=(1, 2, 3), weight_masks=(1, 12, 3))
    masks = {name: rng.permutation(np.arange(np.prod(shape)) % 3 > 0).reshape(shape) * 1.5
             for name, shape in shapes.items()}  # fmt: skip
    assert all(0 < (values == 0).sum() < values.size for values in masks.values())
    return masks


def test_the_unchanged_drops_pass(drops):
    assert worst_gradient_error(oracle, **drops) <= RTOL


@pytest.mark.parametrize("mistake", DROP_MUTATIONS)
def test_a_mistake_in_what_is_dropped_fails_the_gradient_check(mistake, drops):
    assert is_found(mutated(*DROP_MUTATIONS[mistake]), drops)


@pytest.fixture(scope="module")
def of_gates():
    """Four masks of h on B = 2 rows of H = 3."""
    return dict(recurrent_masks=np.random.default_rng(10).uniform(0.2, 1.8, (1, 4, 2, 3)))


def test_the_unchanged_masks_of_gates_pass(of_gates):
    assert worst_gradient_error(oracle, **of_gates) <= RTOL


@pytest.mark.parametrize("mistake", GATE_MUTATIONS)
def test_a_mistake_in_masks_of_gates_fails_the_gradient_check(mistake, of_gates):
    assert is_found(mutated(*GATE_MUTATIONS[mistake]), of_gates)


@pytest.fixture(scope="module")
def zones():
    """Masks of zoneout and of dropout, one layer of H = 3 on B = 2 rows of T = 4 steps, and a reset in each row."""
    rng = np.random.default_rng(9)
    masks = [rng.permutation(np.arange(24) % 3 > 0).reshape(1, 2, 4, 3) for _ in range(2)]
    resets = np.array([[0, 0, 1, 0], [0, 1, 0, 0]])
    return dict(zoneout_masks=masks, resets=resets, recurrent_masks=rng.uniform(0.5, 1.5, (1, 2, 3)))


@pytest.fixture(params=[{}, dict(activations=("sigmoid", "softsign", "softplus"))], ids=["plain", "activations"])
def zoned_cell(request):
    return request.param


def test_the_unchanged_zoneout_passes(zones, zoned_cell):
    assert worst_gradient_error(oracle, **zones, **zoned_cell) <= RTOL


@pytest.mark.parametrize("mistake", ZONEOUT_MUTATIONS)
def test_a_mistake_in_zoneout_fails_the_gradient_check(mistake, zones):
    module = mutated(*ZONEOUT_MUTATIONS[mistake])
    assert is_found(module, zones, zones | dict(activations=("sigmoid", "softsign", "softplus")))


def first_state_error(module):
    """The largest relative error of the first states' gradients, of rows that begin there and of rows that do not."""
    rng = np.random.default_rng(7)
    layout = LSTM.layout(5, 3, bidirectional=True, first_state=True)
    params = {name: rng.standard_normal(shape) * 0.6 for name, shape in layout.items()}
    x, dy, state = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 6)), rng.standard_normal((2, 2, 3, 3))
    masks = rng.uniform(0.5, 1.5, (2, 3, 3))
    options = dict(bidirectional=True, lengths=[4, 0, 3], resets=np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1]]),
                   recurrent_masks=masks)  # fmt: skip

    def loss():
        runs = [module.forward(x, params, start, **options) for start in (None, state)]
        return sum((dy * y).sum() + (state[0] * h).sum() + (state[1] * c).sum() for y, (h, c), _ in runs)

    tapes = [module.forward(x, params, start, **options)[2] for start in (None, state)]
    one, other = (module.backward(tape, dy, state)[2] for tape in tapes)
    names = [name for name in params if name[1:3] == "0_"]
    return max(gradient_error(loss, params[name], one[name] + other[name]) for name in names)


def test_the_unchanged_first_state_passes():
    assert first_state_error(oracle) <= RTOL


@pytest.mark.parametrize("mistake", FIRST_STATE_MUTATIONS)
def test_a_mistake_in_the_first_state_fails_the_gradient_check(mistake):
    assert first_state_error(mutated(*FIRST_STATE_MUTATIONS[mistake])) > 1000 * RTOL


@pytest.mark.parametrize("cell", [{}, dict(proj_clip=0.2)])
def test_the_unchanged_projection_passes(cell):
    assert worst_gradient_error(oracle, proj_size=2, **cell) <= RTOL


@pytest.mark.parametrize("mistake", PROJECTION_MUTATIONS)
def test_a_mistake_in_a_projection_fails_the_gradient_check(mistake):
    module = mutated(*PROJECTION_MUTATIONS[mistake])
    assert is_found(module, dict(proj_size=2, proj_clip=0.2))


NORMS = "ba", ("torchscript", 1e-2)


@pytest.mark.parametrize("norm", NORMS)
def test_the_unchanged_norms_pass(norm):
    assert worst_gradient_error(oracle, layer_norm=norm) <= RTOL


@pytest.mark.parametrize("mistake", NORM_MUTATIONS)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_mistake_in_layer_norms_fails_a_check(mistake):
    """The gradient's or, where backward goes through the same mistake, that of the outputs against the equations."""
    module = mutated(*NORM_MUTATIONS[mistake])
    rng, x = np.random.default_rng(3), np.random.default_rng(4).standard_normal((1, 6, 5))
    parameters = {name: rng.standard_normal(shape) for name, shape in LSTM.layout(5, 3, layer_norm="ba").items()}
    outputs = 0
    for kind, carried in LAYER_NORMS.items():
        y, _, _ = module.forward(x, parameters, layer_norm=(kind, 1e-2))
        outputs = max(outputs, abs(y[0] - layer_norm_written_out(x[0], parameters, carried, 1e-2)).max())
    assert outputs > 1e-3 or is_found(module, *(dict(layer_norm=norm) for norm in NORMS))
