"""Recordings with known truth: what tests, demo and benchmarks run on."""

from neurostore.simulate.nwb import write_nwb
from neurostore.simulate.spikes import GRID_HZ, REFRACTORY, REGIONS, Simulated, Truth, simulate

__all__ = ["GRID_HZ", "REFRACTORY", "REGIONS", "Simulated", "Truth", "simulate", "write_nwb"]
