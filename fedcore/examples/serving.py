"""A model behind HTTP, by FastAPI: `MODEL=model.safetensors uvicorn fedcore.examples.serving:app`."""

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException

from fedcore.errors import DataError
from fedcore.evaluation.prediction import Predictor

app, predictor = FastAPI(), Predictor.load(Path(os.environ["MODEL"]))


@app.post("/predict")
def predict(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predict rows of values by column; the cure of what is wrong with one is in the answer."""
    try:
        found = predictor.predict(predictor.read_records(rows).complete())
    except DataError as error:
        raise HTTPException(422, str(error)) from error
    return [found.said(i) for i in range(len(found.rows))]
