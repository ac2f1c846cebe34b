"""A training run on the console: a line for each round, and metrics in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

_PHASES = {  # by the names that the history has
    "advertise_keys": "keys",
    "share_keys": "share",
    "masked_input_collection": "masked",
    "consistency_check": "check",
    "unmasking": "unmask",
}

_NAMES = 12  # of sites, in a line


def told(metrics: Mapping[str, float | None]) -> str:
    """Return metrics in a line."""
    return ", ".join(f"{name} {'-' if value is None else f'{value:.4g}'}" for name, value in metrics.items())


def _waiting(here: list[str], missing: list[str], needed: int) -> str:
    wants = f"{needed - len(here)} more" if len(here) < needed else "the rest"
    there = f"{len(here)} of {needed} needed are here ({_list(here)})"
    return f"waits for {wants}: {there}, missing: {_list(missing)}"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return (", ".join(names[:_NAMES]) or "none") + more


def _finished(event: dict[str, Any]) -> str:
    why = f": {event['reason']}" if "reason" in event else ""
    return f"the run is over after {event['rounds']} of {event['planned']} rounds{why}"


_SAID: dict[str, Callable[[dict[str, Any]], str]] = {  # events of one line
    "finished": _finished,
    "resumed": lambda event: (
        f"{event['task'] or 'a round'} goes on in {event['phase']}, {event['taken']} messages stand"
    ),
    "lost": lambda event: f"a message of {event['client']} is lost, and asked for again: {event['reason']}",
    "store_failed": lambda event: f"the store fails: {event['reason']}",
    "killed": lambda event: f"SIGKILL to {event['client']}, {event['line']}",
    "report": lambda event: f"written: {event['file']}",
    "waiting": lambda event: _waiting(event["here"], event["missing"], event["needed"]),
    "warning": lambda event: f"WARNING: {event['text']}",
}
_STYLES = {"killed": "red", "warning": "yellow"}


class Progress:
    """One line per round, the current phase in the status line."""

    def __init__(self, console: Console, status: Any = None) -> None:  # noqa: ANN401 - rich's Status
        self._console = console
        self._status = status
        self._times: dict[str, float] = {}

    def show(self, event: dict[str, Any]) -> None:
        """Show one event of the history."""
        match event["event"]:
            case "listening":
                self._line(f"listening on {event['address']}, agreement {event['agreement'][:16]}")
                heads = "".join(f"{short:>8}" for short in _PHASES.values())
                self._line(f"{'round':<11}{'survivors':>9}{'kB up':>8}{'kB down':>9}{heads} ms")
            case "phase":
                self._times[event["phase"]] = event["milliseconds"]
                if self._status is not None:
                    self._status.update(
                        f"{event['task']}: {event['phase']} {event['answered']}/{event['expected']}"
                    )
            case "round" if event["completed"]:
                self._summed(event)
            case "round":
                self._line(f"{event['task']:<12} no result: {event['reason']}")
                self._times.clear()
            case name if name in _SAID:
                self._line(_SAID[name](event), style=_STYLES.get(name))
            case _:
                pass

    def _summed(self, event: dict[str, Any]) -> None:
        times = "".join(f"{self._times.get(name, 0):>8.0f}" for name in _PHASES)
        self._line(
            f"{event['task']:<11}{len(event['survivors']):>9}{event['bytes_up'] / 1000:>8.1f}"
            f"{event['bytes_down'] / 1000:>9.1f}{times}"
        )
        if "epsilon" in event:
            self._line(f"{'':<11}epsilon {event['epsilon']:.4g} spent so far")
        if metrics := event.get("metrics"):
            over = f"over {event['rows']} held-out rows" if "rows" in event else "of the sites"
            self._line(f"{'':<11}{told(metrics)}, {over}")
        self._times.clear()

    def _line(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
