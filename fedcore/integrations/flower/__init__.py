"""Secure means in Flower (flwr >= 1.23): a mod for a client's train function, a strategy around the server's.

    @app.train(mods=[SecAggMod(mean, node)])              # node(context) -> Participant
    strategy = SecAggStrategy(FedAvg(), mean, registry=read_registry("registry.toml"))

All phases travel as train messages; the mod calls the train function once, when the vector is wanted. A round
runs inside `configure_train`, where the grid is at hand; the inner strategy then gets the mean, once for each
survivor. Who delivers the clients' code can deliver one without this mod: nodes install reviewed code only.
"""

from fedcore.integrations.flower.grid import InProcessGrid
from fedcore.integrations.flower.mod import SecAggMod, state_of
from fedcore.integrations.flower.strategy import ALLOWED, SecAggStrategy

__all__ = ["ALLOWED", "InProcessGrid", "SecAggMod", "SecAggStrategy", "state_of"]
