"""Milliseconds until the first 32 of 100 hours of shuffled windows are known: the rival's, ours."""

import json
import time
from fractions import Fraction

import numpy as np
from torch_brain.data import Interval
from torch_brain.samplers import RandomFixedWindowSampler

from neurostore.sample.plan import Plan, lay

HOURS, SECONDS, RATE = 100, 5240, 30_000
SESSIONS = HOURS * 3600 // SECONDS


def rival() -> None:
    whole = {f"s{number}": Interval(0.0, float(SECONDS)) for number in range(SESSIONS)}
    sampler = iter(RandomFixedWindowSampler(sampling_intervals=whole, window_length=1.0))
    for _ in range(32):
        next(sampler)


def ours() -> None:
    first, stop = np.array([0]), np.array([SECONDS * RATE])
    plan = Plan([lay(first, stop, -1, RATE, Fraction(RATE)) for _ in range(SESSIONS)])
    plan.address(plan.order(np.arange(32), 0, 0))


taken = []
for start in (rival, ours):
    began = time.perf_counter()
    start()
    taken.append(1e3 * (time.perf_counter() - began))
print(json.dumps(taken))
