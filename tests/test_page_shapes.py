"""The page's types for API responses are generated from the server's documents."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from server.api.openapi import openapi
from tests.browser import require

WEB = Path(__file__).parent.parent / "web"
GENERATOR = WEB / "node_modules" / "json-schema-to-typescript"
GENERATOR_TIMEOUT_S = 120


def generated(document: dict[str, Any]) -> str:
    """What `npm run shapes` writes for this openapi.json."""
    require(
        shutil.which("node") is not None and GENERATOR.is_dir(),
        "the generator is not installed: run `npm ci` in web/",
    )
    return subprocess.run(
        ["node", "shapes.js"],
        cwd=WEB,
        input=json.dumps(document),
        check=True,
        capture_output=True,
        text=True,
        timeout=GENERATOR_TIMEOUT_S,
    ).stdout


def test_the_committed_types_are_current() -> None:
    committed = (WEB / "src" / "state" / "api_types.ts").read_text()

    assert committed == generated(openapi()), "the API has changed: run `npm run shapes` in web/"


def test_a_renamed_field_changes_the_types() -> None:
    document = json.loads(json.dumps(openapi()))
    message = document["components"]["schemas"]["Message"]
    message["properties"]["body"] = message["properties"].pop("text")

    assert generated(document) != generated(openapi())
