"""The page that describes the HTTP interface, out of its OpenAPI document; nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas); --accent: #1261a8; }
@media (prefers-color-scheme: dark) { :root { --accent: #7db9f0; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1rem; margin: 2rem 0 0.25rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h2 b { color: var(--accent); }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid var(--line); border-radius: 6px; font-size: 0.875rem; }
table { border-collapse: collapse; font-size: 0.875rem; } td { padding: 0.15rem 1rem 0.15rem 0; vertical-align: top; }
a { color: var(--accent); }
"""
_EXAMPLES = {
    "/detect": "curl -F images=@anna.jpg -F images=@bob.png {address}detect",
    "/detect/json": "curl -H 'Content-Type: application/json' {address}detect/json \\\n"
    '  -d \'{{"images": [{{"name": "anna", "data": "\'$(base64 -w0 anna.jpg)\'", "boxes": null}}]}}\'',
    "/ready": "curl {address}ready",
}


def describe(document: Mapping[str, Any], address: str) -> str:
    """An HTML page.

    Args:
        document: The OpenAPI document.
        address: Of the service, with a slash at the end, for the examples.
    """
    info = document["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_text(info['description'])}</p>"]
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a>.</p>')
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><b>{method.upper()}</b> {escape(path)}</h2><p>{escape(operation['description'])}</p>")
            if path in _EXAMPLES:
                parts.append(f"<pre>{escape(_EXAMPLES[path].format(address=address))}</pre>")
            rows = "".join(
                f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td></tr>"
                for status, answer in sorted(operation["responses"].items())
            )
            parts.append(f"<table>{rows}</table>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(info["title"])}</title>'
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _text(text: str) -> str:
    """Text whose words in backticks are code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
