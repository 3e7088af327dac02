"""Pages of HTML that need nothing beside them but their pictures.

Style and script stand inside the page, which can therefore be opened from a
folder, without a server and without a network.
"""

import html
import json
from collections.abc import Iterable, Sequence

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .7rem; }
th { text-align: left; }
td.number, th.number { font-variant-numeric: tabular-nums; text-align: right; }
ul.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; }
ul.legend li { display: inline-flex; align-items: center; gap: .4rem; }
.swatch { border: 1px solid var(--line); display: inline-block;
  height: 1em; width: 1em; }
img { max-width: 100%; }
"""


def escape(text) -> str:
  """Text, or anything with one, as it may stand anywhere in a page."""
  return html.escape(str(text), quote=True)


def page(title: str, body: str, style: str = '', script: str = '') -> str:
  """A whole page.

  Args:
    title: plain text.
    body: HTML.
    style: CSS, after the common one.
    script: JavaScript, run when the body is there.

  Returns:
    The text of the file.
  """
  # Without an icon of its own a page asks the server for one.
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<link rel="icon" href="data:,">\n'
    f'<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n'
    f'</head>\n<body>\n{body}\n'
    f'{f"<script>{script}</script>" if script else ""}\n</body>\n</html>\n'
  )


def json_script(name: str, values) -> str:
  """Values that the script of a page can read.

  In JavaScript: `JSON.parse(document.getElementById(name).textContent)`.

  Args:
    name: the element's id.
    values: what JSON can hold; no NaN.

  Returns:
    HTML.
  """
  text = json.dumps(values, allow_nan=False, separators=(',', ':'))
  # '</script>' and '<!--' would end or begin what they should not.
  text = text.replace('<', '\\u003c')
  return (
    f'<script type="application/json" id="{escape(name)}">{text}</script>\n'
  )


def swatch(color: Sequence[int]) -> str:
  """A small square of a colour [red, green, blue], 0..255."""
  red, green, blue = (int(value) for value in color)
  return (
    f'<span class="swatch" style="background: rgb({red},{green},{blue})">'
    '</span>'
  )


def legend(names: Sequence[str], colors: Sequence[Sequence[int]]) -> str:
  """A list of classes with their colours.

  Args:
    names: one for each class.
    colors: one [red, green, blue], 0..255, for each class.

  Returns:
    HTML.
  """
  items = (
    f'<li>{swatch(color)}{escape(name)}</li>\n'
    for name, color in zip(names, colors, strict=True)
  )
  return f'<ul class="legend">\n{"".join(items)}</ul>'


def table(header: Sequence[str], rows: Iterable[Sequence]) -> str:
  """A table; numbers stand to the right.

  Args:
    header: plain text of each column.
    rows: values of each row: numbers, or plain text.

  Returns:
    HTML.
  """

  def cell(value):
    is_number = isinstance(value, int | float)
    return f'<td{" class=number" if is_number else ""}>{escape(value)}</td>'

  head = ''.join(f'<th>{escape(name)}</th>' for name in header)
  body = ''.join(f'<tr>{"".join(map(cell, row))}</tr>\n' for row in rows)
  return (
    f'<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>'
  )
