"""``python -m neurostore``: the commands."""

import sys

from neurostore.cli import main

sys.exit(main())
