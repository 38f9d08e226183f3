#include <Python.h>

/* y = sigmoid(x) by cylstm's kernels of one instruction set, or 0 with an exception set. */
int gate(const char *isa, Py_ssize_t n, const double *x, double *y);
