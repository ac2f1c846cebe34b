"""Defences of the one-upload protocol's service: clients that speak once, decryptors, epochs."""

from __future__ import annotations

from tests.attacks.defence import Defence

_CLIENT = "secagg.service.oneshot.client"
_DECRYPTOR = "secagg.service.oneshot.decryptor"
_DESKS = "secagg.service.oneshot.desks"
_EPOCHS = "secagg.service.oneshot.epochs"
_ROUNDS = "secagg.service.oneshot.rounds"
_RUN = "secagg.service.oneshot.run"

DEFENCES: tuple[Defence, ...] = (
    Defence(
        "phone: nothing twice about a model",
        _CLIENT,
        "        return self._settings.ledger.told(self._subject, self._settings.signer.identity)\n",
        "        return False\n",
        "what was uploaded must be presumed summed: not in two sums",
    ),
    Defence(
        "phone: kept before it leaves",
        _CLIENT,
        "            self._keep(session, effects)\n",
        "",
        "an upload that was not acknowledged is sent again as it was",
    ),
    Defence(
        "phone: acknowledged is what was sent",
        _CLIENT,
        "                if self._upload is not None:\n                    self._end(acknowledged=True)\n",
        "                self._end(acknowledged=True)\n",
        "nobody is told of an upload that was not made",
    ),
    Defence(
        "phone: the end of what was sent",
        _CLIENT,
        "                if self._upload is not None:\n                    why",
        "                if True:\n                    why",
        "the end of a round ends the part of those only who had one",
    ),
    Defence(
        "phone: no upload into the void",
        _CLIENT,
        "            if self._parameters is None and computing.exception() is None:\n                continue",
        "            if False:\n                continue",
        "what no round takes is not made",
    ),
    Defence(
        "phone: what does not count is begun anew",
        _CLIENT,
        "        if self._computing is not None and counts:\n",
        "        if self._computing is not None:\n",
        "an update of a model that is too old is not uploaded",
    ),
    Defence(
        "decryptor: keys an hour",
        _DECRYPTOR,
        "        if len(self._keys) >= _KEYS_AN_HOUR:\n",
        "        if False:\n",
        "a server fills no store",
    ),
    Defence(
        "decryptor: epochs that came to nothing",
        _DECRYPTOR,
        "            self._drop(one)  # it was never announced to us\n",
        "            pass\n",
        "keys that no committee has are forgotten",
    ),
    Defence(
        "decryptor: epochs end",
        _DECRYPTOR,
        '            self._drop(one)\n            self._on_event(f"epoch {one.epoch_id.hex()[:12]}: over',
        '            self._on_event(f"epoch {one.epoch_id.hex()[:12]}: over',
        "whatever the server says, an epoch's secrets are forgotten in time",
    ),
    Defence(
        "decryptor: epochs are left behind",
        _DECRYPTOR,
        "            if one is not newest and one.began <= newest.began:\n",
        "            if False:\n",
        "of an epoch that is over nothing can be opened",
    ),
    Defence(
        "decryptor: consent",
        _DECRYPTOR,
        "                    if self._consents(epoch, wanted):\n",
        "                    if True:\n",
        "what its operator objects to is not signed",
    ),
    Defence(
        "decryptor: kept before it leaves",
        _DECRYPTOR,
        "            values[self._kept(epoch)] = epoch.dump()\n        if values:\n",
        "            pass\n        if values:\n",
        "a decryptor that was killed goes on",
    ),
    Defence(
        "decryptor: a step to its end",
        _DECRYPTOR,
        "                    answers = await on_thread(None, self._answers, bytes(record.content))\n",
        "                    answers = await asyncio.to_thread(self._answers, bytes(record.content))\n",
        "who is cancelled has no thread that writes on",
    ),
    Defence(
        "decryptor: no payloads",
        _DECRYPTOR,
        "            case RecordType.PAYLOAD:\n                raise StreamError",
        "            case RecordType.HELLO:\n                raise StreamError",
        "what is not for it ends the stream",
    ),
    Defence(
        "decryptors: who is enrolled as one",
        _RUN,
        "                lambda: self._settings.decryptors.identities, self._members.serve\n",
        "                lambda: self._registry.identities, self._members.serve\n",
        "a client is no decryptor",
    ),
    Defence(
        "epoch: old committees",
        _EPOCHS,
        "        return epoch is not None and not self._spent and now - epoch.formed < self._epoch_s\n",
        "        return epoch is not None and not self._spent\n",
        "an epoch does not last for ever",
    ),
    Defence(
        "epoch: spent committees",
        _EPOCHS,
        "            self._spent = True\n",
        "            pass\n",
        "who lost too many members gets no more rounds",
    ),
    Defence(
        "epoch: members that are there",
        _EPOCHS,
        "        return epoch if left >= len(committee.members) - committee.numbers.dropouts else None\n",
        "        return epoch\n",
        "no uploads for a committee that cannot open them",
    ),
    Defence(
        "epoch: kept",
        _EPOCHS,
        '        await on_thread(services.executor, services.journal.note, "epoch", data)\n',
        "",
        "a server that was started again goes on with its committee",
    ),
    Defence(
        "desk: frames of clients have a limit",
        _DESKS,
        "        limit += _ALLOWANCE\n        if length > limit:\n",
        "        limit += _ALLOWANCE\n        if False:\n",
        "nobody makes the server keep more than an upload",
    ),
    Defence(
        "desk: frames of decryptors have a limit",
        _DESKS,
        "        limit = max(_KEY_BYTES, most) + _ALLOWANCE\n        if length > limit:\n",
        "        limit = max(_KEY_BYTES, most) + _ALLOWANCE\n        if False:\n",
        "nobody makes the server keep more than an answer",
    ),
    Defence(
        "desk: junk of decryptors",
        _DESKS,
        '            raise StreamError(f"frame: {error}") from error\n',
        "            return Standing.TAKEN\n",
        "who sends junk loses its stream",
    ),
    Defence(
        "desk: nothing before the parameters",
        _DESKS,
        "            if item != driver.parameters_frame:\n                return\n",
        "",
        "a member that comes in the middle hears things in their order",
    ),
    Defence(
        "desk: what was lost comes again",
        _DESKS,
        "            connection.close()  # it comes back, and sends the same again\n",
        "            pass\n",
        "a store that failed costs no upload",
    ),
    Defence(
        "desk: acknowledged again",
        _DESKS,
        "        elif connection.identity in driver.uploaded:\n",
        "        elif standing is Standing.TAKEN:\n",
        "an acknowledgement that was lost is given again",
    ),
    Defence(
        "rounds: all of what was acknowledged",
        _ROUNDS,
        '            raise StoreDamagedError(f"round {self._name}: {error}") from error\n',
        "            return []\n",
        "a round does not go on without an upload that members have reviewed",
    ),
    Defence(
        "rounds: closed phases are kept",
        _ROUNDS,
        '            self._journal.take(self._id, [Kept(b"", self._unused(b"", _CLOSED), b"", None)])\n',
        "            pass\n",
        "a round that goes on is in the phase that members know",
    ),
    Defence(
        "journal: what never began is swept",
        "secagg.store.sql.journal",
        "        gone = [name for one in self._never_begun() for name in self.names_of(one)]\n",
        "        gone = []\n",
        "a server that dies before a round begins leaves nothing of it",
    ),
)
