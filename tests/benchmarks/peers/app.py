"""The hand-written API: FastAPI, a status key in Redis, `actor.send()`."""

from __future__ import annotations

import json
import uuid
from typing import Any

from fastapi import FastAPI, HTTPException
from on_dramatiq_full import handle
from records import accept, key, store

app = FastAPI()


@app.post("/work")
def submit(payload: dict[str, Any]) -> dict[str, Any]:
    request_id = str(uuid.uuid4())
    accept(request_id, json.dumps(payload))
    handle.send(request_id)
    return {"id": request_id}


@app.get("/work/{request_id}")
def look_up(request_id: str) -> dict[str, Any]:
    status, result = store.hmget(key(request_id), "status", "result")
    if status is None:
        raise HTTPException(404, f"id {request_id} not found")
    answer = {"id": request_id, "status": status.decode()}
    if result is not None:
        answer["result"] = json.loads(result)
    return answer
