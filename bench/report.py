"""The tables beside the JSON files, made from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

TABLES = "README.md"
_PHASES = ("ADVERTISE_KEYS", "SHARE_KEYS", "MASKED_INPUT_COLLECTION", "CONSISTENCY_CHECK", "UNMASKING")
Report = dict[str, Any]


def write_tables(folder: Path) -> None:
    """Write the tables of a folder of results beside them."""
    (folder / TABLES).write_text(tables(folder) + "\n", encoding="utf-8")


def tables(folder: Path) -> str:
    """Return the Markdown of all suites that a folder has results of."""
    makers: dict[str, Callable[[Report], list[str]]] = {
        "kernels": _kernels,
        "primitives": _primitives,
        "phases": _phases,
        "hybrid": _hybrid,
        "embedding": _embedding,
        "oneshot": _oneshot,
        "peers": _peers,
        "scaling": _scaling,
        "training": _training,
        "contribution": _contribution,
        "service": _service,
    }
    lines: list[str] = []
    for name, make in makers.items():
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        report = json.loads(path.read_text(encoding="utf-8"))
        lines += ["", f"## {name.capitalize()}", "", f"`{report['command']}`, {report['seconds']:.0f} s."]
        lines += [f"{', '.join(f'{key}: {value}' for key, value in report['machine'].items())}.", ""]
        lines += make(report)
        plot = folder / f"{name}.png"
        if plot.exists():
            lines += ["", f"![{name}]({plot.name})"]
    return "\n".join([*lines, *_tasks(folder)]).strip()


def _tasks(folder: Path) -> list[str]:
    """Tables of the training tasks and studies that a folder has results of."""
    found = {
        path.stem.removeprefix("task-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("task-*.json"))
    }
    order = ("heart", "digits", "writers", "ner", "ner-neural", "breast")
    tasks = {name: found[name] for name in order if name in found}
    lines: list[str] = []
    if tasks:
        lines += ["", "## Training tasks", ""]
        lines += _table(
            ("task", "metric", "local", "plain", "secure", "pooled", "bytes up", "float32", "ring bits"),
            [
                (
                    *(name, task["metric"]),
                    *("" if task[key] is None else f"{task[key]:.4f}" for key in _COMPARED),
                    *(f"{task['bytes_per_client_round']:,.0f}", f"{task['float32_bytes']:,}"),
                    task["ring_bits"],
                )
                for name, task in tasks.items()
            ],
        )
        lines += [
            "",
            "Bytes up: by a client in a round, all phases; float32: of the update in the clear.",
            "",
        ]
        lines += _table(
            ("task", "clients", "rounds", "seconds", "largest difference", "bound of rounding", "commit"),
            [
                (
                    *(name, task["clients"], task["rounds"], f"{task['seconds']:.0f}"),
                    *(f"{task['max_difference']:.2g}", f"{task['bound']:.2g}", task["machine"]["commit"]),
                )
                for name, task in tasks.items()
            ],
        )
        lines += [
            "",
            "Difference: of a coordinate between the mean update of a secure sum and the mean of the",
        ]
        lines += ["same updates in real numbers, over all rounds.", ""]
        lines += [line for name, task in tasks.items() for line in _details(name, task["details"])]
    for table, name in ((_privacy, "privacy"), (_scale, "scale"), (_users, "users"), (_compression, "bytes")):
        lines += table(found.get(name))
    return lines


_COMPARED = ("local", "plain", "secure", "pooled")


def _details(name: str, details: Report) -> list[str]:
    """What a task reports beside its headline: one line per setting."""
    rows = {key: value for key, value in details.items() if isinstance(value, dict)}
    if not rows:
        return []
    heads = list(dict.fromkeys(key for value in rows.values() for key in value))
    cells = [
        (key, *("" if value.get(head) is None else _figure(value[head]) for head in heads))
        for key, value in rows.items()
    ]
    return ["", *_table((name, *heads), cells)]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4f}"


def _privacy(study: Report | None) -> list[str]:
    if study is None:
        return []
    lines = ["", "## Privacy and utility", "", f"`{study['command']}`, {study['seconds']:.0f} s.", ""]
    rows = study["rows"]
    lines += [f"Heart disease; without noise {rows[0]['none']:.4f}.", ""]
    return lines + _table(
        ("epsilon", "delta", "FLamby (Opacus)", "central Gaussian", "Skellam, secure", "std", "spent"),
        [
            (
                *(f"{row['epsilon']:g}", f"{row['delta']:g}"),
                *(f"{row[key]:.4f}" for key in ("published", "central", "skellam", "skellam_std", "spent")),
            )
            for row in rows
        ],
    )


def _scale(study: Report | None) -> list[str]:
    if study is None:
        return []
    rows = study["rows"]
    lines = [
        "",
        "## Standardization under privacy",
        "",
        f"`{study['command']}`, {study['seconds']:.0f} s.",
        "",
    ]
    lines += [f"Heart disease, persons, delta 1e-3, AUC; without noise {rows[0]['none']:.4f}.", ""]
    names = ("bounds", "bounds_std", "moments", "moments_std")
    return lines + _table(
        ("epsilon", "by the bounds", "std", "by a noisy sum", "std"),
        [(f"{row['epsilon']:g}", *(f"{row[name]:.4f}" for name in names)) for row in rows],
    )


def _users(study: Report | None) -> list[str]:
    if study is None:
        return []
    rows = study["rows"]
    lines = ["", "## Privacy of users", "", f"`{study['command']}`, {study['seconds']:.0f} s.", ""]
    lines += [
        "MNIST by 297 writers, softmax regression, 40 rounds, delta 1e-3; all writers in every round.",
        "",
    ]
    return lines + _table(
        ("epsilon", "central Gaussian", "Skellam", "discrete Gaussian", "spent", "ring bits"),
        [
            (
                row["epsilon"],
                *(f"{row[name]:.4f}" for name in ("central", "skellam", "discrete_gaussian", "spent")),
                row["ring_bits"],
            )
            for row in rows
        ],
    )


def _compression(study: Report | None) -> list[str]:
    if study is None:
        return []
    lines = ["", "## Accuracy against bytes", "", f"`{study['command']}`, {study['seconds']:.0f} s.", ""]
    lines += _table(
        ("task", "codec", "ring bits", "bytes a value", "net of ring growth", "accuracy"),
        [
            (
                *(row["task"], row["codec"], f"{row['ring_bits']:.0f}", f"{row['bytes_per_value']:.3f}"),
                *(f"{row['net_bytes_per_value']:.3f}", f"{row['accuracy']:.4f}"),
            )
            for row in study["rows"]
        ],
    )
    return [*lines, "", "![bytes](task-bytes.png)"]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    out = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return out + [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(row: Report, unit: str) -> str:
    return f"{_cell(row[f'median_{unit}'])} ({_cell(row[f'low_{unit}'])} to {_cell(row[f'high_{unit}'])})"


def _kernels(report: Report) -> list[str]:
    lines = [f"{report['entries']} entries of 32 bits, {report['seeds']} seeds; median (quartiles).", ""]
    lines += _table(
        ("what", "with", "threads", "ns"),
        ((row["group"], row["name"], row["threads"], _spread(row, "ns")) for row in report["rows"]),
    )
    return [*lines, "", *_table(("ratio", "value"), report["ratios"].items())]


def _primitives(report: Report) -> list[str]:
    lines = _table(
        ("operation", "library", "us: median (quartiles)"),
        ((row["operation"], row["library"], _spread(row, "us")) for row in report["rows"]),
    )
    lines += ["", "X25519 agreements split over threads:", ""]
    lines += _table(
        ("library", "threads", "us each"),
        ((row["library"], row["threads"], row["median_us"]) for row in report["threads"]),
    )
    lines += ["", "Shamir, one 32-byte secret:", ""]
    return lines + _table(
        ("t of k", "share, us", "plain Python", "times", "rebuild, us", "plain Python", "times"),
        (
            (
                f"{row['threshold']} of {row['holders']}",
                row["share_us"],
                row["share_python_us"],
                row["share_python_us"] / row["share_us"],
                row["rebuild_us"],
                row["rebuild_python_us"],
                row["rebuild_python_us"] / row["rebuild_us"],
            )
            for row in report["shamir"]
        ),
    )


def _phases(report: Report) -> list[str]:
    lines = ["One core, milliseconds; `sum` is that of the primitives alone, measured in the same run.", ""]
    head = ("n", "d", "dropouts", "adversary", "graph", "k, t", "client ms", "/ sum", "server ms", "/ sum")
    lines += _table(
        head,
        (
            (
                *_round(row),
                f"{row['degree']}, {row['threshold']}",
                _spread({f"{k}_ms": v for k, v in row["client_ms"].items()}, "ms"),
                row["client_ms"]["median"] / row["client_primitives_ms"],
                _spread({f"{k}_ms": v for k, v in row["server_ms"].items()}, "ms"),
                row["server_ms"]["median"] / row["server_primitives_ms"],
            )
            for row in report["rows"]
        ),
    )
    for side in ("client", "server"):
        lines += ["", f"The {side} by phase, milliseconds:", ""]
        lines += _table(
            ("n", "d", "dropouts", "adversary", "graph", *_PHASES),
            (
                (*_round(row), *(row[f"{side}_phases_ms"].get(phase, "-") for phase in _PHASES))
                for row in report["rows"]
            ),
        )
    lines += ["", "Bytes of one client, up / down:", ""]
    lines += _table(
        ("n", "d", "dropouts", "adversary", "graph", *_PHASES, "all"),
        ((*_round(row), *_bytes(row)) for row in report["rows"]),
    )
    lines += ["", "Growth of the server's process over a round, peak:", ""]
    lines += _table(
        ("n", "d", "dropouts", "adversary", "graph", "MB", "vectors of d entries"),
        (
            (*_round(row), row["server_bytes"] / 1e6, row["server_bytes"] / row["vector_bytes"])
            for row in report["memory"]
        ),
    )
    lines += ["", "Bonawitz et al., CCS 2017 (Java, one thread, d = 100 000; section 8's tables), ms:", ""]
    return lines + _table(
        (
            "side",
            "n",
            "dropouts",
            "AdvertiseKeys",
            "ShareKeys",
            "MaskedInputCollection",
            "Unmasking",
            "total",
            "ours",
        ),
        (
            (*entry[:2], f"{entry[2]:.0%}", *entry[3:], _beside(entry, report["rows"]))
            for entry in report["published"]
        ),
    )


def _round(row: Report) -> tuple[object, ...]:
    return row["clients"], row["length"], f"{row['dropout']:.0%}", row["adversary"], row["graph"]


def _bytes(row: Report) -> list[str]:
    up, down = row["up_bytes"], row["down_bytes"]
    cells = [f"{up.get(phase, 0)} / {down.get(phase, 0)}" for phase in _PHASES]
    return [*cells, f"{sum(up.values())} / {sum(down.values())}"]


def _beside(entry: Sequence[Any], rows: list[Report]) -> str:
    """Ours for the same n, d and dropouts, passive as theirs: complete graph, and chosen degree."""
    side, n, dropout = entry[0], entry[1], entry[2]
    found = {
        row["graph"]: row[f"{side}_ms"]["median"]
        for row in rows
        if (row["clients"], row["length"], row["dropout"], row["adversary"])
        == (n, 100_000, dropout, "passive")
    }
    return ", ".join(f"{graph} {_cell(found[graph])}" for graph in ("complete", "chosen") if graph in found)


def _peers(report: Report) -> list[str]:
    what = f"n = {report['clients']}, d = {report['length']}, {report['dropouts']} dropouts (where recovered)"
    lines = [f"{what}; CPU seconds. `times`: over the total of secagg, passive, complete graph.", ""]
    base = report["ours"][0]["stages"]["total"]
    stages = ("client_share_keys", "client_vector", "server", "decryptors", "total", "upload_bytes")
    lines += _table(
        (
            "library",
            "client, share keys",
            "client, vector",
            "server",
            "decryptors",
            "all together",
            "upload, bytes",
            "times",
        ),
        (
            (row["name"], *(row["stages"].get(stage, "-") for stage in stages), row["stages"]["total"] / base)
            for row in (*report["ours"], *report["peers"])
        ),
    )
    lines += [f"Not run: {name}: {why}." for name, why in report["skipped"].items()]
    lines += ["", "Settings: " + "; ".join(f"{row['name']}: {row['settings']}" for row in report["peers"])]
    ours = report["shamir"]["ours"]
    lines += ["", "Shamir, 32 bytes, t = 67 of 100, seconds:", ""]
    return lines + _table(
        ("library", "share", "times", "rebuild", "times"),
        (
            (name, s["share"], s["share"] / ours["share"], s["rebuild"], s["rebuild"] / ours["rebuild"])
            for name, s in report["shamir"].items()
        ),
    )


def _scaling(report: Report) -> list[str]:
    base = report["base"]
    lines = [
        f"Rounds around n = {base['clients']}, d = {base['length']}, dropouts {base['dropout']:.0%}.",
        "",
    ]
    return lines + _table(
        ("series", "exponent", "of the last two", "seconds by x"),
        (
            (
                entry["name"],
                *("-" if entry[key] is None else entry[key] for key in ("exponent", "last_exponent")),
                ", ".join(f"{_cell(x)}: {s:.3g}" for x, s in zip(entry["x"], entry["seconds"], strict=True)),
            )
            for entry in report["series"]
        ),
    )


def _contribution(report: Report) -> list[str]:
    about = f"d = {report['length']}, a plan for {report['clients']} clients"
    lines = [f"{about}; peak bytes per parameter above what the learner handed back.", ""]
    keys = ("form", "learner", "model", "before", "bytes_per_value", "ratio")
    head = ("contribution", "learner's type", "model's type", "before", "now", "before over now")
    return lines + _table(head, (tuple(row[key] for key in keys) for row in report["rows"]))


def _oneshot(report: Report) -> list[str]:
    lines = [
        f"d = {report['length']:,}, {report['ring_bits']} bits; everybody in one process, one thread.",
        "",
    ]
    lines += _table(
        (
            *("members", "ML-KEM", "client ms", "over its primitives", "decryptor us a dealing"),
            *("over its primitives", "bytes up", "beside the entries"),
        ),
        (
            (
                *(row["members"], "yes" if row["post_quantum"] else "no", f"{row['client_ms']:.1f}"),
                *(f"{row['of_primitives']:.2f}", f"{row['decryptor_us_a_dealing']:.0f}"),
                *(f"{row['decryptor_of_primitives']:.2f}", f"{row['upload_bytes']:,}"),
                f"{row['bytes_beside_entries']:,}",
            )
            for row in report["uploads"]
        ),
    )
    lines += ["", f"{report['clients']:,} clients, d = {report['length'] // 10:,}, by those that vanish:", ""]
    others = {row["dropout"]: row for row in report["pairwise"]}
    lines += _table(
        ("gone", "server s", "us an upload", "pairwise: server s", "client ms", "pairwise: client ms"),
        (
            (
                *(f"{row['dropout']:.0%}", f"{row['server_s']:.2f}", f"{row['server_us_an_upload']:.0f}"),
                f"{other['server_s']:.2f}" if (other := others.get(row["dropout"] or 0.05)) else "",
                f"{row['client_ms']:.1f}",
                f"{other['client_ms']:.1f}" if other else "",
            )
            for row in report["rounds"]
        ),
    )
    if others:
        lines += ["", "Beside nobody gone stands the pairwise protocol with 5 % gone."]
    if (crowd := report["crowd"]) is not None:
        lines += [
            "",
            f"{crowd['clients']:,} clients, d = {crowd['length']:,}, 30 % gone: {crowd['seconds']:.0f} s.",
        ]
    return lines


def _hybrid(report: Report) -> list[str]:
    size = f"{report['clients']:,} clients, d = {report['length']:,}, {report['ring_bits']} bits"
    return [
        f"{size}, active server; everybody in one process, one thread.",
        "",
        *_table(
            (
                *("suite", "gone", "client ms", "over its primitives", "server s", "over its primitives"),
                *("bytes up, a client", "down"),
            ),
            (
                (
                    *(row["suite"], f"{row['dropout']:.0%}", f"{row['client_ms']:.1f}"),
                    *(f"{row['client_of_primitives']:.2f}", f"{row['server_s']:.2f}"),
                    *(f"{row['server_of_primitives']:.2f}", f"{row['up_bytes']:,.0f}"),
                    f"{row['down_bytes']:,.0f}",
                )
                for row in report["rows"]
            ),
        ),
    ]


def _embedding(report: Report) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for one in report["calls"]:
        bare = one["bare_s"]
        size = f"{one['nodes']} nodes, d = {one['length']:,}"
        rows.append((f"plain calls, {size}: sessions alone", f"{bare:.2f}", "1"))
        for name, what in (
            ("memory_s", "state in memory"),
            ("files_s", "state in SQLite, synced"),
            ("upload_s", "one upload, state in memory"),
        ):
            rows.append((f"the same with models, {what}", f"{one[name]:.2f}", f"{one[name] / bare:.1f}"))
    for one in report["grid"]:
        plain, masked = one["plain_s"], one["masked_s"]
        size = f"{one['nodes']} nodes, d = {one['length']:,}"
        rows.append((f"Flower in one process, {size}: FedAvg", f"{plain:.2f}", "1"))
        rows.append(("the same, secure", f"{masked:.2f}", f"{masked / plain:.1f}"))
        rows.append(("the same, one upload", f"{one['upload_s']:.2f}", f"{one['upload_s'] / plain:.1f}"))
    for one in report["http"]:
        trips = "; ".join(f"{name} {seconds:.2f}" for name, seconds in one["trips"].items())
        size = f"{one['nodes']} nodes, d = {one['length']:,}"
        rows += [(f"HTTP on loopback, {size}", f"{one['seconds']:.2f}", ""), (f"of which {trips}", "", "")]
    rows += [(f"skipped: {name}: {why}", "", "") for name, why in report["skipped"].items()]
    about = "A tenth of the nodes vanishes before its upload (none over HTTP)."
    return [about, "", *_table(("round", "s", "times"), rows), "", *_in_flower(report)]


def _in_flower(report: Report) -> list[str]:
    """Rounds inside Flower beside its own secure aggregation: what they take beyond a plain round."""
    rows = []
    for where, what in (("ray", "Ray simulation"), ("superlink", "SuperLink")):
        for one in report[where]:
            plain, theirs = one["plain"], one["secagg+"] - one["plain"]
            for kind in [kind for kind in one if kind.startswith(("pairwise", "upload"))]:
                ours = one[kind] - plain
                size = f"{what}, {one['nodes']} nodes, d = {one['length']:,}"
                seconds = (plain, one[kind], one["secagg+"])
                rows.append((size, kind, *(f"{value:.1f}" for value in seconds), f"{theirs / ours:.1f}"))
    about = (
        "Whole rounds inside Flower, the median of those after the first, each kind in a process of its own. "
        "A tenth of the nodes vanishes (of five none). Passive: against a server that follows the protocol, "
        "as SecAgg+ takes it to be; the others withstand one that lies."
    )
    names = ("round", "secagg", "plain s", "secagg s", "SecAgg+ s", "SecAgg+ over secagg, beyond plain")
    return [about, "", *_table(names, rows)] if rows else []


def _service(report: Report) -> list[str]:
    found = report["figures"]
    uploads, recovery, rounds = found["uploads"], found["recovery"], found["rounds"]
    connected, strangers = found["connected"], found["strangers"]
    size = f"{uploads['bytes_each'] / 1e6:.3g} MB"
    rows = [
        (
            f"{uploads['uploads']} uploads of {size}, on disk: MB/s",
            f"{uploads['megabytes_a_second']:.0f}",
            "500",
        ),
        ("the same over writing these bytes with fsync", f"{uploads['of_fsync']:.2f}", "0.6"),
        ("CPU of the server for a MB, ms", f"{_cpu_per_megabyte(uploads):.1f}", ""),
        (
            f"memory with {connected['parties']} parties, {connected['uploads']} of which upload: MiB",
            f"{connected['server_peak_mib']:.0f}",
            "1536",
        ),
        ("a connected party, KiB", f"{connected['kib_a_connection']:.0f}", ""),
        (
            f"rounds a minute, {rounds['parties']} parties, d = {rounds['length']}",
            f"{rounds['rounds_a_minute']:.1f}",
            "",
        ),
        ("the same over rounds in one process", f"{rounds['of_in_process']:.2f}", "0.5"),
        (
            f"from kill -9 with {recovery['uploads']} uploads spooled to the same phase: s",
            f"{recovery['recovery_seconds']:.2f}",
            "3",
        ),
        ("a connection that says nothing: KiB", f"{strangers['kib_a_silent_connection']:.0f}", "100"),
        ("the same: ms of CPU", f"{strangers['ms_cpu_a_silent_connection']:.2f}", "1"),
        ("a stream that says no hello: KiB", f"{strangers['kib_a_stream_without_hello']:.0f}", "100"),
        ("the same: ms of CPU", f"{strangers['ms_cpu_a_stream_without_hello']:.2f}", "1"),
        (
            f"a party gets in beside {strangers['connections']} of each: s",
            f"{strangers['seconds_until_a_party_is_in']:.2f}",
            "2",
        ),
    ]
    if (table := found.get("full_table")) is not None:
        rows += [
            (
                f"a party gets in while {table['connections']} connections come and say nothing, at most: s",
                f"{table['seconds_until_a_party_is_in_at_most']:.2f}",
                "2",
            ),
            ("memory meanwhile: MiB", f"{table['server_peak_mib']:.0f}", ""),
        ]
    if (beside := found.get("beside")) is not None:
        junk = f"{beside['streams']} streams of junk"
        silent = f"{beside['idle_connections']} silent connections"
        waves = f"{junk} every {beside['wave_s']:g} s and {silent}"
        rows += [
            (f"a round beside {waves}, over one alone", f"{beside['slower']:.2f}", "2"),
            ("memory meanwhile: MiB", f"{beside['server_peak_mib']:.0f}", ""),
            (f"the same, {junk} without a pause", f"{beside['slower_without_pause']:.2f}", ""),
            ("memory meanwhile: MiB", f"{beside['server_peak_mib_without_pause']:.0f}", ""),
        ]
    about = (
        "Server and parties share the cores; uploads come all at once, each is written, synced and summed."
    )
    return [about, "", *_table(("what", "found", "aim"), rows)]


def _cpu_per_megabyte(uploads: Report) -> float:
    megabytes = uploads["uploads"] * uploads["bytes_each"] / 1e6
    return float(1000 * uploads["server_cpu_seconds"] / megabytes)


def _training(report: Report) -> list[str]:
    agreement, steps = report["agreement"], report["steps"]
    lines = []
    if agreement:
        lines += [f"Strategies beside {report['library']}, the same updates in both, float64:", ""]
        lines += _table(
            ("strategy", "made equal first", "largest difference", "parameters moved by"),
            ((row["strategy"], row["equal"], row["difference"], row["moved"]) for row in agreement),
        )
    lines += ["", "One aggregation, CPU milliseconds, one thread; `times`: Flower over the ring.", ""]
    lines += _table(
        ("strategy", "clients", "parameters", "ring", "real", "Flower", "times", "real over Flower"),
        ((row["strategy"], row["clients"], row["parameters"], *_step(row["seconds"])) for row in steps),
    )
    simulation = report["simulation"]
    for kind in ("open", "private"):
        lines += ["", _trained(simulation, simulation[kind]), ""]
        lines += _table(
            ("simulator", "ms a round", "times pfl", "accuracy", "noise over norm"),
            (
                (
                    *(row["name"], row["seconds"] * 1e3, row.get("times", "-"), _accuracy(row)),
                    "-" if row["noise"] is None else row["noise"],
                )
                for row in simulation[kind]["rows"]
            ),
        )
    same = simulation["full_batches"]
    if same:
        what = f"without batches, {same['rounds']} rounds: pfl's and our parameters differ by at most"
        lines += ["", f"The same {what} {same['difference']:.1e}, moved by {same['moved']:.2g}."]
    skipped = {**report["skipped"], **simulation["skipped"]}
    return lines + [f"Not run: {name}: {why}." for name, why in skipped.items()]


def _step(seconds: dict[str, float]) -> tuple[object, ...]:
    ring, real, flower = (seconds.get(way) for way in ("ring", "real", "flower"))
    if ring is None or real is None or flower is None:
        return (*("-" if value is None else value * 1e3 for value in (ring, real, flower)), "-", "-")
    return ring * 1e3, real * 1e3, flower * 1e3, flower / ring, real / flower


def _accuracy(row: Report) -> str:
    low, high = min(row["accuracies"]), max(row["accuracies"])
    spread = f" ({low:.4f} to {high:.4f})" if len(row["accuracies"]) > 1 else ""
    return f"{row['accuracy']:.4f}{spread}"


def _trained(simulation: Report, about: Report) -> str:
    noise = f", epsilon {about['epsilon']:g}, delta {about['delta']:g}" if "epsilon" in about else ""
    return (
        f"{simulation['source']}, softmax regression, {simulation['parameters']} parameters, "
        f"{about['rounds']} rounds of {about['cohort']} users{noise}; CPU time, "
        f"accuracy of {about['seeds']} {'seed' if about['seeds'] == 1 else 'seeds'}:"
    )
