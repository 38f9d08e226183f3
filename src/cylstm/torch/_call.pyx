"""A call of a module: its tensors as they lie in memory, and what is asked of them and of torch before it.

They are read through DLPack's C exchange table (DLPack 1.3, "C exchange API"), which torch has since 2.10: a call fills
a struct in some 30 ns, where asking the tensor in Python takes as long for each of a dozen questions.
"""

cimport numpy as np
from cpython.exc cimport PyErr_Clear
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

import torch

np.import_array()

cdef extern from *:
    """
    /* DLPack's ABI of major version 1; names are ours. */
    typedef struct { int32_t type, number; } cylstm_device;
    typedef struct { uint8_t code, bits; uint16_t lanes; } cylstm_dtype;
    typedef struct {
        void* data;
        cylstm_device device;
        int32_t ndim;
        cylstm_dtype dtype;
        int64_t* shape;
        int64_t* strides; /* in items */
        uint64_t byte_offset;
    } cylstm_tensor;
    typedef struct {
        uint32_t major, minor;
        void* previous;
        void *allocate, *from_object, *to_object;
        int (*read)(void* object, cylstm_tensor* out); /* borrows; 0, or -1 with an exception */
        void* stream;
    } cylstm_exchange;
    """
    ctypedef struct cylstm_device:
        int32_t type
    ctypedef struct cylstm_dtype:
        uint8_t code, bits
        uint16_t lanes
    ctypedef struct Values "cylstm_tensor":
        char* data
        cylstm_device device
        int32_t ndim
        cylstm_dtype dtype
        int64_t* shape
        int64_t* strides
        uint64_t byte_offset
    ctypedef struct Exchange "cylstm_exchange":
        uint32_t major
        int (*read)(void* object, Values* out) noexcept

cdef enum:
    CPU = 1   # DLPack's numbers
    FLOAT = 2

cdef const Exchange* exchange = NULL
cdef object tensor_class = torch.Tensor  # of these two exactly: a subclass may mean something else
cdef object parameter_class = torch.nn.Parameter
cdef object stack_of_transforms = torch._C._functorch.peek_interpreter_stack
cdef object modes = torch._C._len_torch_dispatch_stack
cdef object tracing_state = torch._C._get_tracing_state
cdef object any_autocast = torch._C._is_any_autocast_enabled
cdef object grad_enabled = torch.is_grad_enabled
cdef object from_numpy = torch.from_numpy
cdef object forward_mode = torch.autograd.forward_ad


def _find_exchange():
    global exchange
    try:
        exchange = <const Exchange*>PyCapsule_GetPointer(torch.Tensor.__dlpack_c_exchange_api__, "dlpack_exchange_api")
    except AttributeError:
        raise ImportError(f"cylstm.torch: expected torch 2.10 or newer, got {torch.__version__}") from None
    if exchange.major != 1 or exchange.read == NULL:
        raise ImportError(f"cylstm.torch: expected DLPack's C functions in version 1, got {exchange.major}")


_find_exchange()


cdef bint read(tensor, Values* values):
    """Whether it is numbers in memory, and nothing that stands for some: no subclass, no other layout or device."""
    kind = type(tensor)
    if kind is not tensor_class and kind is not parameter_class:
        return False
    if exchange.read(<void*>tensor, values) != 0:
        PyErr_Clear()
        return False
    if values.data == NULL and not is_empty(values):  # zeros of forward-mode derivatives
        return False
    return values.device.type == CPU and values.dtype.lanes == 1 and values.byte_offset == 0 and not tensor.is_neg()


cdef bint is_empty(const Values* values):
    cdef Py_ssize_t n
    for n in range(values.ndim):
        if values.shape[n] == 0:
            return True
    return False


cdef bint is_real(const Values* values):
    return values.dtype.code == FLOAT and (values.dtype.bits == 32 or values.dtype.bits == 64)


def is_plain(tensor) -> bool:
    """Whether it is numbers in memory, and nothing that stands for some: no subclass, no other layout or device."""
    cdef Values values
    return read(tensor, &values)


def is_eager() -> bool:
    """Whether torch computes as it goes: nothing traces or transforms what happens."""
    return (stack_of_transforms() is None and modes() == 0 and tracing_state() is None
            and forward_mode._current_level < 0)


def form_of(x, Py_ssize_t columns):
    """(bits of a number, *shape) of float32 or float64 (..., columns) that cylstm may compute with as torch stands, or
    None; of one to three dimensions and not empty."""
    cdef Values v
    if not (read(x, &v) and is_real(&v) and is_eager()) or (any_autocast() and torch.is_autocast_enabled("cpu")):
        return None
    if v.ndim == 3 and v.shape[2] == columns and v.shape[0] > 0 and v.shape[1] > 0:
        return v.dtype.bits, v.shape[0], v.shape[1], columns
    if v.ndim == 2 and v.shape[1] == columns and v.shape[0] > 0:
        return v.dtype.bits, v.shape[0], columns
    if v.ndim == 1 and v.shape[0] == columns:
        return v.dtype.bits, columns
    return None


def has_shape(tensor, int bits, tuple shape) -> bool:
    """Whether it is plain, of this type and shape."""
    cdef Values values
    cdef Py_ssize_t n
    if not (read(tensor, &values) and is_real(&values) and values.dtype.bits == bits and values.ndim == len(shape)):
        return False
    for n in range(values.ndim):
        if values.shape[n] != <Py_ssize_t>shape[n]:
            return False
    return True


def addresses_of(weights, int bits, list shapes):
    """Where weights lie, a list; or the number of the first that is not plain, of this type, contiguous and of its
    shape (rows, columns), a bias having 0 columns."""
    cdef Values values
    cdef list found = []
    cdef Py_ssize_t n, rows, columns, given = len(weights)
    if given != len(shapes):
        return min(given, len(shapes))
    for n in range(given):
        rows, columns = shapes[n]
        if not (read(weights[n], &values) and is_real(&values) and values.dtype.bits == bits
                and values.ndim == (2 if columns else 1) and values.shape[0] == rows
                and (values.strides[values.ndim - 1] == 1 or values.shape[values.ndim - 1] == 1)
                and (columns == 0 or (values.shape[1] == columns and (values.strides[0] == columns or rows == 1)))):
            return n
        found.append(<uintptr_t>values.data)
    return found


def array_of(tensor, int lift=-1):
    """A view of a plain tensor of float32 or float64, whether or not gradients are recorded; None for None.

    lift: where axes of size 1 go in until there are three, -1 for nowhere.
    """
    cdef Values values
    cdef np.npy_intp shape[3]
    cdef np.npy_intp strides[3]
    cdef np.ndarray array
    cdef int n, at = 0, item, more
    if tensor is None:
        return None
    if not read(tensor, &values) or not is_real(&values) or values.ndim > 3:
        return tensor.detach().numpy()  # raises in torch's words
    item, more = values.dtype.bits // 8, 3 - values.ndim if lift >= 0 else 0
    for n in range(values.ndim + more):
        if lift <= n < lift + more:
            shape[n], strides[n] = 1, item
        else:
            shape[n], strides[n] = values.shape[at], values.strides[at] * item
            at += 1
    array = np.PyArray_New(np.ndarray, values.ndim + more, shape, np.NPY_FLOAT64 if item == 8 else np.NPY_FLOAT32,
                           strides, values.data, item, np.NPY_ARRAY_WRITEABLE, None)
    np.set_array_base(array, tensor)
    return array


def weights_moved(dict own, list names, list refs) -> bool:
    """Whether other tensors have taken the place of a module's weights: what nn.LSTM asks before each call."""
    cdef Py_ssize_t n
    for n in range(len(names)):
        weight, ref = own.get(names[n]), refs[n]
        if weight is None or ref is None or ref() is not weight:
            return True
    return len(refs) != len(names)


cdef class ModuleCall:
    """What a call is, beside its tensors: one object for forward, backward and torch's own computation of both.

    core: the layer behind the module. weights: the module's of now, held until they have been read (a parametrisation
    makes new ones whenever it is asked), and their addresses. lengths: int64 (B,) of packed rows, longest
    first, and sizes: what torch has for them; or None. resets: bool (B, T) or None. dropout: 0 outside of training.
    lift: the axis that tensors of fewer than three dimensions lack: 0, steps, for a cell, which has no y either;
    1, rows, for a layer; -1 for none. rank: dimensions of the input.
    """

    cdef public object core, weights, addresses, lengths, sizes, resets
    cdef public bint bias, batch_first
    cdef public double dropout
    cdef public int lift, rank

    def __init__(self, core, weights, addresses, bint bias, int rank, int lift, bint batch_first, double dropout,
                 lengths, sizes):
        self.core, self.weights, self.addresses, self.bias = core, weights, addresses, bias
        self.rank, self.lift, self.batch_first, self.dropout = rank, lift, batch_first, dropout
        self.lengths, self.sizes = lengths, sizes

    def is_recorded(self, x, h, c) -> bool:
        """Whether torch wants to go back through the call."""
        if not grad_enabled():
            return False
        if x.requires_grad or (h is not None and (h.requires_grad or c.requires_grad)):
            return True
        for weight in self.weights:
            if weight.requires_grad:
                return True
        return False

    def arrays(self, first, second, third):
        """Views in three dimensions (of packed rows, in two)."""
        return array_of(first, self.lift), array_of(second, self.lift), array_of(third, self.lift)

    def gradients(self, dy, dh, dc):
        """The same of gradients; None where torch has to go back, since it records that, or they are not numbers."""
        if grad_enabled() or not is_eager():
            return None
        for gradient in (dy, dh, dc):
            if gradient is not None and not is_plain(gradient):
                return None
        return self.arrays(dy, dh, dc)

    def tensor(self, np.ndarray array):
        """One of what `arrays` gives, with the dimensions that it came with."""
        if self.lift >= 0 and self.rank < 3:
            if self.lift == 1:
                array = array[:, 0]
            else:
                array = array[0] if self.rank == 2 else array[0, 0]
        return from_numpy(array)
