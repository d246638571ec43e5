"""Figures as `make bench` says them: one JSON line each on stdout."""

from __future__ import annotations

import json
import sys


def figure(name: str, value: float, unit: str, what: str, **more: object) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "what": what, **more}))
    sys.stdout.flush()


def skipped(name: str, why: object) -> None:
    print(json.dumps({"figure": name, "skipped": str(why)}), flush=True)


def remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def at_least(target: float, value: float, errors: int = 0) -> dict[str, object]:
    """errors: of the run, events that did not arrive among them; with any nothing is met."""
    return {"target": f">= {target:g}", "met": value >= target and not errors, "errors": errors}


def below(target: float, value: float, errors: int = 0) -> dict[str, object]:
    return {"target": f"< {target:g}", "met": value < target and not errors, "errors": errors}
