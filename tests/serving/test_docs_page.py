"""The page for people who read the API in a browser."""

from amiss_serving.docs_page import docs_page

OPENAPI = {
    "info": {"title": "T<", "version": "1", "description": "d"},
    "paths": {
        "/a/{name}": {
            "get": {
                "summary": "s <script>",
                "parameters": [{"name": "name", "in": "path", "schema": {"type": "string"}}],
                "responses": {
                    "200": {
                        "description": "ok",
                        "content": {"j": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                    }
                },
            }
        }
    },
    "components": {
        "schemas": {
            "Thing": {"properties": {"many": {"type": "array", "items": {"type": "string"}}}}
        }
    },
}


def test_every_path_and_message_is_on_the_page_escaped() -> None:
    """Path, method, summary, linked answer and message fields are there; markup is text."""
    page = docs_page(OPENAPI)
    assert "<h2>GET /a/{name}</h2>" in page
    assert "s &lt;script&gt;" in page
    assert '<a href="#Thing">Thing</a>' in page
    assert "list of string" in page
    assert "<script" not in page
