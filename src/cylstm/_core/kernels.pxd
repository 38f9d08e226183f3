"""The C kernels (cext/kernels.h) for Cython: the two tables, and one inline function per kernel that picks the type,
as cext/kernels.def declares them.
"""

from libc.stdint cimport int64_t, uint8_t

ctypedef fused real:
    float
    double

cdef extern from "kernels.h" nogil:
    ctypedef struct Activation "cylstm_activation":
        int kind
        double alpha, beta, low, high
    ctypedef struct Step "cylstm_step":
        Py_ssize_t B, H, Y, first, last
        int flags, form
        bint kept
        const void* R
        const void* peepholes
        double clip, gate_clip
        const Activation* activations
        const void* update_mask
        const void* h_prev
        const void* c_prev
        void* gates
        void* c
        void* h
        const void* dh
        void* dc
    ctypedef struct Norm "cylstm_norm":
        bint carried
        double eps
        const void* bias
        const void* x_gain
        const void* h_gain
        const void* c
        const void* product
        void* x
        void* h
        void* moments
        void* sums
        Py_ssize_t sums_row
        void* row
    enum:
        DROPPED "CYLSTM_DROPPED"
        PANELS "CYLSTM_PANELS"
        TILES "CYLSTM_TILES"
        UNPACKED "CYLSTM_UNPACKED"
        BLAS "CYLSTM_BLAS"
        FLOAT16 "CYLSTM_FLOAT16"
        BFLOAT16 "CYLSTM_BFLOAT16"
        BFLOAT16_DOT "CYLSTM_BFLOAT16_DOT"
        BFLOAT16_TILES "CYLSTM_BFLOAT16_TILES"
        INT8 "CYLSTM_INT8"
        INT8_DOT "CYLSTM_INT8_DOT"
        INT8_TILES "CYLSTM_INT8_TILES"
        INT8_K "CYLSTM_INT8_K"
        ROUNDED "CYLSTM_ROUNDED"
        ROUNDED_TILES "CYLSTM_ROUNDED_TILES"
        NARROW "CYLSTM_NARROW"
        FORMS "CYLSTM_FORMS"

    const Kernels* cylstm_available(int n)
    const Kernels* cylstm_select(const char* isa)
    int cylstm_forms_of(const Kernels* kernels)
    const float TILES_LOW "CYLSTM_TILES_LOW"
    const float TILES_HIGH "CYLSTM_TILES_HIGH"
    bint is_cut "cylstm_is_cut"(int form)
    bint is_bounded "cylstm_is_bounded"(int form)
    bint packs_left "cylstm_packs_left"(int form)
    int stored_as "cylstm_stored_as"(int form)
    Py_ssize_t left_bytes "cylstm_left_bytes"(int form, Py_ssize_t rows, Py_ssize_t K)
    Py_ssize_t gradients_bytes "cylstm_gradients_bytes"(Py_ssize_t N)
    Py_ssize_t right_bytes "cylstm_right_bytes"(int form, Py_ssize_t K, Py_ssize_t columns, Py_ssize_t real)
    Py_ssize_t columns_of "cylstm_columns"(int form, Py_ssize_t H, Py_ssize_t lanes)
    double ctc_scratch "cylstm_ctc_scratch"(Py_ssize_t T, Py_ssize_t L, bint gradient)


include "kernels_declared.pxi"


# A function of this package for float and double takes its type from an argument. Where none has one, it gets a NULL
# pointer of the type, called type_tag.
cdef inline Py_ssize_t lanes_of(const Kernels* k, const real* type_tag) noexcept nogil:
    return k.f32.lanes if real is float else k.f64.lanes


# Whether there are products of a form that is cut, for this type, by the kernels in use.
cdef inline bint has_form(int form, const real* type_tag) noexcept nogil:
    return real is float and forms_in_use() >> form & 1

# An activation as cylstm.activations has it.
cdef Activation activation_of(given) except *

# Whether tiles hold numbers of which this is the largest.
cdef inline bint tiles_hold(double largest) noexcept nogil:
    return largest == 0 or TILES_LOW <= largest <= TILES_HIGH


# The kernels in use: the widest set that the processor has, or the one that CYLSTM_ISA or use() named.
cdef const Kernels* active() noexcept nogil

# Bit `form`: its products by these kernels run on this processor, in float.
cdef int forms_in_use() noexcept nogil
