"""What was checked, as one JSON document and as JUnit XML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as XML

from neurostore.cli._checks._known import known
from neurostore.cli._checks._rules import SEVERITIES, Rules
from neurostore.store import Fault

FORMAT = 1
"""Of the JSON document: keys may be added, none is removed or changes its meaning."""


@dataclass(frozen=True)
class Checked:
    """A target, and what was found in it.

    Attributes
    ----------
    kind : {"store", "file", "contract", "card", "recipe"}
    items : sequence of str
        What of it was looked at: sessions, splits and stimuli of a store.
    kept : sequence of Fault
        Those of them that sessions keep since their ingest, and that nothing shows any more.
    """

    target: str
    kind: str
    items: Sequence[str] = ()
    faults: Sequence[Fault] = field(default=())
    kept: Sequence[Fault] = field(default=())

    def failed(self, rules: Rules) -> list[Fault]:
        """What fails it."""
        return [one for one in self.faults if rules.chosen(one) and rules.fails(one)]


def as_json(checked: Sequence[Checked], rules: Rules) -> dict[str, Any]:
    """The document of ``--json``."""
    targets = []
    for one in checked:
        findings = []
        for fault in one.faults:
            if rules.chosen(fault):
                milder = rules.relaxed(fault)
                said = fault.to_json() | {"severity": rules.severity(fault)}
                said |= {"relaxed": milder[1] if milder else None, "kept": fault in one.kept}
                findings.append(said | {"ignored": rules.ignored(fault) or None})
        counts = Counter(str(said["severity"]) for said in findings if not said["ignored"])
        targets.append(
            {
                "target": one.target,
                "kind": one.kind,
                "passed": not one.failed(rules),
                "items": list(one.items),
                "counts": {str(name): counts[name] for name in SEVERITIES}
                | {"ignored": sum(bool(said["ignored"]) for said in findings)},
                "findings": findings,
            }
        )
    return {
        "format": FORMAT,
        "passed": all(said["passed"] for said in targets),
        "fail_on": rules.fail_on,
        "config": rules.source,
        "targets": targets,
    }


def as_junit(checked: Sequence[Checked], rules: Rules) -> bytes:
    """JUnit XML: a testsuite a target, a testcase a check and the thing it was found in.

    What fails is a failure, what is ignored is skipped with its reason, what is milder than
    `fail_on` is told in ``system-out``. A target without findings has one testcase that passes.
    """
    root = XML.Element("testsuites", name="neurostore validate")
    for one in checked:
        suite = XML.SubElement(root, "testsuite", name=_text(one.target))
        failures = skipped = 0
        chosen = [fault for fault in one.faults if rules.chosen(fault)]
        for fault in chosen:
            finding, milder = fault.finding, rules.relaxed(fault)
            case = _case(suite, finding.check, f"{fault.path} {finding.table} {finding.variable}")
            reason = rules.ignored(fault)
            if reason:
                skipped += 1
                XML.SubElement(case, "skipped", message=_text(f"ignored: {reason}"))
            elif rules.fails(fault):
                failures += 1
                said = XML.SubElement(
                    case,
                    "failure",
                    type=rules.severity(fault),
                    message=_text(finding.message),
                )
                said.text = _text(_details(fault))
            else:
                here = f"\nhere a {milder[0]}: {milder[1]}" if milder else ""
                XML.SubElement(case, "system-out").text = _text(f"{fault}{here}")
        found = {fault.path for fault in chosen}
        for item in [*one.items] or [one.target]:
            if item not in found:
                _case(suite, one.kind, item)
        tests = len(list(suite))
        suite.attrib |= {
            "tests": str(tests),
            "failures": str(failures),
            "errors": "0",
            "skipped": str(skipped),
        }
    XML.indent(root)
    return bytes(XML.tostring(root, encoding="utf-8", xml_declaration=True))


def _case(suite: XML.Element, check: str, path: str) -> XML.Element:
    name = f"{check} {path}".strip()
    return XML.SubElement(suite, "testcase", classname=_text(check), name=_text(name))


def _details(fault: Fault) -> str:
    finding = fault.finding
    lines = [finding.message, f"where: {fault.path} {finding.table} {finding.variable}".rstrip()]
    lines += [f"row: {finding.row}, {finding.count:,} in all"] if finding.row is not None else []
    lines += [f"found: {finding.found}"] if finding.found else []
    lines += [f"expected: {finding.expected}"] if finding.expected else []
    line = known()[finding.check].line if finding.check in known() else ""
    lines += [f"check: {line}"] if line else []
    return "\n".join([*lines, fault.hint]).strip()


def _text(said: str) -> str:
    """Text without the characters that no XML may hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", said)
