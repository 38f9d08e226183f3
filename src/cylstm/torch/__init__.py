"""cylstm in a PyTorch program: its LSTMs computed by cylstm on the CPU. Needs torch; imported on request only.

    import cylstm.torch
    cylstm.torch.accelerate(model)  # every nn.LSTM and nn.LSTMCell of it, in place

or by one swapped line:

    from cylstm.torch import LSTM  # instead of: from torch.nn import LSTM

`astype(model, "int8")` makes a copy for inference whose LSTMs are in fewer bits.

One rule holds everywhere: what cylstm does not compute, torch computes, with the same weights, and the numbers are
nn.LSTM's; or there is an error. `explain(module, input)` says which of the two a call is, and why.
"""

from cylstm.torch.modules import LSTM, Explanation, LSTMCell, explain
from cylstm.torch.small import SmallLSTM, SmallLSTMCell, astype
from cylstm.torch.swap import Change, accelerate, restore
from cylstm.torch.threads import borrow_torchs

__all__ = [
    "LSTM", "Change", "Explanation", "LSTMCell", "SmallLSTM", "SmallLSTMCell", "accelerate", "astype", "explain",
    "restore",
]  # fmt: skip

borrow_torchs()
