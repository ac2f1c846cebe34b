"""Defences on the way in and out: checkpoints, waiting, foreign code, reaching a server, moments."""

from __future__ import annotations

from tests.attacks.defence import Defence

_MOMENTS = "fedcore.statistics.moments"
_GUARD = "fedcore.privacy.guard"
_PLAN = "fedcore.rounds.plan"
_SITE = "fedcore.rounds.site"
_FEDERATION = "fedcore.rounds.federation"
_LEARNER = "fedcore.learner"
_FOREIGN = "fedcore.foreign"
_REACH = "secagg.service.reach"
_CLIENT = "secagg.service.line"
_WATCH = "fedcore.data.watch"
_SUMS = "fedcore.service.sums"
_SETTINGS = "fedcore.settings"
_CONSENT = "fedcore.rounds.consent"
_JOIN = "fedcore.service.join"
_AGREEMENT = "fedcore.rounds.agreement"

DEFENCES = (
    Defence(
        "moments: a person is bounded",
        _MOMENTS,
        "    bounded = rows * np.minimum(1.0, moments_norm(schema) / lengths)[:, None]\n",
        "    bounded = rows\n",
        "many rows of one person weigh as one",
    ),
    Defence(
        "moments: no more noise than signal is believed",
        _MOMENTS,
        "    variance = np.clip(np.maximum(spread, least), ",
        "    variance = np.clip(spread, ",
        "a feature is not blown up by noise",
    ),
    Defence(
        "moments: only where they were agreed on",
        _GUARD,
        "        moments = self.plan.statistics and task.kind is TaskKind.MOMENTS\n",
        "        moments = task.kind is TaskKind.MOMENTS\n",
        "what the plan does not count is not answered",
    ),
    Defence(
        "moments: noise for what a person moves of them",
        _GUARD,
        "            plan = self.plan.of_moments(shaping.norm, expected)\n",
        "            plan = replace(self.plan, sensitivity=1e-9)\n",
        "moments have the noise of their own norm",
    ),
    Defence(
        "moments: the norm of the schema",
        _SITE,
        " and task.encoding.shaping.norm != moments_norm(self.schema):\n",
        " and False:\n",
        "a norm of somebody's choice scales no noise down",
    ),
    Defence(
        "moments: room in the ring",
        _PLAN,
        "self.privacy.of_moments(norm, expected).noise(codec, norm, dimension)\n"
        "        return replace(codec, headroom=noise.headroom(codec.clients)), noise\n",
        "self.privacy.of_moments(norm, expected).noise(codec, norm, dimension)\n"
        "        return codec, noise\n",
        "a sum of moments wraps nowhere",
    ),
    Defence(
        "resume: the same run",
        _FEDERATION,
        "    if others:\n",
        "    if False:\n",
        "a checkpoint goes on with what it stands on",
    ),
    Defence(
        "resume: not behind the end",
        _FEDERATION,
        "    if (done := checkpoint.number) > plan.rounds:\n",
        "    if False:\n",
        "a run is not ended early by fewer rounds",
    ),
    Defence(
        "join: the model of this agreement",
        _JOIN,
        '    if theirs not in {"", ours}:\n',
        "    if False:\n",
        "no model of another run is taken for ours",
    ),
    Defence(
        "rounds: wait before an attempt is spent",
        _FEDERATION,
        "            self.federation.ready(among)  # first: an attempt that waits is not spent\n",
        "",
        "too few sites cost no attempt",
    ),
    Defence(
        "rounds: a wait can be ended",
        _SUMS,
        "            if self._over.wait(_LOOK_S):\n",
        "            if self._over.wait(_LOOK_S) and False:\n",
        "a server that waits can be stopped",
    ),
    Defence(
        "strategies: a step",
        _FEDERATION,
        "        if type(self.strategy).step is Strategy.step:\n",
        "        if False:\n",
        "a strategy that does nothing is refused before the first round",
    ),
    Defence(
        "parameters: real numbers of single or double precision",
        _LEARNER,
        "        if array.dtype not in _FLOATS:\n",
        "        if False:\n",
        "no integer wraps and no half overflows in silence",
    ),
    Defence(
        "settings: a number of the kind that is meant",
        _SETTINGS,
        "    require(fine, name, word, value)\n    return plain\n",
        "    return plain\n",
        "no text, truth or NaN is taken for a number",
    ),
    Defence(
        "foreign code: no module in use is replaced",
        _FOREIGN,
        "    if known is not None and not getattr(known, _MARK, False):\n",
        "    if False:\n",
        "a file beside an agreement does not stand in for a library",
    ),
    Defence(
        "reach: what waiting does not mend ends at once",
        _CLIENT,
        "or not (found.passes or self._reached):\n",
        "or False:\n",
        "another certificate is not tried for ever",
    ),
    Defence(
        "reach: the clock",
        _CLIENT,
        "        if not self._reached and (cause := self._outdated()):\n",
        "        if False and (cause := self._outdated()):\n",
        "a wrong clock is named",
    ),
    Defence(
        "reach: no proxy for this machine",
        _CLIENT,
        "        if is_loopback(host_and_port(self._address)[0]):\n",
        "        if False:\n",
        "a proxy of the environment does not catch loopback",
    ),
    Defence(
        "reach: no password of a proxy",
        _REACH,
        "{rest.rpartition('@')[2]}",
        "{rest}",
        "no secret is in an error",
    ),
    Defence(
        "rows: new ones are checked",
        _SITE,
        "            self.schema.check_table(rows, self.name)\n        self.table, ",
        "            pass\n        self.table, ",
        "rows beyond the bounds do not come in later",
    ),
    Defence(
        "rows: never others about the same question",
        _CONSENT,
        "            if any(self.store.get(name) not in {None, version} for name in names):\n",
        "            if False:\n",
        "two sums over the same members do not differ by the rows that are new",
    ),
    Defence(
        "rows: new ones wait for a new question",
        _JOIN,
        "    if not consent.answered_before(task) and ",
        "    if ",
        "a second attempt is about the rows of the first",
    ),
    Defence(
        "rows: a task keeps its own",
        _SITE,
        "        ours = copy(self)  # its rows",
        "        ours = self  # its rows",
        "a computation that was given up has no rows of the next one",
    ),
    Defence(
        "foreign code: nobody's tool",
        _FOREIGN,
        " and not (_made_for_this(home) and found.__module__ == module):\n",
        " and False:\n",
        "a file calls nothing that was not written to be called by it",
    ),
    Defence(
        "agreement: code in the digest",
        _AGREEMENT,
        "        if self.code:\n",
        "        if False:\n",
        "parties with other code, or other options of it, have other contexts",
    ),
    Defence(
        "reach: a peer's words are one printable line",
        _REACH,
        " if mark.isprintable() else ",
        " if True else ",
        "a terminal shows what it is told, and does nothing else",
    ),
    Defence(
        "rounds: no wait without end for some",
        _SUMS,
        "                if among is not None and now - began >= self.options.deadlines.advertise_s:\n",
        "                if False:\n",
        "one absent site of a drawn cohort does not stop a run",
    ),
    Defence(
        "rows: not while they are written",
        _WATCH,
        "        if self._now() != before:\n",
        "        if False:\n",
        "half a file is not taken for a whole one",
    ),
    Defence(
        "site: the words of a learner are its own log's",
        _SITE,
        '        self.trouble = said.removeprefix(f"{self.name}: ")\n',
        '        self.trouble = with_cause(said.removeprefix(f"{self.name}: "), error)\n',
        "nobody else reads what a learner quotes of the rows",
    ),
)
