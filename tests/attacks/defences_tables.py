"""Defences of rows and models: nothing is lost or guessed in silence, and no file of another acts here."""

from __future__ import annotations

from tests.attacks.defence import Defence

_READING = "fedcore.data.reading"
_FILES = "fedcore.data.files"
_KINDS = "fedcore.learners.kinds"
_PREDICTION = "fedcore.evaluation.prediction"
_STANDARDIZER = "fedcore.statistics.standardizer"

DEFENCES = (
    Defence(
        "tables: a row with a fault is in no table",
        _READING,
        "        self._out[where] = True\n",
        "",
        "what is wrong is not read all the same",
    ),
    Defence(
        "tables: missing values have a rule",
        _READING,
        "                self._fault(np.flatnonzero(gaps), one.name, ",
        "                self._fault(np.flatnonzero(gaps)[:0], one.name, ",
        "a gap without a rule is a fault",
    ),
    Defence(
        "tables: left out rows are counted",
        _READING,
        "            self._dropped[column] = self._dropped.get(column, 0) + count\n",
        "            pass\n",
        "no row is left out in silence",
    ),
    Defence(
        "tables: what is cut is counted",
        _READING,
        '                self._changed["clipped"][one.name] = beyond\n',
        "",
        "no value is moved in silence",
    ),
    Defence(
        "tables: missing ids",
        _READING,
        "        self._fault(np.flatnonzero(gaps), name, ",
        "        self._fault(np.flatnonzero(gaps)[:0], name, ",
        "rows of nobody known are not one person's",
    ),
    Defence(
        "tables: swallowed rows",
        _FILES,
        "            if self._reader.line_num > self.line and self._swallows(record):\n",
        "            if False:\n",
        "a stray quote does not take rows with it",
    ),
    Defence(
        "tables: a matrix is of numbers",
        _FILES,
        "    if not all(isinstance(one, Number) for one in layout.columns) or layout.id is not None:\n",
        "    if False:\n",
        "numbers are not taken for positions of categories",
    ),
    Defence(
        "tables: groups of three digits",
        "fedcore.data.layout",
        'whole = rf"(?:\\d{{1,3}}(?:{re.escape(self.thousands)}\\d{{3}})+|\\d+)"',
        'whole = rf"[\\d{re.escape(self.thousands)}]+"',
        "a decimal comma is no mark of thousands",
    ),
    Defence(
        "tables: the label is no feature",
        "fedcore.data.schema",
        "        if label in [column.name for column in self.columns]:\n",
        "        if False:\n",
        "nobody learns the label from itself",
    ),
    Defence(
        "tables: rows of an API fit the schema",
        "fedcore.rounds.site",
        "                self.schema.check_table(rows, what)\n",
        "                pass\n",
        "a value out of bounds moves no mean",
    ),
    Defence(
        "tables: persons are one for each row",
        "fedcore.data.table",
        "            self.persons.shape != (len(self.labels),) or (self.persons < 0).any()\n",
        "            False\n",
        "no row is left out of a gradient by its id",
    ),
    Defence(
        "tables: a person stays on one side",
        "fedcore.data.dataset",
        "        chosen = np.isin(table.persons, table.persons[chosen])\n",
        "        pass\n",
        "nobody is both trained on and held out",
    ),
    Defence(
        "tables: rows of a person are clipped together",
        "fedcore.learners.per_person",
        "        persons = np.arange(len(rows)) if given is None else np.asarray(given)\n",
        "        persons = np.arange(len(rows))\n",
        "a person with many rows is bounded like one with one",
    ),
    Defence(
        "tables: the mean is of the values that are there",
        _STANDARDIZER,
        "        means[schema.filled] /= shares\n",
        "",
        "gaps do not pull a mean to the lower bound",
    ),
    Defence(
        "tables: a column that no sum can resolve",
        _STANDARDIZER,
        "    _refuse_flat(schema, spread, math.sqrt(least))\n",
        "",
        "bounds that are too wide switch no column off in silence",
    ),
    Defence(
        "rounds: rows that would vanish",
        "fedcore.rounds.federation",
        "            self._refuse_vanishing(task.encoding)\n",
        "            pass\n",
        "a cap under which all rows weigh less than a step is refused",
    ),
    Defence(
        "rounds: metrics that sums cannot tell",
        "fedcore.evaluation.federated",
        "_CLEAR = 20.0\n",
        "_CLEAR = 0.0\n",
        "no metric is made of rounding",
    ),
    Defence(
        "models: no module of a file is imported",
        _KINDS,
        '    require(kind in KINDS, "learner.kind", f"one of {\', \'.join(KINDS)}, or give',
        '    require(True, "learner.kind", f"one of {\', \'.join(KINDS)}, or give',
        "a model's file names no code",
    ),
    Defence(
        "models: sizes before anything is made",
        _KINDS,
        "    fits = isinstance(hidden, list) and all(",
        "    fits = isinstance(hidden, list) or all(",
        "a model's file takes no memory that it does not bring",
    ),
    Defence(
        "models: numbers of a file",
        _PREDICTION,
        "        if fault := model.fault(schema):\n",
        '        if fault := "":\n',
        "what is no number predicts nothing",
    ),
    Defence(
        "models: rows of whoever predicts",
        _PREDICTION,
        '        self.schema.check(table.features, "rows")\n',
        "",
        "a gap without a rule is not filled in silence",
    ),
    Defence(
        "models: the last word of a server",
        "fedcore.service.join",
        "    if fault := model.fault(run.schema):\n",
        '    if fault := "":\n',
        "a server ends no site with what is no model",
    ),
    Defence(
        "runs: one server in a folder",
        "fedcore.service.recorder",
        '        self._lock = FileLock(out / ".lock")\n',
        '        self._lock = FileLock(out / f".lock{time.monotonic_ns()}")\n',
        "two servers do not go on with one run",
    ),
    Defence(
        "runs: one party at a time in a registry",
        "secagg.registry.names",
        "        lock = held(path)\n",
        '        lock = FileLock(path.with_name(f".{path.name}.{time.monotonic_ns()}.lock"))\n',
        "who enrols at the same time is enrolled",
    ),
)
