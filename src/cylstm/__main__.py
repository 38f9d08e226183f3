"""`python -m cylstm`: the command line."""

import sys

from cylstm.cli import main

if __name__ == "__main__":
    sys.exit(main())
