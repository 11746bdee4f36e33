"""``python -m neurostore``: the commands."""

from neurostore.cli import run

run()
