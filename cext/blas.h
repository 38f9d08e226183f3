/* The CBLAS there is: scipy-openblas32, whose names carry a prefix, or Accelerate on macOS. */
#ifndef CYLSTM_BLAS_H
#define CYLSTM_BLAS_H

#ifdef CYLSTM_ACCELERATE
#include <Accelerate/Accelerate.h>
static inline void use_one_thread(void) { setenv("VECLIB_MAXIMUM_THREADS", "1", 1); }
static inline const char *blas_description(void) { return "Accelerate"; }
#else
void scipy_cblas_sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
void scipy_cblas_dgemm(int, int, int, int, int, int, double, const double *, int, const double *, int, double, double *,
                       int);
void scipy_openblas_set_num_threads(int);
char *scipy_openblas_get_config(void);
#define cblas_sgemm scipy_cblas_sgemm
#define cblas_dgemm scipy_cblas_dgemm
static inline void use_one_thread(void) { scipy_openblas_set_num_threads(1); }
static inline const char *blas_description(void) { return scipy_openblas_get_config(); }
#endif

/* CBLAS_ORDER and CBLAS_TRANSPOSE, the same in every CBLAS */
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

#endif
