/* cylstm's kernels for C extensions of other packages; kernels.h and kernels.def beside it say what each one does.
 *
 *     #include <cylstm.h>      (-I from cylstm.get_include())
 *
 *     const cylstm_kernels *k = cylstm_import(NULL);   // once, with the GIL; then anywhere without
 *     if (!k) return NULL;                             // a Python exception is set
 *     k->f32.map_sigmoid(n, x, y);
 *
 * The tables may change with every release of cylstm before 1.0: build against the version that you run with. */
#ifndef CYLSTM_H
#define CYLSTM_H

#include <Python.h>

#include "kernels.h"

/* The kernels of a named instruction set, NULL for the widest one that this processor has. Returns NULL with an
 * exception set where cylstm cannot be imported, or the processor has no such set. */
static inline const cylstm_kernels *cylstm_import(const char *isa)
{
    union {
        void *pointer;
        const cylstm_kernels *(*function)(const char *isa);
    } select;
    select.pointer = PyCapsule_Import("cylstm._core.kernels.select", 0);
    if (!select.pointer) return NULL;
    const cylstm_kernels *kernels = select.function(isa);
    if (!kernels) PyErr_Format(PyExc_ValueError, "isa: expected an instruction set of this processor, got %s", isa);
    return kernels;
}

#endif
