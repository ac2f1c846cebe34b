"""Secure means in NVIDIA FLARE (>= 2.9, its Collab API): a class for sites, a function for the server.

    class Site(SecAggSite):                       # on each site; its folder has party.key and registry.toml
        mean, minimum_cohort = MEAN, 4
        def train(self, model): ...               # -> Trained

    class Server:
        @collab.main
        def run(self): one, result = average(secure, model)

A site's folder is its application's property `secagg_folder` (`recipe.set_per_site_config`), or what
`folder` returns. Sites install reviewed code: a job that ships their code can ship one without masks.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal

from nvflare.collab import collab

from fedcore.codec.mean import Arrays, Mean, MeanResult
from fedcore.errors import SettingError
from fedcore.integrations.exchange import SecureMean, Trained, answer_packed, packed, with_model
from secagg.embedding import AnyRound, Ask, Participant

_POLL_S = 0.2
_log = logging.getLogger("fedcore.integrations")


class SecAggSite:
    """A site. Extend it with `mean`, `minimum_cohort` and `train`; register it as the recipe's client."""

    mean: ClassVar[Mean]
    minimum_cohort: ClassVar[int] = 4
    decryptors: ClassVar[Collection[str] | Literal["all"]] = ()  # names; for the one-upload protocol

    def train(self, model: Arrays) -> Trained:
        """Train on the model as it came; called once in a round. Raises SettingError: not defined."""
        raise SettingError(f"train: {type(self).__name__} must define it")

    def folder(self) -> str | Path:
        """Return the folder of this site's identity, registry and state."""
        found = collab.get_app_prop("secagg_folder")
        if not found:
            raise ValueError("secagg_folder: this site has no such property")
        return str(found)

    def participant(self) -> Any:  # noqa: ANN401 - or what stands for one, in tests
        """Return this site's participant, for one request."""
        cohort, opening = self.minimum_cohort, self.decryptors
        return Participant.open(self.folder(), minimum_cohort=cohort, decryptors=opening)

    @collab.publish
    def answer(self, message: bytes) -> bytes:
        """Answer a request of `average`."""
        with closing(self.participant()) as one:
            return answer_packed(one, self.mean, self.train, message)


def average(
    secure: SecureMean, model: Arrays, config: Mapping[str, Any] | None = None
) -> tuple[AnyRound[str], MeanResult]:
    """Run a round over all sites; call it in the server's `@collab.main`.

    A site that raises, or whose call ends without a result, is lost; nobody else is.

    raises  as `SecureMean.run`
    """
    sites = {site.name: site for site in collab.clients}

    def carry(ask: Ask[str]) -> None:
        along = packed(model, config) if ask.wants_vector else b""
        # A call to a group is one argument for all, so each site is a group; made here, where the context is.
        calls = {
            name: collab.get_clients([name])(timeout=max(ask.left_s, 1.0), parallel=1) for name in ask.frames
        }
        pool = ThreadPoolExecutor(len(calls), thread_name_prefix="secagg")
        waiting: dict[Future[Any], str] = {
            pool.submit(calls[name].answer, with_model(frame, along)): name
            for name, frame in ask.frames.items()
        }
        while waiting and not ask.over:
            for future in wait(waiting, min(_POLL_S, ask.left_s), FIRST_COMPLETED).done:
                _hand_in(ask, waiting.pop(future), future)
        pool.shutdown(wait=False, cancel_futures=True)

    return secure.run(model, list(sites), carry, config)


def _hand_in(ask: Ask[str], name: str, future: Future[Any]) -> None:
    """Take a site's reply, if its call has one."""
    try:
        replies = [reply for _, reply in future.result()]
    except Exception as error:  # noqa: BLE001 - of FLARE's transport, or of the site
        _log.warning("site %s is lost: %r", name, error)
        replies = []
    if replies and isinstance(replies[0], bytes):
        ask.take(name, replies[0])
    else:
        ask.lose(name, "no result")
