"""Verification: a store, or a sample of it, held against its own checksums."""

from neurostore.store._verify._report import Progress, Report, chance
from neurostore.store._verify._run import verify, verify_form

__all__ = ["Progress", "Report", "chance", "verify", "verify_form"]
