"""The tables of bench/README.md, made from the JSON files."""

from __future__ import annotations

from typing import Any

from bench.machine import ROOT

_BEGIN, _END = "<!-- tables: begin -->", "<!-- tables: end -->"


def tables(report: dict[str, Any]) -> str:
    """Return the Markdown of a report of `python -m bench`."""
    machine = report["machine"]
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    lines += [
        "",
        "| clients | entries | dropouts | adversary | seconds, median (min to max) | clients | server |",
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['clients']} | {r['vector_length']} | {r['dropouts']} | {r['adversary']} "
        f"| {r['seconds_median']} ({r['seconds_min']} to {r['seconds_max']}) "
        f"| {r['sides']['clients']} | {r['sides']['server']} |"
        for r in report["rounds"]
    ]
    adversaries = [r["adversary"] for r in report["rounds"]]
    lines += ["", f"| share of the time | {' | '.join(adversaries)} |", "|---" * (1 + len(adversaries)) + "|"]
    lines += [
        f"| {group} | {' | '.join(format(r['profile'][group], '.1%') for r in report['rounds'])} |"
        for group in report["rounds"][0]["profile"]
    ]
    return "\n".join(lines)


def write_tables(report: dict[str, Any]) -> None:
    """Replace the tables in bench/README.md."""
    path = ROOT / "bench" / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    path.write_text(f"{before}{_BEGIN}\n{tables(report)}\n{_END}{after}", encoding="utf-8")
