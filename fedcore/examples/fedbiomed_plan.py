"""Secure means in Fed-BioMed (6.4): a training plan at the nodes, and at the researcher a strategy.

    pip install . 'fedbiomed[researcher]==6.4.1'

A trip is one of Fed-BioMed's rounds: the request is in what the aggregator tells each node, the reply takes
the place of the trained parameters. A node has a key and the registry in the folder `secagg` of its
component, and approves the plan before anybody asks for it:

    fedbiomed component create -c NODE -p node-1
    fedbiomed node -p node-1 dataset add                   # a table with the tag means
    python -m secagg.embedding node-1/secagg               # its key, and its line of the registry
    python fedcore/examples/fedbiomed_plan.py plan.py      # the plan, as the researcher will send it
    fedbiomed node -p node-1 training-plan register        # asks for the file
    FBM_SECURITY_TRAINING_PLAN_APPROVAL=True fedbiomed node -p node-1 start

At the researcher:

    both = SecAgg(SecureMean(mean=Plan.mean(), registry=read_registry("registry.toml")))
    experiment = Experiment(tags=["means"], training_plan_class=Plan, aggregator=both,
                            node_selection_strategy=both, model_args={"n_features": 3},
                            training_args={"epochs": 5, "loader_args": {"batch_size": 8}})
    mean = both.mean_of(experiment)

The plan's source comes with every request, from the researcher: a node that does not demand approval, or that
approves a plan which does anything else with its rows, keeps nothing to itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedbiomed.common.datamanager import DataManager
from fedbiomed.common.dataset import TabularDataset
from fedbiomed.common.training_plans import FedSGDRegressor
from fedbiomed.researcher.aggregators import Aggregator
from fedbiomed.researcher.strategies import Strategy

from fedcore import Mean, MeanResult
from fedcore.integrations.exchange import SecureMean, Trained, answer_mean
from secagg.embedding import Participant


class Plan(FedSGDRegressor):
    """What runs at a node, from its source alone."""

    def init_dependencies(self) -> list[str]:
        """Return what the source imports."""
        return [
            "import os",
            "from pathlib import Path",
            "from fedbiomed.common.datamanager import DataManager",
            "from fedbiomed.common.dataset import TabularDataset",
            "from fedcore import Mean",
            "from fedcore.integrations.exchange import Trained, answer_mean",
            "from secagg.embedding import Participant",
        ]

    @staticmethod
    def mean() -> Mean:
        """Return what everybody agreed on."""
        return Mean(clip=4.0, weight_cap=100)

    def training_data(self) -> DataManager:
        """Return the node's rows."""
        return DataManager(TabularDataset(input_columns=["a", "b", "c"], target_columns=["y"]), shuffle=True)

    def training_routine(self, history_monitor: object = None, node_args: object = None) -> None:
        """Answer, and train when the vector is wanted: without the monitor, which every loss would go to."""

        def train(_model: object) -> Trained:
            super(Plan, self).training_routine(None, node_args)
            return Trained(self.get_model_params(), weight=len(self.training_data_loader.dataset))

        folder = Path(os.environ["FBM_NODE_COMPONENT_ROOT"], "secagg")
        request, model = self._aggregator_args["request"], self.get_model_params
        with Participant.open(folder, minimum_cohort=4) as participant:
            self.reply = answer_mean(participant, self.mean(), request, model=model, train=train)

    def after_training_params(self, flatten: bool = False) -> object:
        """Return the reply; at the researcher, where there is none, the model."""
        return {"reply": self.reply} if hasattr(self, "reply") else super().after_training_params(flatten)


class SecAgg(Strategy, Aggregator):
    """Both the aggregator and the strategy of an Experiment."""

    aggregator_name = "secagg"

    def __init__(self, secure: SecureMean) -> None:
        Strategy.__init__(self)
        Aggregator.__init__(self)
        self.secure = secure
        self.ask: Any = None
        self.result: MeanResult | None = None

    def mean_of(self, experiment: Any) -> MeanResult:
        """Run the trips of one mean. Raises as `SecureMean.rounds`."""
        experiment.run_once()
        while self.result is None:
            experiment.run_once()
        return self.result

    def sample_nodes(self, from_nodes: list[str], round_i: int) -> list[str]:
        """Take all nodes for a new round, then those who are asked."""
        return list(self.ask.frames) if self.ask else list(from_nodes)

    def create_aggregator_args(self, model: Any = None, nodes: Any = None) -> dict[str, Any]:
        """Give each node its request."""
        if self.ask is None:
            self.result = None
            self._asks = self._trips(model, list(nodes))
            self.ask = next(self._asks)
        return {node: {"request": frame} for node, frame in self.ask.frames.items()}

    def _trips(self, model: Any, nodes: list[str]) -> Iterator[Any]:
        for one in self.secure.rounds(model, nodes):
            yield from one
        self.result = self.secure.mean.decode(one.parameters, model, one.result)

    def refine(self, training_replies: dict[str, Any], round_i: int) -> tuple[Any, ...]:
        """Hand the replies in, and make the next requests."""
        for node in self.ask.frames:
            got = training_replies.get(node, {"success": False})
            if got["success"]:
                self.ask.take(node, got["params"].get("reply"))
            else:
                got["state_id"] = None  # the node saved none, and would be asked for it from now on
                self.ask.lose(node, "no reply")
        self.ask = None  # also when there is no sum, and this raises
        self.ask = next(self._asks, None)
        return {}, {}, 0, {}

    def aggregate(self, *_: Any, global_model: Any, **__: Any) -> Any:
        """Return the mean when it is there, until then the model as it was."""
        return global_model if self.result is None else self.result.arrays


if __name__ == "__main__":
    Plan().save_code(sys.argv[1])
