"""Levers of a run: who may choose what, and what that still gives to a lying server (SECURITY.md, 9)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcore.codec.clipping import AdaptiveClip
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.agreement import Run
from fedcore.rounds.instructions import Weighting
from fedcore.rounds.questions import Train


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One thing that somebody chooses.

    chosen   by whom, and within what
    remains  what a liar gains by it; "": nothing
    remedy   setting of the agreement that takes it away, or lessens it; "": there is none
    """

    name: str
    chosen: str
    remains: str = ""
    remedy: str = ""


def levers(run: Run) -> tuple[Lever, ...]:
    """Return the levers of a run, those of the agreement first."""
    plan, members = run.plan, len(run.members)
    colluders = run.colluders
    hidden = plan.privacy is not None
    steps = len(run.terms.schedule)
    found = [
        Lever(
            name="form of the vectors",
            chosen="the agreement: learner, strategy, clip, bits, shaping, weights, noise",
        ),
        Lever(
            name="order and retries",
            chosen=f"the agreement: {steps} steps, each asked at most {plan.attempts} times",
            remains="skip steps, stop early",
        ),
        Lever(
            name="who is in a sum",
            chosen=f"{_who(run)} of {members} enrolled, at least {run.minimum_survivors}{_sets(run)}",
            remains=_cohort_remains(run),
            remedy=_cohort_remedy(run),
        ),
        Lever(
            name="colluders",
            chosen=f"security.corrupt: up to {colluders} of {members}{_noise_counts(run)}",
            remains=f"each sum is about {run.floor - colluders} honest sites or more, not fewer",
            remedy="" if hidden else "[privacy] bounds what a sum tells about one of them",
        ),
        Lever(
            name="model of a step",
            chosen="the server",
            remains="a model made so that a sum tells much about few rows"
            if plan.privacy is None
            else _noise(plan.privacy),
            remedy="" if hidden else "[privacy]",
        ),
    ]
    found += _scales(run)
    if run.terms.asks.weighting is not Weighting.UNIFORM and not hidden:
        found.append(
            Lever(
                name="weights",
                chosen=f"rows of a site, at most {plan.weight_cap}",
                remains="the sum of the sites' rows in each sum",
                remedy="strategy.weighting = uniform",
            )
        )
    if run.terms.passes:
        found.append(
            Lever(
                name="center of a pass",
                chosen=f"the server, {run.terms.passes} times a round, over the same members",
                remains="as many more equations about the same updates",
            )
        )
    asked = {kind: count for kind, count in (*run.terms.before, *run.terms.after) if count}
    if asked:
        words = ", ".join(f"{kind} {count}" for kind, count in asked.items())
        found.append(
            Lever(
                name="statistics and evaluations",
                chosen=f"the server asks them, as often as agreed: {words}",
                remains="edges, cells and means of its choice, over "
                + ("any of the sites each time" if run.one_shot else "the same members"),
            )
        )
    if run.one_shot:
        found.append(
            Lever(
                name="who opens the sums",
                chosen=f"{run.security.minimum_decryptors} or more of {len(run.decryptors)} enrolled "
                "decryptors",
                remains="each upload of an epoch, once more of them collude than security.corrupt allows for",
                remedy="more decryptors, of different owners",
            )
        )
    shown = "hand out another; `secagg verify` on the transcripts shows the sums"
    found.append(Lever(name="final model", chosen="the server says it", remains=shown))
    return tuple(found)


def drowned(run: Run) -> str:
    """Return what noise of this size does to learning, and what helps, if it is too much; empty: it is not.

    Over T rounds, updates add up to T times their norm at most, and noise to sqrt(T) times its length.
    """
    plan, privacy = run.plan, run.plan.privacy
    if privacy is None:
        return ""
    encoding = run.terms.encoding(Train(model={}, norm=plan.first_norm if run.terms.adapts else None))
    codec, noise, norm = encoding.codec, encoding.noise, encoding.shaping.norm
    if noise is None or norm is None:
        return ""
    sites = plan.cohort or len(run.members)
    length = codec.clip / codec.levels * math.sqrt(noise.variance * encoding.sent / sites)
    share = length / (norm * math.sqrt(max(plan.rounds, 1)))
    if share < 1:
        return ""
    persons = "" if privacy.sensitivity is not None else ", privacy of persons (learner.person_clip)"
    return (
        f"[privacy] drowns what is learned: the noise of all rounds is {share:.1f} times as long as all "
        f"updates can be together; more sites, a larger epsilon, fewer parameters{persons} help"
    )


def _noise_counts(run: Run) -> str:
    privacy = run.plan.privacy
    if privacy is None or privacy.colluders >= run.colluders:
        return ""
    return f"; the noise counts {privacy.colluders} only, privacy.colluders"


def _noise(privacy: PrivacyPlan) -> str:
    whose = "vector" if privacy.sensitivity is None else "person"
    return f"what epsilon {privacy.epsilon:g}, delta {privacy.delta:g} allow about one {whose}, in all steps"


def _who(run: Run) -> str:
    return "the server: which of those who upload," if run.one_shot else "who answers"


def _sets(run: Run) -> str:
    """Return what else a set must be."""
    if run.one_shot:  # sites sign no set
        return ""
    which = "whole groups of a cohort named before" if run.regroups else "one set about the same vectors"
    return f"; {which}"


def _cohort_remedy(run: Run) -> str:
    if run.plan.privacy is not None or run.consent.strict_cohorts:
        return ""
    return "[privacy]" if run.one_shot else "consent.strict_cohorts, [privacy]"


def _cohort_remains(run: Run) -> str:
    if run.plan.privacy is not None:
        return "nothing beyond the budget"
    if run.consent.strict_cohorts:
        return ""
    exact = "its number of rows" if run.terms.asks.weighting is not Weighting.UNIFORM else ""
    if run.plan.evaluate_every or run.evaluation.overall:
        exact = "its number of rows, and of rows by label"
    moved = "" if run.one_shot else f" (by more than {run.consent.near:g} of its length)"
    return (
        "two steps may differ by one site: what its update adds shows, as far as the model has not moved"
        + moved
        + (f", and exactly {exact}" if exact else "")
    )


def _scales(run: Run) -> list[Lever]:
    plan, out = run.plan, list[Lever]()
    if plan.standardize and plan.privacy is None:
        out.append(
            Lever(
                name="standardizer",
                chosen="the server, once, within the bounds of the schema",
                remains="one that no sum gave",
                remedy="plan.standardize = false, [privacy]",
            )
        )
    if isinstance(plan.norm, AdaptiveClip):
        out.append(
            Lever(
                name="norm of the updates",
                chosen=f"the server, by at most a factor e^{plan.norm.rate:g} a round",
                remains="move it at that rate",
                remedy="plan.norm = a number",
            )
        )
    return out
