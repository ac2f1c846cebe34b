"""Peak memory of a server: a recorded round fed to a fresh session in a process of its own.

`python -m bench.suites.replay FILE` prints the growth of the resident set, in bytes. The session is
deterministic: the frames that one server took make another one go the same way.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from bench.machine import ROOT
from bench.suites.cohort import Cohort, Workload, complete_graph
from secagg import Completed, Identity, ServerSession
from secagg.messages import decode, encode, parameters_from_wire, parameters_to_wire
from secagg.messages.types import RoundParametersMessage

_HEAD = struct.Struct("<I")


def server_bytes(workload: Workload) -> int:
    """Return the bytes by which the server's process grows over a round. Linux only."""
    cohort = Cohort(workload, keep_frames=True)
    cohort.run()
    with tempfile.NamedTemporaryFile() as file:
        parts = [encode(parameters_to_wire(cohort.parameters)), b"".join(sorted(cohort.signers))]
        parts += [b"" if entry is None else b"".join(entry) for entry in cohort.frames or ()]
        for part in parts:
            file.write(_HEAD.pack(len(part)))
            file.write(part)
        file.flush()
        graph = "complete" if workload.complete else ""
        command = [sys.executable, "-m", "bench.suites.replay", file.name, graph]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return int(done.stdout)


def main() -> None:
    with Path(sys.argv[1]).open("rb") as file:

        def part() -> bytes | None:
            head = file.read(_HEAD.size)
            return file.read(_HEAD.unpack(head)[0]) if head else None

        parameters = parameters_from_wire(decode(RoundParametersMessage, part() or b""))
        names = part() or b""
        admitted = [Identity(names[at : at + 32]) for at in range(0, len(names), 32)]
        before = _peak()
        server = ServerSession(parameters, admitted=admitted)
        server.start()
        effects = []
        if sys.argv[2]:
            mock.patch("secagg.protocol.server.advertise_keys.choose_for", complete_graph).start()
        while (frame := part()) is not None:
            if frame:
                refused = server.receive(Identity(frame[:32]), memoryview(frame)[32:])
                if refused:
                    raise SystemExit(f"refused: {refused}")
            else:
                effects = server.close_phase()
        if not any(isinstance(effect, Completed) for effect in effects):
            raise SystemExit("the recorded round did not end in a sum")
        print(_peak() - before)


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
