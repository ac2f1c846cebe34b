"""syft-flwr's handling of messages, both ways, around the Flower adapter as it is; not its files."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message
from syft_flwr.flower_client import MessageHandler, RequestProcessor
from syft_flwr.serde import bytes_to_flower_message, flower_message_to_bytes

from fedcore.integrations.flower import InProcessGrid
from secagg.embedding import Committee, OneShotPolicy
from secagg.primitives import kem
from tests.embedding.cohort import Cohort
from tests.embedding.hosts.test_flower import client_app, record, wrapped
from tests.embedding.models import MODEL, expected

pytestmark = pytest.mark.host


def over_syft(inside: Any) -> Any:
    """A client app whose messages and replies go through syft-flwr, as they would in a file."""

    def app(message: Message, context: Context) -> Message:
        handler = MessageHandler(inside, context, encryption_enabled=True)
        processor = RequestProcessor(handler, SimpleNamespace(), "node@example.org")
        body = base64.b64encode(flower_message_to_bytes(message))
        reply = processor.process(SimpleNamespace(headers={}, id="1", body=body))
        assert isinstance(reply, str)
        return bytes_to_flower_message(base64.b64decode(reply))

    return app


@pytest.mark.parametrize("committee", [None, Committee(post_quantum=kem.AVAILABLE)], ids=["pairs", "one"])
def test_the_flower_adapter_runs_as_it_is(committee: Committee | None) -> None:
    cohort = Cohort()
    known = cohort.registry.identities
    policy = OneShotPolicy(known=known, decryptors=known, require_post_quantum=kem.AVAILABLE)

    def node(context: Context) -> Any:
        return cohort.participant(int(context.node_config["partition-id"]), oneshot=policy)

    strategy = wrapped(cohort.registry, committee=committee)
    grid = InProcessGrid(over_syft(client_app(node)), 5)
    result = strategy.start(grid, record(), num_rounds=2, train_config=ConfigRecord({"lr": 0.1}))
    change, _, _ = expected(range(5))
    for name, array in MODEL.items():
        np.testing.assert_allclose(result.arrays[name].numpy(), array + 2 * change, atol=1e-3)


def test_a_plain_request_is_refused_by_name_alone() -> None:
    """An error reply of this host has its exception's words: ours say nothing of the node."""
    cohort = Cohort()
    app = over_syft(client_app(lambda _context: cohort.participant(0)))
    grid = InProcessGrid(app, 5)
    plain = wrapped(cohort.registry).inner
    (first, *_) = plain.configure_train(1, record(), ConfigRecord({}), grid)
    (reply,) = grid.send_and_receive([first])
    assert reply.has_error()
    assert "takes part in secure aggregation only" in reply.error.reason
    assert "party.key" not in reply.error.reason
