"""See apart.pxd. All members of a team call these at once, each for its rows and units (team.pxd)."""

from cylstm._core.kernels cimport real
from cylstm._core.packed_rows cimport fetch_row, place_row
from cylstm._core.team cimport Member

cdef enum:
    AHEAD = 4  # rows


cdef inline void ask(const char* memory, Py_ssize_t size) noexcept nogil:
    """For so many bytes, which are read soon; no processor guesses where a row's state lies."""
    cdef Py_ssize_t n
    for n in range(0, size, 64):  # lines of a cache
        fetch_soon(memory + n)


cdef void place_apart(const Member* who, Py_ssize_t H, Py_ssize_t Hp, char* const* states, Py_ssize_t at,
                      real* rows) noexcept nogil:
    """States (B, H), each in its own place and `at` reals on from there -> rows (B, Hp), zeros in the padding."""
    cdef Py_ssize_t b, last = min(who.last, H)
    for b in range(who.first_row, who.last_row):
        if b + AHEAD < who.last_row:
            ask(<const char*>(<const real*>states[b + AHEAD] + at + who.first), (last - who.first) * sizeof(real))
        place_row(who, last, <const real*>states[b] + at, rows + b * Hp)


cdef void fetch_apart(const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* rows, Py_ssize_t ld,
                      char* const* states, Py_ssize_t at) noexcept nogil:
    """Rows (B, Hp) -> states (B, ld) likewise, 0 beyond H."""
    cdef Py_ssize_t b, last = min(who.last, H)
    for b in range(who.first_row, who.last_row):
        if b + AHEAD < who.last_row:
            ask(<const char*>(<const real*>states[b + AHEAD] + at + who.first), (last - who.first) * sizeof(real))
        fetch_row(who, H, Hp, rows + b * Hp, ld, <real*>states[b] + at)
