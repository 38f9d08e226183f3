"""What cylstm.torch reads of a tensor: where it lies, as torch itself would tell NumPy; and what it does not read."""

import gc
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cylstm.torch import LSTM, explain  # noqa: E402
from cylstm.torch._call import addresses_of, array_of, form_of, has_shape, is_plain  # noqa: E402

base = torch.arange(210.0).reshape(5, 6, 7)
VIEWS = {
    "whole": base,
    "double": base.double(),
    "transposed": base.transpose(0, 1),
    "every second": base[:, ::2],
    "backwards stored": base.flip(0),
    "last axis apart": base.permute(2, 0, 1),
    "expanded": base[:1].expand(5, 6, 7),
    "two dimensions": base[2],
    "one": base[2, 3],
    "single": base[2, 3, 4],
    "none": base[:0],
    "recording": base.clone().requires_grad_(),
    "a parameter": torch.nn.Parameter(base.clone()),
}


@pytest.mark.parametrize("name", VIEWS)
def test_an_array_is_what_torch_would_give(name):
    tensor = VIEWS[name]
    got, expected = array_of(tensor), tensor.detach().numpy()
    assert is_plain(tensor)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.strides == expected.strides
    if tensor.numel():
        assert got.ctypes.data == tensor.data_ptr() == expected.ctypes.data
    assert got.flags.c_contiguous == expected.flags.c_contiguous
    assert got.flags.aligned
    np.testing.assert_array_equal(got, expected)


def test_an_array_holds_its_tensor():
    tensor = torch.randn(3, 4)
    array, seen = array_of(tensor), weakref.ref(tensor)
    expected = tensor.numpy().copy()
    del tensor
    gc.collect()
    assert seen() is not None
    np.testing.assert_array_equal(array, expected)
    del array
    gc.collect()
    assert seen() is None
    assert array_of(None) is None


def escaped():
    """A tensor that vmap wrapped, after vmap is over."""
    kept = []
    torch.vmap(lambda t: (kept.append(t), t)[1])(torch.randn(3, 5, 2, 7))
    return kept[0]


class Sub(torch.Tensor):
    pass


STRANGE = {
    "negated by a bit": lambda: torch.randn(5, 2, 7, dtype=torch.complex64).conj().imag,
    "of zeros that lie nowhere": lambda: torch._efficientzerotensor((5, 2, 7)),
    "sparse": lambda: torch.randn(5, 2, 7).to_sparse(),
    "sparse rows": lambda: torch.randn(5, 7).to_sparse_csr(),
    "of oneDNN": lambda: torch.randn(5, 2, 7).to_mkldnn(),
    "without memory": lambda: torch.empty(5, 2, 7, device="meta"),
    "a subclass": lambda: torch.randn(5, 2, 7).as_subclass(Sub),
    "out of vmap": escaped,
    "an array": lambda: np.zeros((5, 2, 7), "f4"),
    "nothing": lambda: None,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_numbers_in_memory_is_not_read(name):
    tensor = STRANGE[name]()
    assert not is_plain(tensor)
    assert form_of(tensor, 7) is None
    assert not has_shape(tensor, 32, (5, 2, 7))
    assert addresses_of([tensor], 32, [(5, 7)]) == 0
    assert explain(LSTM(7, 3), tensor).engine == "torch"


def test_forms_and_shapes():
    x = torch.randn(5, 2, 7)
    assert form_of(x, 7) == (32, 5, 2, 7)
    assert form_of(x.double()[0], 7) == (64, 2, 7)
    assert form_of(x[0, 0], 7) == (32, 7)
    for unfit in (x[None], x.half(), x.long(), x.bfloat16(), x.to(torch.complex64), x[:0], x[:, :0], x[..., :6]):
        assert form_of(unfit, 7) is None
    assert has_shape(x, 32, (5, 2, 7))
    for bits, shape in ((64, (5, 2, 7)), (32, (5, 2, 6)), (32, (5, 2)), (32, (5, 2, 7, 1)), (32, (2, 5, 7))):
        assert not has_shape(x, bits, shape)


def test_addresses_are_those_of_contiguous_weights_in_their_shapes():
    W, R, b = torch.randn(8, 3), torch.randn(8, 2), torch.randn(8)
    shapes = [(8, 3), (8, 2), (8, 0)]
    assert addresses_of([W, R, b], 32, shapes) == [W.data_ptr(), R.data_ptr(), b.data_ptr()]
    single = torch.randn(1, 8).T  # strides (1, 8): of one column, each row is one number
    assert addresses_of([single], 32, [(8, 1)]) == [single.data_ptr()]
    for place, unfit in (
        (0, [W.T.contiguous().T, R, b]), (0, [W.double(), R, b]), (0, [W[:, :2], R, b]), (1, [W, R[:4], b]),
        (1, [W, torch.randn(8, 4)[:, ::2], b]), (1, [W, torch.randn(16, 2)[::2], b]), (2, [W, R, b[None]]),
        (2, [W, R, b[:7]]),
        (2, [W, R, torch.randn(16)[::2]]), (2, [W, R, None]), (2, [W, R]), (3, [W, R, b, b]),
    ):  # fmt: skip
        assert addresses_of(unfit, 32, shapes) == place
