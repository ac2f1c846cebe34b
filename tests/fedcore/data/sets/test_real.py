"""The real sets: found by SECAGG_DATA, of the shapes their README states, within bounds set beforehand."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedcore.data import (
    CONLL_TAGS,
    HOSPITALS,
    breast_hetero,
    breast_homo,
    conll2003,
    data_folder,
    describe,
    digits,
    heart_disease,
    mnist_writers,
)
from fedcore.data.table import join_tables
from fedcore.errors import DataError

SOURCE = Path(os.environ.get("SECAGG_DATA", "/nowhere"))


def needs(folder: str) -> pytest.MarkDecorator:
    there = "SECAGG_DATA" in os.environ and (SOURCE / folder).is_dir()
    return pytest.mark.skipif(not there, reason=f"SECAGG_DATA does not name a folder with {folder}")


def test_the_folder_is_named_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    for load in (heart_disease, mnist_writers, breast_homo, breast_hetero, conll2003):
        with pytest.raises(DataError, match=str(tmp_path)):  # the file that is missing is named
            load()
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path / "missing"))
    with pytest.raises(DataError, match="SECAGG_DATA: must name a folder, .*missing is none"):
        data_folder()
    monkeypatch.delenv("SECAGG_DATA")
    with pytest.raises(DataError, match="SECAGG_DATA: must name the folder .*is not set"):
        data_folder()


@needs("heart_disease")
def test_heart_disease_is_flambys_split() -> None:
    data = heart_disease()
    assert [len(data.train[name]) for name in HOSPITALS] == [199, 172, 30, 85]
    assert [len(data.test[name]) for name in HOSPITALS] == [104, 89, 16, 45]
    assert list(data.train) == list(data.test) == list(HOSPITALS)
    assert len(data.schema.columns) == 13
    train = join_tables(list(data.train.values()))
    assert train.features.shape == (486, 13)
    data.schema.check(train.features, "train")
    data.schema.check(join_tables(list(data.test.values())).features, "test")
    chol = [column.name for column in data.schema.columns].index("chol")
    assert not data.train["switzerland"].features[:, chol].any()
    assert data.train["switzerland"].labels.all()
    assert (train.features[:, -5:].sum(axis=0) > 0).all()  # no level of a one-hot column is unused


@needs("heart_disease")
def test_heart_disease_repeats_the_accuracy_of_its_readme() -> None:
    from sklearn.linear_model import LogisticRegression

    data = heart_disease()
    train = join_tables(list(data.train.values()))
    mean, deviation = train.features.mean(axis=0), train.features.std(axis=0, ddof=1) + 1e-9
    model = LogisticRegression(C=1.0).fit((train.features - mean) / deviation, train.labels)
    hits = [
        model.predict((table.features - mean) / deviation) == table.labels for table in data.test.values()
    ]
    assert round(float(np.mean([hit.mean() for hit in hits])), 4) == 0.8028
    assert round(float(np.concatenate(hits).mean()), 4) == 0.7953


@needs("heart_disease")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cleveland,1,train,0", "cleveland,1,train,1", "row 1, column label"),
        ("cleveland,1,train,0", "cleveland,9999,train,0", "row 1: does not fit"),
        ("cleveland,1,train,0", "basel,1,train,0", "row 1: does not fit"),
        ("cleveland,1,train,0", "cleveland,1,train", "row 1: has another number of fields"),
        ("cleveland,1,train,0", "cleveland,1,dev,0", "training and test rows of all hospitals"),
        ("center,line,set,label", "center,line,set,answer", "column label is missing"),
        ("switzerland,", "cleveland,", "does not fit|column label|of all hospitals"),
    ],
)
def test_a_split_that_does_not_fit_the_hospitals_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    shutil.copytree(SOURCE / "heart_disease", tmp_path / "heart_disease")
    path = tmp_path / "heart_disease" / "flamby_split.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"flamby_split\.csv.*({message})"):
        heart_disease()


@needs("heart_disease")
def test_a_patient_outside_the_bounds_or_with_a_missing_value_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SOURCE / "heart_disease", tmp_path / "heart_disease")
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    path = tmp_path / "heart_disease" / "processed.cleveland.data"
    text = path.read_text(encoding="utf-8")
    for age, message in (
        ("630", "cleveland, training rows, row 1, column age"),
        ("?", "row 1: does not fit"),
    ):
        path.write_text(age + text[text.index(",") :], encoding="utf-8")
        with pytest.raises(DataError, match=message):
            heart_disease()


@needs("mnist_writers")
def test_mnist_has_297_writers_and_the_stated_split() -> None:
    data = mnist_writers()
    assert data.images.shape == (10000, 784)
    assert (data.images.min(), data.images.max()) == (0.0, 1.0)
    assert (len(data.train), len(data.test)) == (8122, 1878)
    assert len(data.train_by_writer.parts) == len(data.test_by_writer.parts) == 297
    assert set(data.train_by_writer.parts) == {str(writer) for writer in data.writers.tolist()}
    assert (data.train_by_writer.rows, data.test_by_writer.rows) == (8122, 1878)
    data.schema.check(data.train.features, "train")
    _, sizes = np.unique(data.writers, return_counts=True)
    assert [int(sizes.min()), int(sizes.max()), float(np.median(sizes))] == [8, 130, 21]
    assert int((sizes > 40).sum()) == 46
    writer = int(data.writers[0])
    rows = np.flatnonzero(data.writers == writer)
    kept = -(-4 * len(rows) // 5)
    parts = (data.train_by_writer.tables(data.train), data.test_by_writer.tables(data.test))
    for part, wanted in zip(parts, (rows[:kept], rows[kept:]), strict=True):
        assert np.array_equal(part[str(writer)].features, data.images[wanted])
        assert np.array_equal(part[str(writer)].labels, data.labels[wanted])
    found = describe(data.train.labels, None, data.train_by_writer, 10)
    assert found.clients == 297
    assert found.variation_mean > 0.15


@needs("mnist_writers")
def test_digits_that_do_not_fit_their_list_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SOURCE / "mnist_writers", tmp_path / "mnist_writers")
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    labels = tmp_path / "mnist_writers" / "t10k-labels-idx1-ubyte.gz"
    packed = labels.read_bytes()
    content = bytearray(gzip.decompress(packed))
    content[8] ^= 1
    labels.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match=r"t10k-writers\.csv: must list the 10000 digits"):
        mnist_writers()
    labels.write_bytes(gzip.compress(bytes(content[:-1])))
    with pytest.raises(DataError, match=r"t10k-labels.*must be an IDX file of bytes, shape \(10000,\)"):
        mnist_writers()
    labels.write_bytes(packed[:-20])
    with pytest.raises(DataError, match="t10k-labels"):
        mnist_writers()


@needs("fate")
def test_breast_cancer_between_parties_of_equal_columns() -> None:
    data = breast_homo()
    shapes = [table.features.shape for table in (data.guest, data.host, data.test)]
    assert shapes == [(227, 30), (228, 30), (114, 30)]
    whole = join_tables([data.guest, data.host, data.test])
    assert whole.labels.sum() == 357
    data.schema.check(whole.features, "breast_homo")
    assert len(np.unique(whole.features, axis=0)) == 569


@needs("fate")
def test_breast_cancer_between_parties_of_equal_patients() -> None:
    data = breast_hetero()
    assert data.guest.features.shape == (569, 10)
    assert data.guest.labels.sum() == 357
    assert data.host.shape == (569, 20)
    assert data.guest_ids == data.host_ids
    assert data.guest_ids[:2] == ("133", "273")
    assert len(set(data.guest_ids)) == 569
    assert [len(data.guest_schema.columns), len(data.host_columns)] == [10, 20]


@needs("conll2003")
def test_conll_has_the_stated_documents_sentences_words_and_tags() -> None:
    data = conll2003()
    counts = [
        (
            len(part),
            sum(len(document) for document in part),
            sum(len(sentence) for document in part for sentence in document),
        )
        for part in (data.train, data.testa, data.testb)
    ]
    assert counts == [(946, 14041, 203621), (216, 3250, 51362), (231, 3453, 46435)]
    tags = Counter(
        CONLL_TAGS[label] for story in data.testb for sentence in story for label in sentence.labels
    )
    supports = [38323, 1668, 257, 702, 216, 1661, 835, 1617, 1156]
    assert [tags[tag] for tag in CONLL_TAGS] == supports
    first = data.train[0][0]
    assert first.words[:4] == ("EU", "rejects", "German", "call")
    assert first.pos[:2] == ("NNP", "VBZ")
    assert [CONLL_TAGS[label] for label in first.labels[:3]] == ["B-ORG", "O", "B-MISC"]
    for part in (data.train, data.testa, data.testb):
        for sentence in (sentence for document in part for sentence in document):
            assert len(sentence.words) == len(sentence.pos) == len(sentence.labels) > 0


STORY = "-DOCSTART- -X- -X- O\n\nOne CD I-NP O\n\nTwo CD I-NP B-PER\nmen NN I-NP I-PER"


def news(folder: Path, text: str) -> None:
    (folder / "conll2003").mkdir(exist_ok=True)
    for part in ("train", "testa", "testb"):
        (folder / "conll2003" / f"{part}.iob2.txt.gz").write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize("text", [STORY, STORY + "\n", STORY + "\n\n", STORY.split("\n\n", 1)[1]])
def test_stories_are_read_whatever_line_opens_or_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    news(tmp_path, text)
    (story,) = conll2003().testa
    assert [sentence.words for sentence in story] == [("One",), ("Two", "men")]
    assert [sentence.labels for sentence in story] == [(0,), (7, 8)]


@pytest.mark.parametrize("line", ["One CD O", "One CD I-NP B-CAT", "One CD I-NP O O"])
def test_a_line_that_is_no_tagged_word_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    news(tmp_path, f"{STORY}\n{line}")
    with pytest.raises(DataError, match=r"train\.iob2\.txt\.gz, line 7: must be word, POS, chunk"):
        conll2003()


def test_digits_need_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECAGG_DATA", raising=False)
    data = digits()
    assert data.table.features.shape == (1797, 64)
    data.schema.check(data.table.features, "digits")


@pytest.mark.process
def test_the_package_loads_without_heavy_extras() -> None:
    names = "sklearn pyarrow torch jax matplotlib"
    code = f"import fedcore.data, sys; print([name for name in '{names}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
