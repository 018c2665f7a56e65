"""The page /docs: the OpenAPI document as plain HTML, with nothing fetched from elsewhere."""

from collections.abc import Sequence
from html import escape
from typing import Any

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; font: 600 1.1rem ui-monospace, monospace }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { border: 1px solid #ccc; padding: .2rem .6rem; text-align: left; vertical-align: top }
code { background: #f2f2f2; padding: 0 .2rem }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #e6e6e6 }
  code { background: #2a2a2a }
  td, th, h2 { border-color: #444 }
  a { color: #8ab4f8 }
}
"""


def docs_page(openapi: dict[str, Any]) -> str:
    """The document as one HTML page: every path, its parameters, its bodies, then the schemas."""
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    operations = [
        _operation(method, path, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    messages = [_message(name, schema) for name, schema in openapi["components"]["schemas"].items()]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>{escape(openapi['info'].get('description', ''))}</p>"
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p>'
        f"{''.join(operations)}<h1>Messages</h1>{''.join(messages)}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (
            p["name"],
            p["in"],
            _type(p["schema"]) + ("" if p.get("required") else ", optional"),
            escape(p.get("description", "")),
        )
        for p in operation.get("parameters", [])
    ]
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(("body", kind, _type(body["schema"]), escape(body.get("example", ""))))
    answers = [
        (status, escape(answer["description"]), _type(body["schema"]))
        for status, answer in operation["responses"].items()
        for body in answer.get("content", {"": {"schema": {}}}).values()
    ]
    return (
        f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(operation.get('summary', ''))}</p>"
        f"{_table(('parameter', 'in', 'type', ''), rows)}"
        f"{_table(('status', 'meaning', 'answer'), answers)}"
    )


def _message(name: str, schema: dict[str, Any]) -> str:
    rows = [
        (field, _type(kind), escape(kind.get("description", "")))
        for field, kind in schema.get("properties", {}).items()
    ]
    return (
        f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{escape(schema.get("description", ""))}</p>'
        f"{_table(('field', 'type', 'meaning'), rows)}"
    )


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, as HTML, linked to the message it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and "properties" in schema:
        return ", ".join(
            f"{escape(field)}: {_type(kind)}" for field, kind in schema["properties"].items()
        )
    return escape(str(schema.get("type", "any")))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}' for cell in head)}{body}</table>"
