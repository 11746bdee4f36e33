"""Whole recordings in the memory of a device, and windows made there; see `Dataset.to`."""

from neurostore.sample.device._dataset import DeviceDataset

__all__ = ["DeviceDataset"]
