"""Blocks as Markdown, and as one HTML page that needs no other file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list, a table or a picture."""

    kind: str  # heading | text | list | table | picture
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = field(default=())


def markdown(content: Sequence[Block]) -> str:
    """The blocks as Markdown; pictures are links to the files beside it."""
    parts = []
    for index, block in enumerate(content):
        if block.kind == "heading":
            parts.append(f"{'#' if index == 0 else '##'} {block.text}")
        elif block.kind == "text":
            parts.append(block.text)
        elif block.kind == "list":
            parts.append("\n".join(f"- {row[0]}" for row in block.rows))
        elif block.kind == "picture":
            parts.append(f"![{block.text}]({block.text})")
        else:
            escaped = [[cell.replace("|", "\\|") for cell in row] for row in block.rows]
            lines = ["| " + " | ".join(row) + " |" for row in escaped]
            parts.append("\n".join([lines[0], "|" + "---|" * len(block.rows[0]), *lines[1:]]))
    return "\n\n".join(parts) + "\n"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Benchmark</title><style>
body {{ font: 15px/1.5 system-ui, "Noto Sans CJK JP", "Yu Gothic", sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; margin: 1em 0 }}
td, th {{ border: 1px solid #ccc; padding: .2em .5em; text-align: left; white-space: nowrap }}
th {{ background: #f3f3f3 }} img {{ max-width: 100% }}
</style></head><body>
{body}
</body></html>
"""


def page(content: Sequence[Block], pictures: dict[str, bytes]) -> str:
    """The blocks as one HTML page that needs no other file."""
    parts = []
    for index, block in enumerate(content):
        text = html.escape(block.text)
        if block.kind == "heading":
            level = 1 if index == 0 else 2
            parts.append(f"<h{level}>{text}</h{level}>")
        elif block.kind == "text":
            parts.append(f"<p>{text}</p>")
        elif block.kind == "list":
            parts.append("<ul>" + "".join(f"<li>{html.escape(row[0])}</li>" for row in block.rows) + "</ul>")
        elif block.kind == "picture":
            data = base64.b64encode(pictures[block.text]).decode("ascii")
            parts.append(f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>')
        else:
            parts.append(_html_table(block.rows))
    return PAGE.format(body="\n".join(parts))


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    lines = []
    for index, row in enumerate(rows):
        tag = "th" if index == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return "<table>" + "\n".join(lines) + "</table>"
