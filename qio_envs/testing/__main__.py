"""``python -m qio_envs.testing ENV``."""

import sys

from qio_envs.testing.command_line import main

if __name__ == "__main__":
    sys.exit(main())
