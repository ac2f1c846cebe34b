"""python -m bench: run the measurements, write bench/results/*.json, print what they say."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import local_round
from bench.machine import RESULTS, describe
from bench.report import write_tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--length", type=int, default=100_000, help="entries of a vector")
    parser.add_argument("--dropout", type=float, default=0.05, help="share that vanishes before it uploads")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--output", default=str(RESULTS / "local_round.json"), help="JSON file, or - for none"
    )
    options = parser.parse_args()
    results = [
        local_round.run(
            clients=options.clients,
            length=options.length,
            dropout=options.dropout,
            adversary=adversary,
            repeats=options.repeats,
        )
        for adversary in ("active", "passive")
    ]
    report = {"machine": describe(), "command": "python -m bench", "rounds": results}
    text = json.dumps(report, indent=2)
    print(text)
    if options.output != "-":
        RESULTS.mkdir(parents=True, exist_ok=True)
        Path(options.output).write_text(text + "\n", encoding="utf-8")
        write_tables(report)


if __name__ == "__main__":
    main()
