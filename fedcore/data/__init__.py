"""Data for federations: partitions of rows and columns, their measures, files, and real sets."""

from typing import TYPE_CHECKING

from secagg.lazy import attributes

if TYPE_CHECKING:
    from fedcore.data.dataset import Dataset, hold_out
    from fedcore.data.files import read_folder, read_table, write_table
    from fedcore.data.heterogeneity import Heterogeneity, describe
    from fedcore.data.partition import (
        Partition,
        dirichlet,
        dirichlet_balanced,
        feature,
        iid,
        natural,
        quantity,
        shards,
        uneven,
    )
    from fedcore.data.sets.bundled import breast_cancer, digits
    from fedcore.data.sets.conll import CONLL_TAGS, Conll2003, Document, Sentence, conll2003
    from fedcore.data.sets.folder import data_folder
    from fedcore.data.sets.heart import HOSPITALS, HeartDisease, heart_disease
    from fedcore.data.sets.real import (
        BreastHetero,
        BreastHomo,
        MnistWriters,
        breast_hetero,
        breast_homo,
        mnist_writers,
    )
    from fedcore.data.sets.registry import SETS, load_set
    from fedcore.data.vertical import ColumnPartition, columns

__all__ = [
    "CONLL_TAGS",
    "HOSPITALS",
    "SETS",
    "BreastHetero",
    "BreastHomo",
    "ColumnPartition",
    "Conll2003",
    "Dataset",
    "Document",
    "HeartDisease",
    "Heterogeneity",
    "MnistWriters",
    "Partition",
    "Sentence",
    "breast_cancer",
    "breast_hetero",
    "breast_homo",
    "columns",
    "conll2003",
    "data_folder",
    "describe",
    "digits",
    "dirichlet",
    "dirichlet_balanced",
    "feature",
    "heart_disease",
    "hold_out",
    "iid",
    "load_set",
    "mnist_writers",
    "natural",
    "quantity",
    "read_folder",
    "read_table",
    "shards",
    "uneven",
    "write_table",
]

__getattr__ = attributes(
    __name__,
    {
        "BreastHetero": "sets.real",
        "BreastHomo": "sets.real",
        "CONLL_TAGS": "sets.conll",
        "ColumnPartition": "vertical",
        "Conll2003": "sets.conll",
        "Dataset": "dataset",
        "Document": "sets.conll",
        "HOSPITALS": "sets.heart",
        "HeartDisease": "sets.heart",
        "Heterogeneity": "heterogeneity",
        "MnistWriters": "sets.real",
        "Partition": "partition",
        "SETS": "sets.registry",
        "Sentence": "sets.conll",
        "breast_cancer": "sets.bundled",
        "breast_hetero": "sets.real",
        "breast_homo": "sets.real",
        "columns": "vertical",
        "conll2003": "sets.conll",
        "data_folder": "sets.folder",
        "describe": "heterogeneity",
        "digits": "sets.bundled",
        "dirichlet": "partition",
        "dirichlet_balanced": "partition",
        "feature": "partition",
        "heart_disease": "sets.heart",
        "hold_out": "dataset",
        "iid": "partition",
        "load_set": "sets.registry",
        "mnist_writers": "sets.real",
        "natural": "partition",
        "quantity": "partition",
        "read_folder": "files",
        "read_table": "files",
        "shards": "partition",
        "uneven": "partition",
        "write_table": "files",
    },
)
