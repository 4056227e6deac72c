"""The description of the HTTP interface as a plain page; it needs no script and no other server."""

from collections.abc import Mapping
from html import escape
from typing import Any

EXAMPLES = """curl {header}-F file=@clip.mp4 {address}/predict
curl {header}-F file=@clip.wav -F text="what was said" {address}/predict
curl {header}-H "Content-Type: application/json" -d '{{"text": "I am so glad"}}' {address}/predict"""

TOKEN = '-H "Authorization: Bearer $TOKEN" '
"""What is shown where the server asks for its token, which is never shown itself."""


def handbook(openapi: Mapping[str, Any], address: str, *, has_token: bool) -> str:
    """HTML of an OpenAPI description.

    Args:
        openapi: the description.
        address: of the server as its visitor reaches it, without a slash at the end.
        has_token: whether it asks for a token.
    """
    examples = EXAMPLES.format(header=TOKEN if has_token else "", address=address)
    calls = "".join(
        _call(method, path, facts)
        for path, methods in openapi["paths"].items()
        for method, facts in methods.items()
    )
    schemas = "".join(
        _schema(name, facts) for name, facts in openapi["components"]["schemas"].items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>affuse: HTTP interface</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/page.css"></head>
<body class="plain"><header><a class="brand" href="/">affuse</a></header><main>
<h1>HTTP interface</h1>
<p>Numbers are numbers; what cannot be answered is an HTTP error with a sentence in <code>error</code>.
The same as a machine reads it: <a href="/openapi.json">openapi.json</a>.</p>
<h2>Examples</h2><pre>{escape(examples, quote=False)}</pre>
<h2>Calls</h2>{calls}<h2>Answers</h2>{schemas}</main></body></html>"""


def _call(method: str, path: str, facts: Mapping[str, Any]) -> str:
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer.get('description', ''))}</td></tr>"
        for status, answer in facts["responses"].items()
    )
    body = facts.get("requestBody", {}).get("description", "")
    return (
        f'<section class="card"><h3><code>{method.upper()} {escape(path)}</code></h3>'
        f"<p>{escape(facts.get('description', ''))}</p>"
        + (f"<p>Body: {escape(body)}</p>" if body else "")
        + f"<table><tr><th>Status</th><th>Meaning</th></tr>{answers}</table></section>"
    )


def _schema(name: str, facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code></td><td>{escape(_type(field))}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for key, field in facts.get("properties", {}).items()
    )
    return (
        f'<section class="card"><h3>{escape(name)}</h3><p>{escape(facts.get("description", ""))}</p>'
        f"<table><tr><th>Field</th><th>Type</th><th></th></tr>{rows}</table></section>"
    )


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[1]
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field and isinstance(field["additionalProperties"], dict):
        return f"name to {_type(field['additionalProperties'])}"
    return str(field.get("type", "anything"))
