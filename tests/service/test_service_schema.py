"""What openapi.json says of requests and answers is what the service does."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from service_helpers import encode, make_pair, make_predictor

from efnet.service.app import create_app


def allows(rule: dict[str, Any], fields: set[str]) -> bool:
    """Whether a JSON schema of these few words allows an object with these fields."""
    assert set(rule) <= {"type", "properties", "oneOf", "required", "additionalProperties"}
    return (
        set(rule.get("required", ())) <= fields
        and (rule.get("additionalProperties", True) or fields <= set(rule["properties"]))
        and ("oneOf" not in rule or sum(allows(choice, fields) for choice in rule["oneOf"]) == 1)
    )


@pytest.mark.parametrize("modality", ["rgbt", "rgb", "thermal"])
def test_every_set_of_images_is_taken_or_refused_as_the_schema_says(modality: str) -> None:
    rgb, thermal = make_pair()
    files = {"rgb": encode(rgb), "thermal": encode(thermal), "rgbt": encode(np.dstack([rgb, thermal]))}
    files["other"] = files["rgb"]
    with TestClient(create_app(make_predictor(modality))) as client:
        operation = client.get("/openapi.json").json()["paths"]["/v1/segment"]["post"]
        schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        for count in (1, 2, 3, 4):
            for names in itertools.combinations(files, count):
                sent = {name: (name, files[name]) for name in names}
                status = client.post("/v1/segment", files=sent).status_code
                assert status == (200 if allows(schema, set(names)) else 400), names


def test_examples_answer_as_the_schema_says(client: TestClient) -> None:
    """Any status of ours is documented, and FastAPI's 422, which never comes, is not."""
    path = "/v1/examples/{name}/{image}.{suffix}"
    operation = client.get("/openapi.json").json()["paths"][path]["get"]
    assert set(operation["responses"]) == {"200", "4XX"}
    listed = {item["name"]: item["schema"]["enum"] for item in operation["parameters"]}
    assert listed["name"] == [example["name"] for example in client.get("/v1/examples").json()]
    statuses = {
        client.get(path.format(name="day", image=image, suffix=suffix)).status_code
        for image, suffix in itertools.product([*listed["image"], "none"], [*listed["suffix"], "gif"])
    }
    assert statuses == {200, 400, 404}
    assert client.get(path.format(name="none", image="rgb", suffix="png")).status_code == 404
