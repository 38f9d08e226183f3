"""cylstm's threads for threadpoolctl, which then lists and limits them beside those of BLAS and OpenMP libraries."""

from __future__ import annotations

import threadpoolctl

from cylstm._core import kernels, team
from cylstm.version import __version__

__all__ = ["Controller"]


class Controller(threadpoolctl.LibController):
    """What threadpoolctl asks of a library: it finds the pool by the file that holds it."""

    user_api = "cylstm"
    internal_api = "cylstm"
    filename_prefixes = ("team.",)
    check_symbols = ("cylstm_run", "cylstm_meet")

    def get_num_threads(self):
        return team.num_threads()

    def set_num_threads(self, num_threads):
        team.set_num_threads(num_threads)

    def get_version(self):
        return __version__

    def set_additional_attributes(self):
        self.instruction_set = kernels.instruction_set()


threadpoolctl.register(Controller)
