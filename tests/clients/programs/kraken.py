"""Lines of a made-up script: kraken's usual recogniser (convolutions, three two-way LSTMs), trained with CTC."""

import numpy as np
import swap
import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # built for CUDA's torch: its operators are missing beside the CPU's, and nobody here calls them
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from kraken.lib.vgsl import TorchVGSLModel

SPEC = "[1,32,0,1 Cr3,3,16 Mp2,2 Cr3,3,32 Mp2,2 S1(1x0)1,3 Lbx64 Lbx64 Lbx64 O1c21]"


def lines(B, rng):
    """Images (B, 1, 32, W), widths, letters 1..20, counts: a letter is a column of 12 with its own bars."""
    bars = np.random.default_rng(1).random((20, 32, 12)) < 0.3
    counts = np.append(16, rng.integers(8, 17, B - 1))
    letters = rng.integers(1, 21, (B, 16))
    images = rng.random((B, 1, 32, 12 * 16)) * 0.2
    for row, count in enumerate(counts):
        images[row, 0, :, : 12 * count] += np.concatenate(bars[letters[row, :count] - 1], axis=1)
        images[row, 0, :, 12 * count :] = 0
    return (torch.from_numpy(part) for part in (images.astype("float32"), 12 * counts, letters, counts))


def run():
    rng = np.random.default_rng(0)
    model = TorchVGSLModel(vgsl=SPEC)
    model.init_weights()
    swap.accelerate(model)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=2e-3), []
    ctc = torch.nn.CTCLoss()
    for _ in range(25):
        images, widths, letters, counts = lines(16, rng)
        scores, lengths = model(images, widths)  # (B, letters, 1, W')
        loss = ctc(scores.squeeze(2).permute(2, 0, 1).log_softmax(2), letters, lengths, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        scores, _ = model(*list(lines(32, rng))[:2])
    return {"losses": losses, "scores": scores}
