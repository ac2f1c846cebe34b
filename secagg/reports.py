"""Tables for the command line: plans, explanations and transcripts. Needs the extra `service`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from secagg.errors import InfeasibleParameters
from secagg.explanation import Statement
from secagg.params import Phase
from secagg.planning import Plan
from secagg.planning_oneshot import Comparison, OneShotPlan
from secagg.transcript import Finding, OneShotReport, Report


def show_plans(plans: Sequence[Plan | InfeasibleParameters], console: Console) -> None:
    """Print plans against a passive and an active server side by side."""
    feasible = [one for one in plans if isinstance(one, Plan)]
    first = feasible[0]
    table = Table(
        "",
        *(f"{name} server" for name in ("passive", "active")),
        title=f"{first.clients} clients, {first.vector_length} entries, suite {first.suite}",
        title_justify="left",
    )

    def row(name: str, text: Callable[[Plan], str]) -> None:
        table.add_row(name, *(text(one) if isinstance(one, Plan) else "-" for one in plans))

    row("ring bits", lambda p: str(p.ring_bits))
    row("degree", lambda p: f"{p.graph.degree}{' (complete graph)' if p.complete else ''}")
    row("threshold", lambda p: str(p.graph.threshold))
    row("holds against", lambda p: f"{p.colluders} colluders, {p.dropouts} dropouts")
    row("signatures of a quorum", lambda p: str(p.quorum) if p.quorum else "none")
    row("fewest survivors", lambda p: str(p.fewest_survivors))
    for phase in Phase:
        row(
            f"bytes of a client, {phase.name}",
            lambda p, phase=phase: f"{p.up[phase]:,} up, {p.down[phase]:,} down",  # type: ignore[misc]
        )
    row("bytes of a client, all", lambda p: f"{sum(p.up.values()):,} up, {sum(p.down.values()):,} down")
    row("seconds of a client", lambda p: _seconds(p.client_s))
    row("seconds of the server", lambda p: _seconds(p.server_s))
    console.print(table)
    for planned in feasible:
        title = f"{planned.threat_model.adversary} server"
        risks = Table("bad event", "log2 of its probability", "at most", title=title, title_justify="left")
        for risk in planned.risks:
            shown = "impossible" if risk.log2 == -math.inf else f"{risk.log2:.1f}"
            risks.add_row(risk.event, shown, f"{risk.limit:.0f}")
        console.print(risks)
    for one in plans:
        if isinstance(one, InfeasibleParameters):
            console.print(str(one), highlight=False, markup=False)


def plans_as_json(plans: Sequence[Plan | InfeasibleParameters], comparison: Comparison | None = None) -> str:
    """Return the plans for programs; impossible events have no logarithm."""
    fields: list[dict[str, object]] = [_plan_fields(one) for one in plans]
    if comparison is not None:
        compared = {name: {"pairwise": a, "one-shot": b} for name, a, b in comparison.rows}
        fields.append({"compared": compared, "recommended": comparison.recommended, "why": comparison.why})
    return json.dumps(fields, indent=2)


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print both protocols side by side, and which one to begin with."""
    table = Table("", "pairwise", "one upload", title="Protocols", title_justify="left")
    for row in comparison.rows:
        table.add_row(*row)
    console.print(table, highlight=False)
    console.print(f"{comparison.recommended}: {comparison.why}", highlight=False)


def _plan_fields(one: Plan | InfeasibleParameters) -> dict[str, object]:
    if isinstance(one, InfeasibleParameters):
        return {"infeasible": str(one)}
    return {
        "adversary": one.threat_model.adversary,
        "suite": one.suite,
        "clients": one.clients,
        "vector_length": one.vector_length,
        "ring_bits": one.ring_bits,
        "degree": one.graph.degree,
        "threshold": one.graph.threshold,
        "colluders": one.colluders,
        "dropouts": one.dropouts,
        "quorum": one.quorum,
        "fewest_survivors": one.fewest_survivors,
        "risks": [
            {"event": r.event, "log2": None if r.log2 == -math.inf else r.log2, "limit": r.limit}
            for r in one.risks
        ],
        "up_bytes": {phase.name: size for phase, size in one.up.items()},
        "down_bytes": {phase.name: size for phase, size in one.down.items()},
        "client_s": one.client_s,
        "server_s": one.server_s,
    }


def show_statements(planned: Plan | OneShotPlan, statements: Sequence[Statement], console: Console) -> None:
    """Print who learns what."""
    title = f"{planned.clients} clients, {planned.threat_model.adversary} server, "
    if isinstance(planned, OneShotPlan):
        title += f"{planned.numbers.members} decryptors, threshold {planned.numbers.privacy_threshold}"
    else:
        title += f"threshold {planned.graph.threshold}, suite {planned.suite}"
    table = Table("who", "learns", "test", title=title, title_justify="left", show_lines=True)
    table.columns[2].overflow = "fold"
    for statement in statements:
        table.add_row(statement.party, statement.learns, statement.test)
    console.print(table, highlight=False)


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


def show_oneshot_transcript(
    report: OneShotReport, console: Console, *, server_known: bool = False, parties_known: bool = False
) -> None:
    """Print what a transcript of the one-upload protocol says, and what verifying it leaves open."""
    facts = report.facts
    table = Table("fact", "recomputed", title=f"Transcript {report.transcript.hex()}", title_justify="left")
    table.add_row("signed by", facts.server.hex() if facts.server is not None else "nobody")
    if facts.parameters is not None and facts.committee is not None:
        parameters, numbers = facts.parameters, facts.committee.numbers
        table.add_row("round", parameters.round_id.hex())
        table.add_row("contexts", ", ".join(context.hex() for context in parameters.contexts))
        table.add_row("vector", f"{parameters.vector_length} entries of {parameters.ring_bits} bits")
        table.add_row(
            "committee",
            f"{numbers.members} members of {len(facts.committee.candidates)} candidates, threshold "
            f"{numbers.privacy_threshold}, packing {numbers.packing}, quorum {numbers.quorum}",
        )
    table.add_row("clients", f"{len(facts.uploads)} uploaded, {len(facts.survivors)} are in the sum")
    if facts.blamed:
        named = (f"{who.hex()[:12]}{' (guilty)' if who in facts.guilty else ''}" for who in facts.blamed)
        table.add_row("blamed", ", ".join(named))
    table.add_row("outcome", facts.outcome + (", unprotected against liars" if facts.unprotected else ""))
    if facts.survivors:
        kept = facts.total is not None
        how = "recomputed bit for bit" if kept else "cannot be recomputed: no masked vectors"
        if kept and facts.edges:
            how = f"recomputed from what {len(facts.edges)} edges say of their uploads"
        table.add_row("sum", how)
    console.print(table)
    _show_verdict(report.findings, report.entries, console)
    left = []
    if not server_known:
        left.append("that the identity above is the server's (--server)")
    if not parties_known:
        left.append("that the identities in it are parties (--registry)")
    left.append("whom complaints blame, and so why uploads are left out")
    if facts.edges:
        left.append("the totals of edges")
    left.append(
        "that no more was uploaded or sent than is in it"
        if facts.outcome == "completed" and not facts.unprotected
        else "that no more was sent: with what it leaves out there may have been a sum"
    )
    if not facts.inputs_kept:
        left.append("the digest of the sum, or that its checks failed")
    console.print(f"taken on the server's word: {'; '.join(left)}", highlight=False, markup=False)


def _show_verdict(findings: Sequence[Finding], entries: int, console: Console) -> None:
    for finding in findings:
        console.print(str(finding), highlight=False, markup=False)
    verdict = f"NOT verified: {len(findings)} findings" if findings else "verified"
    console.print(f"{entries} entries: {verdict}", highlight=False)


def show_transcript(
    report: Report, console: Console, *, server_known: bool = False, parties_known: bool = False
) -> None:
    """Print what a transcript says, what is wrong with it, and what verifying it leaves open."""
    facts = report.facts
    table = Table("fact", "recomputed", title=f"Transcript {report.transcript.hex()}", title_justify="left")
    table.add_row("signed by", report.server.hex() if report.server is not None else "nobody")
    if facts.parameters is not None:
        parameters = facts.parameters
        model = parameters.threat_model
        table.add_row("round", parameters.round_id.hex())
        table.add_row("context", parameters.context.hex())
        table.add_row("vector", f"{parameters.vector_length} entries of {parameters.ring_bits} bits")
        table.add_row(
            "threat model",
            f"{model.adversary} server, {model.corrupt:.4g} may collude, {model.dropout:.4g} may drop out, "
            f"{model.security_bits} bits",
        )
        table.add_row("suite", parameters.suite)
    if facts.graph is not None:
        table.add_row("graph", f"degree {facts.graph.degree}, threshold {facts.graph.threshold}")
    table.add_row(
        "clients",
        f"{len(facts.admitted)} admitted, {len(facts.roster)} in the roster, {len(facts.shared_keys)} shared "
        f"keys, {len(facts.survivors)} survived, {len(facts.signed)} signed that, "
        f"{len(facts.answered)} answered",
    )
    if facts.answered:
        seeds, keys = (sum(counts) for counts in zip(*facts.answered.values(), strict=True))
        table.add_row(
            "revealed", f"{seeds} shares of self-mask seeds, {keys} of mask keys, never both of one"
        )
    if facts.blamed:
        named = ", ".join(
            f"{client.hex()[:12]}{' (guilty)' if client in facts.guilty else ''}" for client in facts.blamed
        )
        table.add_row("blamed", named)
    table.add_row("outcome", facts.outcome)
    if facts.total_digest:
        how = (
            "recomputed bit for bit" if report.total is not None else "cannot be recomputed: no masked inputs"
        )
        table.add_row("digest of the sum", f"{facts.total_digest.hex()} ({how})")
    console.print(table)
    _show_verdict(report.findings, report.entries, console)
    open_questions = []
    if not server_known:
        open_questions.append("that the identity above is the server's (--server)")
    if not parties_known:
        open_questions.append("that the identities in it are parties (--registry)")
    open_questions.append("the shares and seed commitments, which clients do not sign")
    console.print(f"taken on the server's word: {'; '.join(open_questions)}", highlight=False, markup=False)
