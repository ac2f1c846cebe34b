"""The training layer: models become quantized updates, sums become better models.

`fedcore.sklearn_learner` has a learner by scikit-learn; `fedcore.serve`, `fedcore.join` and
`fedcore.demo` run training between processes.
"""

from fedcore.aggregation import FloatSum, GroupSum, PlainSum, SecureSum, SumAggregator
from fedcore.asks import Asks, UpdateKind, Weighting
from fedcore.checkpoint import Checkpoint
from fedcore.clipping import AdaptiveClip, FixedClip
from fedcore.codec import Codec, WeightedMean
from fedcore.errors import CodecError, DataError, FedcoreError, OutOfBoundsError, TaskError
from fedcore.history import History, read_history
from fedcore.learner import Learner, Metrics, Parameters, flatten, unflatten
from fedcore.plan import TrainingPlan
from fedcore.private_rounds import PrivacyGuard, PrivacyPlan
from fedcore.queries import Analyst
from fedcore.schema import Column, Schema
from fedcore.site import Site
from fedcore.statistics import Standardizer
from fedcore.stopping import Stopping
from fedcore.strategies import FedAvg, Strategy
from fedcore.summation import RoundRecord
from fedcore.tables import Table, dump_table, join_tables, load_table
from fedcore.task import Task, TaskKind
from fedcore.training import Federation, TrainedModel

__all__ = [
    "AdaptiveClip",
    "Analyst",
    "Asks",
    "Checkpoint",
    "Codec",
    "CodecError",
    "Column",
    "DataError",
    "FedAvg",
    "FedcoreError",
    "Federation",
    "FixedClip",
    "FloatSum",
    "GroupSum",
    "History",
    "Learner",
    "Metrics",
    "OutOfBoundsError",
    "Parameters",
    "PlainSum",
    "PrivacyGuard",
    "PrivacyPlan",
    "RoundRecord",
    "Schema",
    "SecureSum",
    "Site",
    "Standardizer",
    "Stopping",
    "Strategy",
    "SumAggregator",
    "Table",
    "Task",
    "TaskError",
    "TaskKind",
    "TrainedModel",
    "TrainingPlan",
    "UpdateKind",
    "WeightedMean",
    "Weighting",
    "dump_table",
    "flatten",
    "join_tables",
    "load_table",
    "read_history",
    "unflatten",
]
