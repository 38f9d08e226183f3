"""The C kernels (cext/kernels.h) for Cython: the two tables, and one inline function per kernel that picks the type.

Shapes and aliasing are said in cext/kernels_table.h and not repeated here.
"""

from libc.stdint cimport int64_t

ctypedef fused real:
    float
    double

cdef extern from "kernels.h" nogil:
    ctypedef struct Table32 "cylstm_table_f32":
        Py_ssize_t lanes
        void (*pack_gates)(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*) noexcept nogil
        void (*pack_columns)(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*) noexcept nogil
        void (*unpack_rows)(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*) noexcept nogil
        void (*unpack_columns)(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*) noexcept nogil
        void (*product)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void*, Py_ssize_t,
                        const void*, const float*, float*, Py_ssize_t) noexcept nogil
        void (*gather)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const int64_t*, const float*,
                       const float*, float*) noexcept nogil
        void (*scatter_add)(Py_ssize_t, Py_ssize_t, const int64_t*, const float*, Py_ssize_t, float*,
                            Py_ssize_t) noexcept nogil
        void (*cell_forward)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void*, const void*,
                             const float*, float*, float*, float*) noexcept nogil
        void (*cell_backward)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*, const float*, const float*,
                              float*, float*) noexcept nogil
        void (*column_sums)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, float*) noexcept nogil
        void (*product_of_rows)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t,
                                const float*, const float*, float*, Py_ssize_t) noexcept nogil
        float (*largest)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t) noexcept nogil
        void (*split_rows)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t,
                           void*) noexcept nogil
        void (*split_columns)(int, Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, void*) noexcept nogil
        void (*weight_gradients)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, const void*,
                                 float*, const void*, float*, float*, void*) noexcept nogil
        void (*exp)(Py_ssize_t, const float*, float*) noexcept nogil
        void (*sigmoid)(Py_ssize_t, const float*, float*) noexcept nogil
        void (*tanh)(Py_ssize_t, const float*, float*) noexcept nogil
        double (*softmax_cross_entropy)(Py_ssize_t, Py_ssize_t, float*, const int64_t*, float, int,
                                        int64_t*) noexcept nogil
        double (*squared_error)(Py_ssize_t, Py_ssize_t, float*, const float*, float, int, int64_t*) noexcept nogil
        double (*binary_cross_entropy)(Py_ssize_t, Py_ssize_t, float*, const float*, float, int,
                                       int64_t*) noexcept nogil
        double (*sum_squares)(Py_ssize_t, const float*) noexcept nogil
        void (*sgd)(Py_ssize_t, float*, const float*, float*, double, double, int, double, double) noexcept nogil
        void (*adam)(Py_ssize_t, float*, const float*, float*, float*, double, double, double, double, double, double,
                     double, int, double) noexcept nogil

    ctypedef struct Table64 "cylstm_table_f64":
        Py_ssize_t lanes
        void (*pack_gates)(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        void (*pack_columns)(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        void (*unpack_rows)(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        void (*unpack_columns)(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        void (*product)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void*, Py_ssize_t,
                        const void*, const double*, double*, Py_ssize_t) noexcept nogil
        void (*gather)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const int64_t*, const double*,
                       const double*, double*) noexcept nogil
        void (*scatter_add)(Py_ssize_t, Py_ssize_t, const int64_t*, const double*, Py_ssize_t, double*,
                            Py_ssize_t) noexcept nogil
        void (*cell_forward)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void*, const void*,
                             const double*, double*, double*, double*) noexcept nogil
        void (*cell_backward)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*, const double*,
                              const double*, double*, double*) noexcept nogil
        void (*column_sums)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, double*) noexcept nogil
        void (*product_of_rows)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t,
                                const double*, const double*, double*, Py_ssize_t) noexcept nogil
        double (*largest)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t) noexcept nogil
        void (*split_rows)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t,
                           void*) noexcept nogil
        void (*split_columns)(int, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, void*) noexcept nogil
        void (*weight_gradients)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, const void*,
                                 double*, const void*, double*, double*, void*) noexcept nogil
        void (*exp)(Py_ssize_t, const double*, double*) noexcept nogil
        void (*sigmoid)(Py_ssize_t, const double*, double*) noexcept nogil
        void (*tanh)(Py_ssize_t, const double*, double*) noexcept nogil
        double (*softmax_cross_entropy)(Py_ssize_t, Py_ssize_t, double*, const int64_t*, double, int,
                                        int64_t*) noexcept nogil
        double (*squared_error)(Py_ssize_t, Py_ssize_t, double*, const double*, double, int, int64_t*) noexcept nogil
        double (*binary_cross_entropy)(Py_ssize_t, Py_ssize_t, double*, const double*, double, int,
                                       int64_t*) noexcept nogil
        double (*sum_squares)(Py_ssize_t, const double*) noexcept nogil
        void (*sgd)(Py_ssize_t, double*, const double*, double*, double, double, int, double, double) noexcept nogil
        void (*adam)(Py_ssize_t, double*, const double*, double*, double*, double, double, double, double, double,
                     double, double, int, double) noexcept nogil

    ctypedef struct Kernels "cylstm_kernels":
        const char* isa
        Table32 f32
        Table64 f64

    enum:
        PANELS "CYLSTM_PANELS"
        TILES "CYLSTM_TILES"
        ROWS "CYLSTM_ROWS"

    const Kernels* cylstm_select(const char* isa)
    const float TILES_LOW "CYLSTM_TILES_LOW"
    const float TILES_HIGH "CYLSTM_TILES_HIGH"
    Py_ssize_t tile_bytes "cylstm_tile_bytes"(Py_ssize_t rows_or_columns, Py_ssize_t K)


cdef inline Py_ssize_t lanes_of(const Kernels* k, const real* of_type) noexcept nogil:
    return k.f32.lanes if real is float else k.f64.lanes


# Whether there are products of tiles for this type.
cdef inline bint has_tiles(const Kernels* k, const real* of_type) noexcept nogil:
    return k.f32.split_rows != NULL if real is float else k.f64.split_rows != NULL

# The largest of A, by its size.
cdef inline real largest(const Kernels* k, Py_ssize_t rows, Py_ssize_t columns, const real* A,
                         Py_ssize_t lda) noexcept nogil:
    if real is float:
        return k.f32.largest(rows, columns, A, lda)
    else:
        return k.f64.largest(rows, columns, A, lda)

# Whether tiles hold numbers of which this is the largest.
cdef inline bint tiles_hold(double largest) noexcept nogil:
    return largest == 0 or TILES_LOW <= largest <= TILES_HIGH


cdef inline void pack_gates(const Kernels* k, const real* W, Py_ssize_t H, Py_ssize_t K, Py_ssize_t panel, real*
                            out) noexcept nogil:
    if real is float:
        k.f32.pack_gates(W, H, K, panel, out)
    else:
        k.f64.pack_gates(W, H, K, panel, out)

cdef inline void pack_columns(const Kernels* k, const real* W, Py_ssize_t H, Py_ssize_t K, Py_ssize_t block, real*
                              out) noexcept nogil:
    if real is float:
        k.f32.pack_columns(W, H, K, block, out)
    else:
        k.f64.pack_columns(W, H, K, block, out)

cdef inline void unpack_rows(const Kernels* k, const real* rows, Py_ssize_t H, Py_ssize_t K, Py_ssize_t first,
                             Py_ssize_t last, real* W) noexcept nogil:
    if real is float:
        k.f32.unpack_rows(rows, H, K, first, last, W)
    else:
        k.f64.unpack_rows(rows, H, K, first, last, W)

cdef inline void unpack_columns(const Kernels* k, const real* columns, Py_ssize_t H, Py_ssize_t K, Py_ssize_t first,
                                Py_ssize_t last, real* W) noexcept nogil:
    if real is float:
        k.f32.unpack_columns(columns, H, K, first, last, W)
    else:
        k.f64.unpack_columns(columns, H, K, first, last, W)

cdef inline void product(const Kernels* k, bint tiled, Py_ssize_t rows, Py_ssize_t K, Py_ssize_t columns, Py_ssize_t
                         first, Py_ssize_t last, const void* A, Py_ssize_t lda, const void* P, const real* bias, real*
                         C, Py_ssize_t ldc) noexcept nogil:
    if real is float:
        k.f32.product(tiled, rows, K, columns, first, last, A, lda, P, bias, C, ldc)
    else:
        k.f64.product(tiled, rows, K, columns, first, last, A, lda, P, bias, C, ldc)

cdef inline void gather(const Kernels* k, Py_ssize_t N, Py_ssize_t H, Py_ssize_t K, Py_ssize_t first, Py_ssize_t last,
                        const int64_t* ids, const real* panels, const real* bias, real* gates) noexcept nogil:
    if real is float:
        k.f32.gather(N, H, K, first, last, ids, panels, bias, gates)
    else:
        k.f64.gather(N, H, K, first, last, ids, panels, bias, gates)

cdef inline void scatter_add(const Kernels* k, Py_ssize_t N, Py_ssize_t width, const int64_t* ids, const real* rows,
                             Py_ssize_t ldr, real* out, Py_ssize_t ldo) noexcept nogil:
    if real is float:
        k.f32.scatter_add(N, width, ids, rows, ldr, out, ldo)
    else:
        k.f64.scatter_add(N, width, ids, rows, ldr, out, ldo)

cdef inline void cell_forward(const Kernels* k, int form, Py_ssize_t B, Py_ssize_t H, Py_ssize_t first, Py_ssize_t
                              last, const void* recurrent, const void* h_prev, const real* c_prev, real* gates, real* c,
                              real* h) noexcept nogil:
    if real is float:
        k.f32.cell_forward(form, B, H, first, last, recurrent, h_prev, c_prev, gates, c, h)
    else:
        k.f64.cell_forward(form, B, H, first, last, recurrent, h_prev, c_prev, gates, c, h)

cdef inline void cell_backward(const Kernels* k, Py_ssize_t B, Py_ssize_t H, Py_ssize_t first, Py_ssize_t last,
                               const real* c_prev, const real* c, const real* dh, real* gates, real* dc) noexcept nogil:
    if real is float:
        k.f32.cell_backward(B, H, first, last, c_prev, c, dh, gates, dc)
    else:
        k.f64.cell_backward(B, H, first, last, c_prev, c, dh, gates, dc)

cdef inline void column_sums(const Kernels* k, Py_ssize_t rows, Py_ssize_t columns, const real* A, Py_ssize_t lda, real*
                             out) noexcept nogil:
    if real is float:
        k.f32.column_sums(rows, columns, A, lda, out)
    else:
        k.f64.column_sums(rows, columns, A, lda, out)

cdef inline void product_of_rows(const Kernels* k, Py_ssize_t rows, Py_ssize_t H, Py_ssize_t K, Py_ssize_t first,
                                 Py_ssize_t last, const real* A, Py_ssize_t lda, const real* W, const real* bias,
                                 real* C, Py_ssize_t ldc) noexcept nogil:
    if real is float:
        k.f32.product_of_rows(rows, H, K, first, last, A, lda, W, bias, C, ldc)
    else:
        k.f64.product_of_rows(rows, H, K, first, last, A, lda, W, bias, C, ldc)

cdef inline void split_rows(const Kernels* k, bint transposed, Py_ssize_t rows, Py_ssize_t K, Py_ssize_t first,
                            Py_ssize_t last, const real* A, Py_ssize_t lda, void* tiles) noexcept nogil:
    if real is float:
        k.f32.split_rows(transposed, rows, K, first, last, A, lda, tiles)
    else:
        k.f64.split_rows(transposed, rows, K, first, last, A, lda, tiles)

cdef inline void split_columns(const Kernels* k, bint transposed, Py_ssize_t K, Py_ssize_t columns, const real* P,
                               Py_ssize_t ldp, void* tiles) noexcept nogil:
    if real is float:
        k.f32.split_columns(transposed, K, columns, P, ldp, tiles)
    else:
        k.f64.split_columns(transposed, K, columns, P, ldp, tiles)

cdef inline void weight_gradients(const Kernels* k, Py_ssize_t N, Py_ssize_t H, Py_ssize_t first, Py_ssize_t last,
                                  const real* dgates, Py_ssize_t inputs, const void* x, real* dW, const void* h, real*
                                  dR, real* db, void* scratch) noexcept nogil:
    if real is float:
        k.f32.weight_gradients(N, H, first, last, dgates, inputs, x, dW, h, dR, db, scratch)
    else:
        k.f64.weight_gradients(N, H, first, last, dgates, inputs, x, dW, h, dR, db, scratch)

cdef inline void exp(const Kernels* k, Py_ssize_t n, const real* x, real* y) noexcept nogil:
    if real is float:
        k.f32.exp(n, x, y)
    else:
        k.f64.exp(n, x, y)

cdef inline void sigmoid(const Kernels* k, Py_ssize_t n, const real* x, real* y) noexcept nogil:
    if real is float:
        k.f32.sigmoid(n, x, y)
    else:
        k.f64.sigmoid(n, x, y)

cdef inline void tanh(const Kernels* k, Py_ssize_t n, const real* x, real* y) noexcept nogil:
    if real is float:
        k.f32.tanh(n, x, y)
    else:
        k.f64.tanh(n, x, y)

cdef inline double softmax_cross_entropy(const Kernels* k, Py_ssize_t rows, Py_ssize_t columns, real* logits,
                                         const int64_t* targets, real scale, int gradient, int64_t*
                                         hits) noexcept nogil:
    if real is float:
        return k.f32.softmax_cross_entropy(rows, columns, logits, targets, scale, gradient, hits)
    else:
        return k.f64.softmax_cross_entropy(rows, columns, logits, targets, scale, gradient, hits)

cdef inline double squared_error(const Kernels* k, Py_ssize_t rows, Py_ssize_t columns, real* outputs, const real*
                                 targets, real scale, int gradient, int64_t* hits) noexcept nogil:
    if real is float:
        return k.f32.squared_error(rows, columns, outputs, targets, scale, gradient, hits)
    else:
        return k.f64.squared_error(rows, columns, outputs, targets, scale, gradient, hits)

cdef inline double binary_cross_entropy(const Kernels* k, Py_ssize_t rows, Py_ssize_t columns, real* logits, const real*
                                        targets, real scale, int gradient, int64_t* hits) noexcept nogil:
    if real is float:
        return k.f32.binary_cross_entropy(rows, columns, logits, targets, scale, gradient, hits)
    else:
        return k.f64.binary_cross_entropy(rows, columns, logits, targets, scale, gradient, hits)

cdef inline double sum_squares(const Kernels* k, Py_ssize_t n, const real* x) noexcept nogil:
    if real is float:
        return k.f32.sum_squares(n, x)
    else:
        return k.f64.sum_squares(n, x)

cdef inline void sgd(const Kernels* k, Py_ssize_t n, real* p, const real* g, real* m, double lr, double momentum, int
                     nesterov, double decay, double gscale) noexcept nogil:
    if real is float:
        k.f32.sgd(n, p, g, m, lr, momentum, nesterov, decay, gscale)
    else:
        k.f64.sgd(n, p, g, m, lr, momentum, nesterov, decay, gscale)

cdef inline void adam(const Kernels* k, Py_ssize_t n, real* p, const real* g, real* m, real* v, double step_size, double
                      correction, double beta1, double beta2, double eps, double lr, double decay, int decoupled, double
                      gscale) noexcept nogil:
    if real is float:
        k.f32.adam(n, p, g, m, v, step_size, correction, beta1, beta2, eps, lr, decay, decoupled, gscale)
    else:
        k.f64.adam(n, p, g, m, v, step_size, correction, beta1, beta2, eps, lr, decay, decoupled, gscale)


# The kernels in use: the widest set that the processor has, or the one that CYLSTM_ISA or use() named.
cdef const Kernels* active() noexcept nogil
