"""``python -m qio_rllib.cli`` is the ``rllib`` command."""

import sys

from qio_rllib.cli import main

if __name__ == "__main__":
    sys.exit(main())
