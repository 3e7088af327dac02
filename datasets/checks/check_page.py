"""The report of `dataset_checks` as a page that needs no other file."""

import base64
import collections
import io
from collections.abc import Sequence

from PIL import Image

from deeplab.datasets.checks import check_findings, check_report
from deeplab.datasets.checks.check_findings import Finding
from deeplab.datasets.checks.check_reading import Sample
from deeplab.datasets.checks.dataset_checks import Report
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.utils import get_dataset_colormap, html_page
from deeplab.utils.html_page import escape

# Colours of what is no class.
_IGNORED_COLOR = (255, 255, 255)
_ILLEGAL_COLOR = (255, 0, 255)

_JPEG_QUALITY = 80

# Places that are shown for a finding.
_MOST_PLACES = 200

# Side of the plot of sizes, in units of its own.
_PLOT = 300

_STYLE = """
body { max-width: 80rem; margin: 1.5rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
.finding { border-left: .35rem solid #d8a012; background: var(--soft);
  margin: .4rem 0; padding: .4rem .8rem; }
.finding.error { border-color: #d03030; }
.finding.fine { border-color: #2c9c50; }
.finding ul { margin: .3rem 0; max-height: 16rem; overflow: auto;
  overflow-wrap: anywhere; }
.bar { background: var(--soft); display: inline-block; height: .7em;
  vertical-align: middle; width: 8rem; }
.bar span { background: #4a80c8; display: block; height: 100%; }
td.missing { color: #d03030; }
pre { background: var(--soft); margin: 0; overflow-x: auto; padding: .4rem; }
.reason { margin: .2rem 0 .8rem; max-width: 60rem; }
.controls { background: Canvas; padding: .5rem 0; position: sticky; top: 0;
  z-index: 1; }
.samples { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; }
figure div { position: relative; }
figure img { display: block; width: 100%; }
figure img + img { image-rendering: pixelated; inset: 0;
  opacity: var(--opacity, .5); position: absolute; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
figcaption b { color: #d03030; }
svg { max-width: 26rem; width: 100%; }
svg text { fill: currentColor; font-size: 11px; }
svg line { stroke: currentColor; stroke-opacity: .3; }
svg circle { fill: #4a80c8; fill-opacity: .55; }
"""

_SCRIPT = """
const slider = document.getElementById('opacity');
const apply = () => document.documentElement.style.setProperty(
  '--opacity', slider.value / 100);
if (slider) { slider.addEventListener('input', apply); apply(); }
"""


def make(report: Report) -> str:
  """The page.

  Args:
    report: the report.

  Returns:
    The text of the HTML file.
  """
  info = report.info
  title = f'Check of {info.name}'
  parts = [
    f'<h1>{escape(title)}</h1>',
    f'<p>{escape(report.source)}: {info.num_classes} classes, ignore label '
    f'{info.ignore_label}. Sizes are height x width in pixels.</p>',
    *_findings(report.findings),
    '<h2>Splits</h2>',
    _wide(html_page.table(*check_report.table_of_splits(report))),
    '<h2>Classes</h2>',
    '<p>Share of the pixels that are not ignored, and number of images in '
    'which the class occurs.</p>',
    _wide(_classes(report)),
    *_suggestions(report),
    *_overlaps(report),
    *_sizes(report),
    *_samples(report),
  ]
  return html_page.page(title, '\n'.join(parts), _STYLE, _SCRIPT)


def _wide(table):
  return f'<div class="wide">{table}</div>'


def _findings(findings: Sequence[Finding]):
  if not findings:
    yield '<div class="finding fine">Nothing is wrong or strange.</div>'
  for finding in findings:
    where = ', '.join(finding.splits)
    places = [f'<li>{escape(p)}</li>' for p in finding.places[:_MOST_PLACES]]
    rest = len(finding.places) - _MOST_PLACES
    if rest > 0:
      places.append(f'<li>... and {rest} more; --json lists all.</li>')
    details = ''
    if places:
      is_open = ' open' if len(places) <= 5 else ''
      details = (
        f'<details{is_open}><summary>{len(finding.places)} places</summary>'
        f'<ul>{"".join(places)}</ul></details>'
      )
    kind = 'error' if finding.level == check_findings.ERROR else 'hint'
    yield (
      f'<div class="finding {kind}"><b>{kind.capitalize()}</b>'
      f'{f" in <b>{escape(where)}</b>" if where else ""}: '
      f'{escape(finding.text)}{details}</div>'
    )


def _classes(report):
  """The histogram of the classes: bars, one column for each split."""
  info = report.info
  shares = [check_report.class_shares(tally) for tally in report.splits]
  largest = max((s.max() for s in shares), default=0) or 1
  head = ''.join(
    f'<th colspan="2">{escape(tally.name)}</th><th class="number">images</th>'
    for tally in report.splits
  )
  rows = []
  for label, (name, color) in enumerate(
    zip(info.class_names, info.colors, strict=True)
  ):
    cells = ''.join(
      _class_cells(
        share[label], share[label] / largest, tally.occurrences[label]
      )
      for share, tally in zip(shares, report.splits, strict=True)
    )
    rows.append(
      f'<tr><td class="number">{label}</td>'
      f'<td>{html_page.swatch(color)} {escape(name)}</td>{cells}</tr>\n'
    )
  return (
    f'<table class="classes"><thead><tr><th></th><th>class</th>{head}</tr>'
    f'</thead>\n<tbody>{"".join(rows)}</tbody></table>'
  )


def _class_cells(share, length, images):
  missing = '' if images else ' missing'
  return (
    f'<td><span class="bar"><span style="width: {100 * length:.1f}%"></span>'
    f'</span></td><td class="number{missing}">{check_report.percent(share)}'
    f'</td><td class="number{missing}">{images}</td>'
  )


def _suggestions(report):
  if report.suggestions:
    yield '<h2>Flags that suit these data</h2>'
  for suggestion in report.suggestions:
    yield f'<pre>{escape(suggestion.flag)}</pre>'
    yield f'<p class="reason">{escape(suggestion.reason)}.</p>'


def _overlaps(report):
  if not report.overlaps:
    return
  yield '<h2>Images in several splits</h2>'
  rows = [
    [one, two, len(common['names']), len(common['images'])]
    for (one, two), common in report.overlaps.items()
  ]
  yield html_page.table(['split', 'split', 'same name', 'same pixels'], rows)


def _sizes(report):
  """A point for each size; its area tells the number of images."""
  sizes = collections.Counter()
  for tally in report.splits:
    sizes.update(tally.sizes)
  if len(sizes) < 2:
    return
  scale = _PLOT / max(map(max, sizes))
  most = max(sizes.values())
  points = ''.join(
    f'<circle cx="{width * scale:.1f}" cy="{_PLOT - height * scale:.1f}" '
    f'r="{2 + 8 * (number / most) ** 0.5:.1f}"><title>{height} x {width}: '
    f'{number}</title></circle>'
    for (height, width), number in sorted(sizes.items())
  )
  highest, widest = (max(size[axis] for size in sizes) for axis in (0, 1))
  left, bottom = _PLOT - highest * scale, widest * scale
  yield (
    '<h2>Sizes of images</h2>\n<p>A point for each size; hold the pointer over '
    'it for the number of images.</p>\n'
    f'<svg class="sizes" viewBox="-50 -20 {_PLOT + 70} {_PLOT + 60}">'
    f'<line x1="0" y1="0" x2="0" y2="{_PLOT}"/>'
    f'<line x1="0" y1="{_PLOT}" x2="{_PLOT}" y2="{_PLOT}"/>'
    f'<text x="-8" y="{left + 4:.1f}" text-anchor="end">{highest}</text>'
    f'<text x="-8" y="{_PLOT}" text-anchor="end">height</text>'
    f'<text x="{bottom:.1f}" y="{_PLOT + 18}" text-anchor="middle">{widest}'
    f'</text><text x="0" y="{_PLOT + 18}">width</text>{points}</svg>'
  )


# Samples.


def _samples(report):
  """Images under their labels, with a slider for the opacity of these."""
  if not any(tally.samples for tally in report.splits):
    return
  info = report.info
  has_ignored = info.ignore_label >= info.num_classes
  names = [*info.class_names, *['ignored'] * has_ignored]
  colors = [*info.colors, *[_IGNORED_COLOR] * has_ignored]
  if any(tally.illegal for tally in report.splits):
    names.append('no class')
    colors.append(_ILLEGAL_COLOR)
  yield '<h2>Samples</h2>'
  yield (
    '<div class="controls"><label>Opacity of the labels '
    '<input id="opacity" type="range" min="0" max="100" value="50"></label>'
    f'</div>{html_page.legend(names, colors)}'
  )
  for tally in report.splits:
    if tally.samples:
      figures = '\n'.join(_figure(sample, info) for sample in tally.samples)
      yield f'<h3>{escape(tally.name)}</h3>'
      yield f'<div class="samples">{figures}</div>'


def _figure(sample: Sample, info: DatasetInfo) -> str:
  illegal = ', '.join(map(str, sample.illegal))
  note = f' <b>illegal: {illegal}</b>' if illegal else ''
  mask = Image.fromarray(sample.label)
  mask.putpalette(_palette(info).tobytes())
  return (
    f'<figure><div>{_picture(Image.fromarray(sample.image), "JPEG", "image")}'
    f'{_picture(mask, "PNG", "label")}</div>'
    f'<figcaption title="{escape(sample.place)}">{escape(sample.name)}{note}'
    '</figcaption></figure>'
  )


def _palette(info):
  """Colours of all label values, uint8 [256, 3]."""
  colormap = get_dataset_colormap.colormap_from_info(info)
  colormap[info.num_classes :] = _ILLEGAL_COLOR
  if info.ignore_label >= info.num_classes:
    colormap[info.ignore_label] = _IGNORED_COLOR
  return colormap


def _picture(image, file_format, text):
  """An image inside the page."""
  with io.BytesIO() as output:
    image.save(output, file_format, quality=_JPEG_QUALITY)
    data = base64.b64encode(output.getvalue()).decode()
  kind = file_format.lower()
  return f'<img alt="{text}" src="data:image/{kind};base64,{data}">'
