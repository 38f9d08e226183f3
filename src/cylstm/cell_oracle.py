"""One direction of one layer in plain NumPy, to be read: its steps, and backpropagation through them. See oracle.py.

float64 throughout. The equation stands above each line; backward stands beside forward, `dz` being d loss / dz.
Everything is time-major, and h and c have T + 1 slots: slot 0 is the initial state, slot t+1 the state after step t, so
that nothing is ever called t-1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cylstm.dense_oracle import activation, sigmoid
from cylstm.norm_oracle import Norm, normed

__all__ = ["PLAIN", "Record", "Variant", "before", "gates", "run_backward", "run_forward", "sequence", "step"]


# --- one step, one sequence -------------------------------------------------------------------------------------------


class Variant(NamedTuple):
    """What a cell has beside the plain one: peepholes P (3, H), of i, f and o; f = 1 - i; bounds of c; other functions
    of the gates, of g, and of c; bounds of what these are of, and of h behind a projection; h and c that whatever
    begins anew begins with; a projection R_p (P, H) to h (B, P); layer norms."""

    P: np.ndarray | None = None
    coupled: bool = False
    clip: float | None = None
    activations: tuple | None = None
    gate_clip: float | None = None
    proj_clip: float | None = None
    first: tuple = (0.0, 0.0)
    R_p: np.ndarray | None = None
    norm: Norm | None = None

    @property
    def replaced(self):
        """Whether the gates are others than sigmoid(z), and tanh(z) for g, or h than o tanh(c)."""
        return self.activations is not None or self.gate_clip is not None

    def squashed(self, z, n):
        """f(z) and f'(z) of the gates (n = 0), of g (1), of c (2)."""
        return activation((self.activations or ("sigmoid", "tanh", "tanh"))[n], z)

    def cut(self, z):
        """z within -gate_clip..gate_clip, before it is squashed, and d of that / dz."""
        bound = np.inf if self.gate_clip is None else self.gate_clip
        return np.clip(z, -bound, bound), abs(z) < bound

    def carried_and_seen(self, c):
        """What the next step gets of f c_prev + i g, and what h = o tanh(.) is of."""
        seen = c if self.norm is None else self.norm.seen(c)
        return seen if self.norm is not None and self.norm.carried else c, seen


PLAIN = Variant()


def gates(x, h_prev, c_prev, W, R, b, variant=PLAIN, kept=1.0):
    """The gates of one step and its new cell state, each (B, H), and what the gates are of, z (B, 4H), from x (B, I),
    h_prev and c_prev (B, H). kept (B, H): the mask of g."""
    # z = W x + R h + b
    z = x @ W.T + recurrent(h_prev, R) + b
    if variant.norm is not None:
        # z = gain_x n(W x) + gain_h n(R h) + b
        z = sum(gain * normed(part, variant.norm.eps)[0] for gain, part in
                ((variant.norm.x, x @ W.T), (variant.norm.h, recurrent(h_prev, R)))) + b  # fmt: skip
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    if variant.P is not None:
        # z_i += p_i c_prev, z_f += p_f c_prev (Gers, Schraudolph & Schmidhuber 2002)
        z_i, z_f = z_i + variant.P[0] * c_prev, z_f + variant.P[1] * c_prev
    # i, f, o = sigmoid(z), g = tanh(z)
    i, f, g = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g)
    if variant.replaced:
        # i, f = f_1(z), g = f_2(z)
        i, f, g = (variant.squashed(variant.cut(z_n)[0], n)[0] for z_n, n in ((z_i, 0), (z_f, 0), (z_g, 1)))
    if variant.coupled:
        # f = 1 - i (Greff et al. 2017)
        f = 1 - i
    # c = f c_prev + i (m g), m the same at all steps (Semeniuta, Severyn & Barth 2016)
    c = f * c_prev + i * (kept * g)
    if variant.clip is not None:
        # -clip <= c <= clip (Sak, Senior & Beaufays 2014)
        c = np.clip(c, -variant.clip, variant.clip)
    if variant.P is not None:
        # z_o += p_o c
        z_o = z_o + variant.P[2] * c
    o = variant.squashed(variant.cut(z_o)[0], 0)[0] if variant.replaced else sigmoid(z_o)
    return i, f, g, o, c, np.concatenate([z_i, z_f, z_g, z_o], axis=1)


def recurrent(h, R):
    """R h of all gates (B, 4H), h (B, H), or (4, B, H) where that of each gate has been masked on its own."""
    if h.ndim == 2:
        return h @ R.T
    return np.concatenate([h_n @ R_n.T for h_n, R_n in zip(h, np.split(R, 4), strict=True)], axis=1)


def recurrent_backward(dz, h, R, mask):
    """d loss / dR and / dh of recurrent(mask * h, R), whose first argument is `h` here, from dz (B, 4H)."""
    if h.ndim == 2:
        return dz.T @ h, mask * (dz @ R)
    parts = list(zip(np.split(dz, 4, axis=1), h, np.split(R, 4), mask, strict=True))
    # R_n (m_n h) of each gate n
    dR = np.concatenate([dz_n.T @ h_n for dz_n, h_n, _, _ in parts])
    return dR, sum(m_n * (dz_n @ R_n) for dz_n, _, R_n, m_n in parts)


def step(x, h_prev, c_prev, W, R, b, variant=PLAIN):
    """One step: x (B, I), h_prev and c_prev (B, H) -> h, c, each (B, H)."""
    _, _, _, o, c, _ = gates(x, h_prev, c_prev, W, R, b, variant)
    c, seen = variant.carried_and_seen(c)
    # h = o tanh(c), with layer norms of the normalised c
    h = o * np.tanh(seen)
    if variant.replaced:
        # h = o f_3(c)
        h = o * variant.squashed(seen, 2)[0]
    if variant.R_p is not None:
        # h = R_p (o tanh(c)) (Sak, Senior & Beaufays 2014)
        h = h @ variant.R_p.T
    if variant.proj_clip is not None:
        # -proj_clip <= h <= proj_clip (TensorFlow's LSTMCell)
        h = np.clip(h, -variant.proj_clip, variant.proj_clip)
    return h, c


def sequence(x, W, R, b):
    """The form of the textbooks: one sequence x (T, I) -> h (T, H), from a zero state."""
    h = c = np.zeros((1, R.shape[1]))
    outputs = []
    for x_t in x:
        h, c = step(x_t[None], h, c, W, R, b)
        outputs.append(h[0])
    return np.stack(outputs)


# --- one direction of one layer ---------------------------------------------------------------------------------------


class Record(NamedTuple):
    """What one direction of one layer keeps for its backward pass. Time runs in the order of processing."""

    x: np.ndarray  # (T, B, I)
    h: np.ndarray  # (T+1, B, H)
    c: np.ndarray  # (T+1, B, H)
    i: np.ndarray  # (T, B, H), and so the other gates
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    z: np.ndarray  # (T, B, 4H): what the gates are of
    alive: np.ndarray  # (T, B, 1): 1 where step t belongs to the row, 0 past its end
    keep: np.ndarray  # (T, B, 1): 0 where nothing reaches step t from the step before it, 1 elsewhere
    mask: np.ndarray | float  # (B, H), or for each gate (4, B, H): of recurrent dropout; 1 without
    fresh: np.ndarray  # (T+1, B, H): c as the gates make it, which zoneout has not kept as it was
    zone: tuple  # of zoneout, shares of what is new in c and h: each (T, B, H), or 1 without
    kept: np.ndarray | float  # (B, H): the mask of g; 1 without


def before(keep, mask, h, c, variant):
    """What a step begins with: h and c (B, H) or, where nothing reaches it, the first state; h times the mask."""
    # h_prev = keep h + (1 - keep) h_0, and so c
    h, c = keep * h + (1 - keep) * variant.first[0], keep * c + (1 - keep) * variant.first[1]
    # m h_{t-1} in the place of h_{t-1}, m the same at all steps (Gal & Ghahramani 2016), or one for each gate
    return mask * h, c


def run_forward(x, h0, c0, W, R, b, alive, keep, variant=PLAIN, mask=1.0, zone=(1.0, 1.0), kept=1.0):
    """x (T, B, I) -> Record; its h[t+1] is the output of step t."""
    T, B, _ = x.shape
    H = len(R) // 4
    h, c = np.empty((T + 1, B, R.shape[1])), np.empty((T + 1, B, H))
    i, f, g, o = (np.empty((T, B, H)) for _ in range(4))
    z = np.empty((T, B, 4 * H))
    h[0], c[0] = h0, c0
    fresh, new_c, new_h = c.copy(), *map(np.broadcast_to, zone, (o.shape, (T, *h.shape[1:])))
    for t in range(T):
        h_prev, c_prev = before(keep[t], mask, h[t], c[t], variant)
        i[t], f[t], g[t], o[t], c_t, z[t] = gates(x[t], h_prev, c_prev, W, R, b, variant, kept)
        c_t, seen = variant.carried_and_seen(c_t)
        # h_t = o tanh(c_t), with layer norms of the normalised c_t
        h_t = o[t] * np.tanh(seen)
        if variant.replaced:
            # h_t = o f_3(c_t)
            h_t = o[t] * variant.squashed(seen, 2)[0]
        if variant.R_p is not None:
            # h_t = R_p (o tanh(c_t))
            h_t = h_t @ variant.R_p.T
        if variant.proj_clip is not None:
            # -proj_clip <= h_t <= proj_clip
            h_t = np.clip(h_t, -variant.proj_clip, variant.proj_clip)
        fresh[t + 1] = c_t
        # c_t = m_c c_t + (1 - m_c) c_{t-1}, and so h_t, which is of the c_t that the gates make (Krueger et al. 2017)
        h_t = new_h[t] * h_t + (1 - new_h[t]) * before(keep[t], 1.0, h[t], c[t], variant)[0]
        c_t = new_c[t] * c_t + (1 - new_c[t]) * c_prev
        # a row that has ended, or not yet begun, keeps its state
        c[t + 1] = np.where(alive[t], c_t, c[t])
        h[t + 1] = np.where(alive[t], h_t, h[t])
    return Record(x, h, c, i, f, g, o, z, alive, keep, mask, fresh, (new_c, new_h), kept)


def run_backward(run, dy, dhn, dcn, W, R, variant=PLAIN):
    """dy (T, B, H), dhn, dcn (B, H): d loss / d outputs and final state -> dx, dh0, dc0, dW, dR, db, dP, dR_p, of the
    first state dh_first and dc_first, where it stood in the place of what did not reach a step, and of layer norms."""
    x, h, states, i, f, g, o, z, alive, keep, mask, c, (new_c, new_h), kept = run
    H, Y = len(W) // 4, R.shape[1]
    dx, dW, dR, db, dP, dR_p = (np.zeros(shape) for shape in (x.shape, W.shape, R.shape, len(W), (3, H), (Y, H)))
    dh_first, dc_first = np.zeros(Y), np.zeros(H)
    dnorm = [np.zeros(4 * H), np.zeros(4 * H), np.zeros((2, H))]
    dh, dc = dhn, dcn
    for t in reversed(range(len(x))):
        h_prev, c_prev = before(keep[t], mask, h[t], states[t], variant)
        # h_t reaches the loss through y_t and through step t+1
        dh_t = alive[t] * (dh + dy[t])
        dc_t = alive[t] * dc
        # h_t = m_h h_t + (1 - m_h) h_{t-1}, and so c_t
        dh_old, dc_old = (1 - new_h[t]) * dh_t, (1 - new_c[t]) * dc_t
        dh_t, dc_t = new_h[t] * dh_t, new_c[t] * dc_t
        # h_t = o tanh(c_t), with layer norms of the normalised c_t
        seen = c[t + 1] if variant.norm is None or variant.norm.carried else variant.norm.seen(c[t + 1])
        tanh_c = np.tanh(seen)
        if variant.proj_clip is not None:
            # a constant where it was cut
            dh_t = dh_t * (abs((o[t] * variant.squashed(seen, 2)[0]) @ variant.R_p.T) < variant.proj_clip)
        if variant.R_p is not None:
            # h_t = R_p (o f_3(c_t))
            dR_p += dh_t.T @ (o[t] * variant.squashed(seen, 2)[0])
            dh_t = dh_t @ variant.R_p
        do = dh_t * tanh_c
        dz_o = do * o[t] * (1 - o[t])
        dseen = dh_t * o[t] * (1 - tanh_c**2)
        if variant.replaced:
            # h_t = o f_3(c_t), o = f_1(z_o)
            inside, passes = variant.cut(z[t])
            slope, slope_g = (passes * variant.squashed(inside, n)[1] for n in (0, 1))
            slope_i, slope_f, _, slope_o = np.split(slope, 4, axis=1)
            slope_g = np.split(slope_g, 4, axis=1)[2]
            f_c, slope_c = variant.squashed(seen, 2)
            dz_o, dseen = dh_t * f_c * slope_o, dh_t * o[t] * slope_c
        if variant.norm is None:
            dc_t = dc_t + dseen
        else:
            raw = f[t] * c_prev + i[t] * (kept * g[t])
            raw = raw if variant.clip is None else np.clip(raw, -variant.clip, variant.clip)
            dc_t, dnorm_c = variant.norm.backward(raw, dc_t, dseen)
            dnorm[2] += dnorm_c
        if variant.P is not None:
            # z_o = ... + p_o c_t
            dc_t = dc_t + dz_o * variant.P[2]
        if variant.clip is not None:
            # a constant where it was cut
            dc_t = dc_t * (np.abs(f[t] * c_prev + i[t] * (kept * g[t])) <= variant.clip)
        # c_t = f c_{t-1} + i (m g)
        di = dc_t * (kept * g[t])
        df = dc_t * c_prev
        dg = kept * (dc_t * i[t])
        if variant.coupled:
            # f = 1 - i
            di, df = di - df, 0 * df
        # sigmoid' = s (1 - s), tanh' = 1 - tanh^2, both from the gates' values
        dz_i = di * i[t] * (1 - i[t])
        dz_f = df * f[t] * (1 - f[t])
        dz_g = dg * (1 - g[t] ** 2)
        if variant.replaced:
            # i, f = f_1(z), g = f_2(z)
            dz_i, dz_f, dz_g = di * slope_i, df * slope_f, dg * slope_g
        dz = np.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
        dz_x = dz_h = dz
        if variant.norm is not None:
            # z = gain_x n(W x_t) + gain_h n(R h_{t-1}) + b
            dz_x, by_x = variant.norm.part_backward(x[t] @ W.T, variant.norm.x, dz)
            dz_h, by_h = variant.norm.part_backward(recurrent(h_prev, R), variant.norm.h, dz)
            dnorm[0] += by_x
            dnorm[1] += by_h
        # z = W x_t + R h_{t-1} + b
        dW += dz_x.T @ x[t]
        dR_t, dh_prev = recurrent_backward(dz_h, h_prev, R, mask)
        dR += dR_t
        db += dz.sum(axis=0)
        dc_prev = dc_t * f[t]
        if variant.P is not None:
            # z_i = ... + p_i c_{t-1}, z_f = ... + p_f c_{t-1}, z_o = ... + p_o c_t
            dP += [(dz_i * c_prev).sum(axis=0), (dz_f * c_prev).sum(axis=0), (dz_o * c[t + 1]).sum(axis=0)]
            dc_prev = dc_prev + dz_i * variant.P[0] + dz_f * variant.P[1]
        dx[t] = dz_x @ W
        dh_prev, dc_prev = dh_prev + dh_old, dc_prev + dc_old
        # h_prev = keep h + (1 - keep) h_0, and so c
        dh_first += ((1 - keep[t]) * dh_prev).sum(axis=0)
        dc_first += ((1 - keep[t]) * dc_prev).sum(axis=0)
        # what goes on to step t-1; a row that has ended passes on what it got
        dh = keep[t] * dh_prev + (1 - alive[t]) * dh
        dc = keep[t] * dc_prev + (1 - alive[t]) * dc
    return dx, dh, dc, dW, dR, db, dP, dR_p, (dh_first, dc_first), dnorm
