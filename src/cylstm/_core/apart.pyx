"""See apart.pxd. All members of a team call these at once, each for its rows and units (team.pxd)."""

from cylstm._core.kernels cimport real
from cylstm._core.packed_rows cimport fetch_row, place_row
from cylstm._core.team cimport Member

cdef enum:
    AHEAD = 32        # rows
    CACHE_LINE = 64  # bytes


cdef inline void look_ahead(const Member* who, Py_ssize_t last, char* const* states, Py_ssize_t at, Py_ssize_t b,
                            const real* type_tag) noexcept nogil:
    """Ask for the row that comes AHEAD rows later."""
    cdef Py_ssize_t n = (at + who.first) * sizeof(real), end = (at + last) * sizeof(real)
    if b + AHEAD < who.last_row:
        while n < end:
            fetch_soon(states[b + AHEAD] + n)
            n += CACHE_LINE


cdef void place_apart(const Member* who, Py_ssize_t H, Py_ssize_t Hp, char* const* states, Py_ssize_t at,
                      real* rows) noexcept nogil:
    """States (B, H), each in its own place and `at` reals on from there -> rows (B, Hp), zeros in the padding."""
    cdef Py_ssize_t b, last = min(who.last, H)
    for b in range(who.first_row, who.last_row):
        look_ahead(who, last, states, at, b, rows)
        place_row(who, last, <const real*>states[b] + at, rows + b * Hp)


cdef void fetch_apart(const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* rows, Py_ssize_t ld,
                      char* const* states, Py_ssize_t at) noexcept nogil:
    """Rows (B, Hp) -> states (B, ld) likewise, 0 beyond H."""
    cdef Py_ssize_t b, last = min(who.last, H)
    for b in range(who.first_row, who.last_row):
        look_ahead(who, last, states, at, b, rows)
        fetch_row(who, H, Hp, rows + b * Hp, ld, <real*>states[b] + at)
