"""Which LSTM a program runs with, and how many of its calls who computed.

torch   nn.LSTM, as it comes
moved   the same with the weights of one matrix moved by 1e-7 of themselves (their last bit) before the first call:
        how far rounding alone takes a program
cylstm  what `accelerate` and `patch` find, computed by cylstm
"""

import contextlib

import torch

ENGINES = ("torch", "moved", "cylstm")

_engine = "torch"
_calls = {"cylstm": 0, "torch": 0}
_move_next = False


def accelerate(model):
    """Where a program has its model before it trains: every LSTM in it is swapped in place."""
    if _engine == "cylstm":
        import cylstm.torch

        if not cylstm.torch.accelerate(model):
            raise AssertionError(f"accelerate: expected an LSTM in {type(model).__name__}, got none")
    return model


@contextlib.contextmanager
def patch():
    """Where a client builds its model inside: torch.nn.LSTM is ours meanwhile."""
    theirs = torch.nn.LSTM
    if _engine == "cylstm":
        import cylstm.torch

        torch.nn.LSTM = cylstm.torch.LSTM
    try:
        yield
    finally:
        torch.nn.LSTM = theirs


def choose(engine):
    """Once, before the program is imported."""
    global _engine
    _engine = engine
    for name in ("lstm", "lstm_cell"):  # below the modules, so that it cannot matter which class asked
        _wrap(torch.nn.modules.rnn._VF, name, _by_torch)
    if engine == "cylstm":
        import cylstm.torch

        for kind in (cylstm.torch.LSTM, cylstm.torch.LSTMCell):
            _wrap(kind, "forward", _by_cylstm_unless_torch_was_asked)
    if engine == "moved":
        for kind in (torch.nn.LSTM, torch.nn.LSTMCell):
            _wrap(kind, "forward", _moved)


def engine():
    return _engine


def begin():
    """Before each run."""
    global _move_next
    _calls.update(cylstm=0, torch=0)
    _move_next = True


def calls():
    """Calls of an LSTM since `begin`: computed by cylstm, by torch."""
    return dict(_calls)


def _wrap(owner, name, around):
    method = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(method, *args, **kwargs))


def _by_torch(method, *args, **kwargs):
    _calls["torch"] += 1
    return method(*args, **kwargs)


def _by_cylstm_unless_torch_was_asked(method, *args, **kwargs):
    before = _calls["torch"]
    result = method(*args, **kwargs)
    _calls["cylstm"] += _calls["torch"] == before
    return result


def _moved(method, module, *args, **kwargs):
    global _move_next
    if _move_next:
        _move_next = False
        with torch.no_grad():
            next(weight for name, weight in module.named_parameters() if "weight_hh" in name).mul_(1 + 1e-7)
    return method(module, *args, **kwargs)
