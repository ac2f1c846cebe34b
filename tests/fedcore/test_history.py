"""A run's record as JSON lines."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from pathlib import Path

import pytest

from fedcore.errors import DataError
from fedcore.history import History, read_history


def test_events_are_read_back_in_order_while_the_file_is_still_open(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    history = History(path)
    history.write("listening", address="127.0.0.1:1")
    (event,) = read_history(path)
    assert before <= dt.datetime.fromisoformat(event["at"]) <= dt.datetime.now(dt.UTC)
    assert event == {"event": "listening", "at": event["at"], "address": "127.0.0.1:1"}
    history.write("round", survivors=("a", "b"), completed=True, note="Zürich\nBern")
    history.close()
    assert list(read_history(path))[1] | {"at": ""} == {
        "event": "round",
        "at": "",
        "survivors": ["a", "b"],
        "completed": True,
        "note": "Zürich\nBern",
    }


def test_every_event_is_one_line_that_names_its_kind_first(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.write("round", completed=False, reason="two\nlines")
    history.close()
    (line,) = (tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert next(iter(json.loads(line))) == "event"


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_last_line_that_is_still_being_written_is_left_out(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.write("first")
    history.write("second", value=12345)
    history.close()
    path.write_bytes(path.read_bytes()[:-cut])
    assert [event["event"] for event in read_history(path)] == ["first"]


def test_a_second_run_appends(tmp_path: Path) -> None:
    for name in ("first", "second"):
        history = History(tmp_path / "history.jsonl")
        history.write(name)
        history.close()
    assert [event["event"] for event in read_history(tmp_path / "history.jsonl")] == ["first", "second"]


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").touch()
    assert list(read_history(tmp_path / "history.jsonl")) == []


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history._file.close()
    history._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(DataError, match=r"history\.jsonl: cannot be written: No space left on device"):
        history.write("first", text="x" * 100_000)
    with suppress(OSError):
        history.close()
