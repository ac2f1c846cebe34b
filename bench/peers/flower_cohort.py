"""One Flower SecAgg+ round in one process: its server workflow and its client mod, with no network between.

`SecAggPlusWorkflow` talks to a grid, asks a strategy whom to sample and hands it the average; `Cohort` is
all three. A message passes through Flower's own protobuf conversion both ways, as it would on a wire,
outside the clocks.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import Workload, cpu_seconds

CLIPPING_RANGE = 1.0


class Cohort:
    """All clients of a round; nodes 1..sample have their stages timed, the last `dropouts` nodes vanish."""

    def __init__(self, workload: Workload, sample: int) -> None:
        from flwr.app import Context, RecordDict

        self.seconds: dict[str, list[float]] = defaultdict(list)  # by stage, one per timed client
        self.upload_bytes = [0] * sample
        self.average: NDArray[np.float64] = np.empty(0)
        self._workload = workload
        self._away = 0.0  # CPU seconds that the workflow spent in send_and_receive
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in range(1, workload.clients + 1)
        }

    def run(self) -> float:
        """Run the round; return the server's CPU seconds, those of the clients taken off."""
        from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
        from flwr.server.compat.legacy_context import LegacyContext
        from flwr.server.workflow import SecAggPlusWorkflow
        from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
        logging.getLogger("flwr").setLevel(logging.ERROR)
        work = self._workload
        workflow = SecAggPlusWorkflow(
            num_shares=work.shares,
            reconstruction_threshold=work.shares_needed,
            max_weight=1.0,
            clipping_range=CLIPPING_RANGE,
            quantization_range=2**work.value_bits,
        )
        state = RecordDict()
        state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
        model = ArrayRecord([np.zeros(1, np.float32)])  # tiny: sending the model is no part of this
        state.array_records[MAIN_PARAMS_RECORD] = model
        server = Context(run_id=1, node_id=0, node_config={}, state=state, run_config={})
        context = LegacyContext(server, strategy=self, client_manager=self)
        seconds, _ = cpu_seconds(lambda: workflow(self, context))
        if not self.average.size:
            raise RuntimeError("Flower halted the round: too few clients for the threshold")
        return seconds - self._away

    # What the workflow asks of a grid.
    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        seconds, replies = cpu_seconds(lambda: [self._answer(message) for message in messages])
        self._away += seconds
        return [reply for reply in replies if reply is not None]

    # What it asks of a client manager and of a strategy.
    def num_available(self) -> int:
        return len(self._contexts)

    def configure_fit(self, _round: int, parameters: Any, _manager: object) -> list[tuple[Any, Any]]:  # noqa: ANN401 - Flower's
        from flwr.common import FitIns

        return [(SimpleNamespace(node_id=node), FitIns(parameters, {})) for node in self._contexts]

    def aggregate_fit(
        self, _round: int, results: list[tuple[Any, Any]], _failures: object
    ) -> tuple[Any, Any]:
        from flwr.common import parameters_to_ndarrays

        parameters = results[0][1].parameters  # the workflow has put the average into each of them
        self.average = parameters_to_ndarrays(parameters)[0]
        return parameters, {}

    def _answer(self, message: Any) -> Any:  # noqa: ANN401 - Flower's
        from flwr.app import Message
        from flwr.client.mod import secaggplus_mod
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
        from flwr.common.serde import message_from_proto, message_to_proto, recorddict_to_proto

        received = message_from_proto(message_to_proto(message))
        configs = received.content.config_records[RECORD_KEY_CONFIGS]
        node, stage = received.metadata.dst_node_id, configs[Key.STAGE]
        timed = node <= len(self.upload_bytes)
        if stage == Stage.SETUP and not timed:
            # Shares of a line are shares of a polynomial of any higher degree: cheap to make for those
            # whose stages nobody times, and the server's work on them is the same.
            configs[Key.THRESHOLD] = 2
        if stage == Stage.COLLECT_MASKED_VECTORS:
            if node > self._workload.survivors:
                return None
            update = self._update(node)
        else:
            update = None
        seconds, reply = cpu_seconds(
            lambda: secaggplus_mod(
                received, self._contexts[node], lambda asked, _context: Message(update, reply_to=asked)
            )
        )
        if timed:
            self.seconds[stage].append(seconds)
            self.upload_bytes[node - 1] += recorddict_to_proto(reply.content).ByteSize()
        return reply

    def _update(self, node: int) -> Any:  # noqa: ANN401 - Flower's
        """Return what a client app returns after training, weight 1."""
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
        from flwr.compat.common.recorddict_compat import fitres_to_recorddict

        parameters = ndarrays_to_parameters([self._workload.vector(node - 1)])
        return fitres_to_recorddict(FitRes(Status(Code.OK, ""), parameters, 1, {}), keep_input=False)
