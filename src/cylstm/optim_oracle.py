"""Clipping and optimisers in plain NumPy, to be read (see oracle.py), over dicts of arrays, in place."""

from __future__ import annotations

import numpy as np

__all__ = ["adam", "adamw", "clip_by_global_norm", "sgd"]


def clip_by_global_norm(gradients, max_norm):
    """Scale all gradients so that their common norm is at most max_norm (Pascanu et al. 2013); returns the norm."""
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    # PyTorch's formula, with its 1e-6
    scale = min(1.0, max_norm / (norm + 1e-6))
    for g in gradients.values():
        g *= scale
    return norm


def sgd(params, gradients, buffers, *, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """One update. buffers: name -> momentum buffer, zeros at first."""
    for name, p in params.items():
        g = gradients[name] + weight_decay * p
        # m = momentum m + g
        buffers[name] = momentum * buffers[name] + g
        # p = p - lr m, or, looking ahead (Nesterov), p - lr (g + momentum m)
        p -= lr * (g + momentum * buffers[name] if nesterov else buffers[name])


def adam(params, gradients, m, v, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    """Update number t = 1, 2, ... (Kingma & Ba 2015). m, v: name -> moments, zeros at first."""
    beta1, beta2 = betas
    for name, p in params.items():
        g = gradients[name]
        if decoupled:
            # p = p - lr decay p, apart from the moments (Loshchilov & Hutter 2019)
            p -= lr * weight_decay * p
        else:
            g = g + weight_decay * p
        # m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
        m[name] = beta1 * m[name] + (1 - beta1) * g
        v[name] = beta2 * v[name] + (1 - beta2) * g**2
        # p = p - lr m^ / (sqrt(v^) + eps),  m^ = m / (1 - beta1^t),  v^ = v / (1 - beta2^t)
        p -= lr * m[name] / (1 - beta1**t) / (np.sqrt(v[name] / (1 - beta2**t)) + eps)


def adamw(params, gradients, m, v, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    adam(params, gradients, m, v, t, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled=True)
