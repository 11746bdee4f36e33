"""`neurostore validate`: what can be checked, under stable ids, and how it is said."""

from neurostore.cli._checks._known import Check, known
from neurostore.cli._checks._rules import Rules, find_rules
from neurostore.cli._checks._said import Checked, as_json, as_junit
from neurostore.cli._checks._targets import check_target

__all__ = [
    "Check",
    "Checked",
    "Rules",
    "as_json",
    "as_junit",
    "check_target",
    "find_rules",
    "known",
]
