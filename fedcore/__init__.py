"""The training layer: models become quantized updates, sums become better models.

![A run: sites compute, secagg sums, the server steps](run.svg)

`fedcore.learners.sklearn_epochs` has a learner by scikit-learn; `fedcore.service` and `fedcore.demo` run
training between processes.
"""

from typing import TYPE_CHECKING

from secagg.lazy import attributes

if TYPE_CHECKING:
    from fedcore.codec.clipping import AdaptiveClip
    from fedcore.codec.codec import Codec, WeightedMean
    from fedcore.codec.mean import ImpreciseWarning, Mean, MeanResult
    from fedcore.data.files import read_table, write_table
    from fedcore.data.schema import Column, Schema
    from fedcore.data.table import Table, join_tables
    from fedcore.errors import CodecError, DataError, FedcoreError, OutOfBoundsError, SettingError, TaskError
    from fedcore.history import History, read_history
    from fedcore.learner import Learner, Metrics, Parameters, flatten, unflatten
    from fedcore.privacy.guard import PrivacyGuard
    from fedcore.privacy.plan import PrivacyPlan
    from fedcore.rounds.aggregation import FloatSum, GroupSum, PlainSum, SecureSum, SumAggregator
    from fedcore.rounds.attempts import RoundRecord
    from fedcore.rounds.federation import Federation
    from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
    from fedcore.rounds.plan import TrainingPlan
    from fedcore.rounds.questions import TaskKind
    from fedcore.rounds.site import Site
    from fedcore.rounds.state import RunState
    from fedcore.rounds.stopping import Stopping
    from fedcore.rounds.task import Task
    from fedcore.statistics.analyst import Analyst
    from fedcore.statistics.standardizer import Standardizer
    from fedcore.strategies import FedAvg, Strategy

__all__ = [
    "AdaptiveClip",
    "Analyst",
    "Asks",
    "Codec",
    "CodecError",
    "Column",
    "DataError",
    "FedAvg",
    "FedcoreError",
    "Federation",
    "FloatSum",
    "GroupSum",
    "History",
    "ImpreciseWarning",
    "Learner",
    "Mean",
    "MeanResult",
    "Metrics",
    "OutOfBoundsError",
    "Parameters",
    "PlainSum",
    "PrivacyGuard",
    "PrivacyPlan",
    "RoundRecord",
    "RunState",
    "Schema",
    "SecureSum",
    "SettingError",
    "Site",
    "Standardizer",
    "Stopping",
    "Strategy",
    "SumAggregator",
    "Table",
    "Task",
    "TaskError",
    "TaskKind",
    "TrainingPlan",
    "UpdateKind",
    "WeightedMean",
    "Weighting",
    "flatten",
    "join_tables",
    "read_history",
    "read_table",
    "unflatten",
    "write_table",
]

__getattr__ = attributes(
    __name__,
    {
        "AdaptiveClip": "codec.clipping",
        "Analyst": "statistics.analyst",
        "Asks": "rounds.instructions",
        "Codec": "codec.codec",
        "CodecError": "errors",
        "Column": "data.schema",
        "DataError": "errors",
        "FedAvg": "strategies",
        "FedcoreError": "errors",
        "Federation": "rounds.federation",
        "FloatSum": "rounds.aggregation",
        "GroupSum": "rounds.aggregation",
        "History": "history",
        "ImpreciseWarning": "codec.mean",
        "Learner": "learner",
        "Mean": "codec.mean",
        "MeanResult": "codec.mean",
        "Metrics": "learner",
        "OutOfBoundsError": "errors",
        "Parameters": "learner",
        "PlainSum": "rounds.aggregation",
        "PrivacyGuard": "privacy.guard",
        "PrivacyPlan": "privacy.plan",
        "RoundRecord": "rounds.attempts",
        "RunState": "rounds.state",
        "Schema": "data.schema",
        "SecureSum": "rounds.aggregation",
        "SettingError": "errors",
        "Site": "rounds.site",
        "Standardizer": "statistics.standardizer",
        "Stopping": "rounds.stopping",
        "Strategy": "strategies",
        "SumAggregator": "rounds.aggregation",
        "Table": "data.table",
        "Task": "rounds.task",
        "TaskError": "errors",
        "TaskKind": "rounds.questions",
        "TrainingPlan": "rounds.plan",
        "UpdateKind": "rounds.instructions",
        "WeightedMean": "codec.codec",
        "Weighting": "rounds.instructions",
        "flatten": "learner",
        "join_tables": "data.table",
        "read_history": "history",
        "read_table": "data.files",
        "unflatten": "learner",
        "write_table": "data.files",
    },
)
