"""Of one peer in this fresh process: milliseconds to open again, and private memory after use."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from peers_lib import PEERS, meta

kind, rng = PEERS[sys.argv[1]], np.random.default_rng(0)
kind().open()  # libraries are loaded from here on
began = time.perf_counter()
peer = kind()
peer.open()
opened = time.perf_counter() - began
lasts = {sid: meta(sid)["duration"] - 3.0 for sid in peer.sids}
for sid, last in lasts.items():
    for start in rng.uniform(1, last, 800).tolist():
        peer.counts(sid, peer.align(start))
for _ in range(20):
    chosen = rng.choice(peer.sids, 32).tolist()
    peer.batch([(sid, peer.align(float(rng.uniform(1, lasts[sid])))) for sid in chosen])
lines = Path("/proc/self/status").read_text().splitlines()
private = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
print(json.dumps([opened * 1e3, private / 1024]))
