"""The example behind HTTP answers what the model's file says, and names what is wrong with a row."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedcore.evaluation.prediction import Predictor
from fedcore.rounds.model import save_model
from tests.fedcore.evaluation.test_prediction import DAYS, KINDS, TWO, model_of

ROWS: list[dict[str, Any]] = [{"age": 40, "ward": "a"}, {"age": None, "ward": "c"}]


def post(path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> httpx.Response:
    monkeypatch.setenv("MODEL", str(path))
    serving = importlib.import_module("fedcore.examples.serving")
    transport = httpx.ASGITransport(importlib.reload(serving).app)

    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.post("/predict", json=rows)

    return asyncio.run(go())


def test_rows_are_predicted_as_the_models_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, model_of({"kind": "softmax"}, TWO))
    predictor, answer = Predictor.load(path), post(path, ROWS, monkeypatch)
    found = predictor.predict(predictor.read_records(ROWS).complete())
    assert answer.status_code == 200
    assert answer.json() == [found.said(0), found.said(1)]
    assert sum(answer.json()[0]["probabilities"].values()) == pytest.approx(1)
    refused = post(path, [{"age": 400, "ward": "a"}], monkeypatch)
    assert refused.status_code == 422
    assert "column age" in refused.json()["detail"]


def test_numbers_are_predicted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, model_of(KINDS[-2][0], DAYS))
    (first, second) = post(path, ROWS, monkeypatch).json()
    assert first.keys() == second.keys() == {"prediction"}
    assert isinstance(first["prediction"], float)


def test_the_example_is_short() -> None:
    import fedcore.examples

    path = Path(fedcore.examples.__file__).with_name("serving.py")
    assert len(path.read_text(encoding="utf-8").splitlines()) < 30
