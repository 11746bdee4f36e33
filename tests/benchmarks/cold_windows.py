"""Milliseconds of the first 100 windows of session A in this fresh process, its pages dropped."""

import sys
import time

import numpy as np
import torch  # noqa: F401 - loaded for both before the clock starts; we load it with the first batch
from peers_lib import PEERS, evict

peer = PEERS[sys.argv[1]]()
starts = np.random.default_rng(int(sys.argv[2])).uniform(1, 5000, 100).tolist()
evict(peer.path())
peer.open()
began = time.perf_counter()
if hasattr(peer, "many_counts"):
    peer.many_counts("A", starts)
else:
    for start in starts:
        peer.counts("A", start)
print((time.perf_counter() - began) * 1e3)
