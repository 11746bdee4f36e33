"""Loops over spikes and samples, compiled by numba once that pays.

Loading numba takes as long as some thousand windows in numpy, so the first windows of a process are
made by numpy alone; the compiled functions take over for a process that asks for more, or at once
where an epoch begins. Both give the same numbers, to the bit.
"""

from neurostore.kernels._ready import compiled, load, ready, seen

__all__ = ["compiled", "load", "ready", "seen"]
