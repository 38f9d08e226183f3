/* Every body, for one real type; and the end of that type's macros. */
typedef REAL NAME(real);
#include "../vector.h"

#include "../activations.h"

#include "../product/pack_weights.h"

#if defined(WITH_TILES) && REAL_BITS == 32
#define HAVE_TILES 1
#include "../product/tiles.h"
#else
#define HAVE_TILES 0
#endif

#include "../product/panels.h"
#if HAVE_TILES
#include "../product/small_tiles.h"
#endif

#include "../product/unpacked.h"

#include "../product/gradients.h"

#include "../product/forms.h"

#include "../functions.h"

#include "../cell/lstm.h"
#include "../cell/norm.h"
#include "../cell/zone.h"

#include "../loss.h"

#include "../ctc.h"

#include "../optim.h"

#include "../dense.h"

#undef NAME
#undef REAL
#undef INTEGER
#undef REAL_BITS
#undef MANTISSA_BITS
#undef ROUNDING
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_DEGREE
#undef TANH_LIMIT
#undef SERIES
#undef GELU_1
#undef GELU_3
#undef ABREAST
#undef EXP_LOW
#undef EXP_HIGH
#undef PAIRED_LIMIT
#undef X86_TYPE
#undef SQRT
#undef FMA
#undef NEON_VECTOR
#undef VECTOR
#undef INTEGERS
#undef LANES
#undef FIRST_HALVES
#undef SHUFFLE
#undef SECOND_HALVES
#undef EVEN_LANES
#undef ODD_LANES
#undef INLINE
#undef K_BLOCK
#undef HAVE_TILES
#undef SUM_BLOCK
#undef MOST_ABREAST
#undef NORM_X
#undef NORM_H
#undef NORM_MEAN
#undef NORM_C
#undef NORM_MOMENTS
#undef ZONE_BLOCK
