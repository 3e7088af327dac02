"""The zoo in words: the list, one entry, commands, and docs/model_zoo.md."""

import dataclasses
import json

from deeplab import diagnosis
from deeplab.zoo.entry import BACKBONE, SEGMENTATION
from deeplab.zoo.table import ENTRIES

# Folder of downloaded checkpoints in the commands.
_FOLDER = 'zoo'

# Names of the splits that were measured on.
_SPLITS = {
  'pascal_voc_seg': {'val': 'val', 'test': 'test'},
  'cityscapes': {'val': 'val_fine', 'test': 'test_fine'},
  'ade20k': {'val': 'val'},
}

# Flags of the head to train on a backbone, as in the papers.
_HEADS = {
  'resnet': '--atrous_rates=6,12,18 --multi_grid=1,2,4 '
  '--decoder_output_stride=4',
  'xception': '--atrous_rates=6,12,18 --decoder_output_stride=4',
}


def _fields(entry):
  """ModelOptions fields other than their defaults."""
  return {
    **entry.fields,
    **({'quantize_delay_step': 0} if entry.quantized else {}),
  }


# Commands.


def download_command(entry):
  """The command that fetches an entry."""
  return (
    f'python -m deeplab.model_zoo download {entry.name} --output_dir={_FOLDER}'
  )


def evaluation_command(entry, evaluation, folder=_FOLDER):
  """The command that measures, or for a test server labels, once more.

  Args:
    entry: a segmentation Entry.
    evaluation: one of its evaluations.
    folder: where it was downloaded to.

  Returns:
    A list of words.
  """
  split = _SPLITS[entry.dataset][evaluation.split]
  height, width = entry.crop_size
  if evaluation.split == 'test':
    words = [
      'python vis.py',
      f'--checkpoint_dir={folder}/{entry.name}',
      f'--vis_logdir=vis/{entry.name}',
      f'--vis_split={split}',
      f'--vis_crop_size={height},{width}',
      '--also_save_raw_predictions',
      '--max_number_of_iterations=1',
    ]
  else:
    words = [
      'python eval.py',
      f'--checkpoint_dir={folder}/{entry.name}',
      f'--eval_logdir=eval/{entry.name}',
      f'--eval_split={split}',
      f'--eval_crop_size={height},{width}',
      '--max_number_of_evaluations=1',
    ]
  words += ['--dataset_dir=tfrecord', f'--dataset={entry.dataset}']
  if evaluation.output_stride != entry.fields['output_stride']:
    words.append(f'--output_stride={evaluation.output_stride}')
  if entry.longest_side:
    words += [
      f'--min_resize_value={entry.longest_side}',
      f'--max_resize_value={entry.longest_side}',
      f'--resize_factor={evaluation.output_stride}',
    ]
  if len(evaluation.scales) > 1:
    words.append(f'--eval_scales={_scales(evaluation)}')
  if evaluation.flips:
    words.append('--add_flipped_images')
  return words


def training_command(entry, folder=_FOLDER):
  """The command that trains a segmentation network from a backbone."""
  head = next(
    (
      flags
      for start, flags in _HEADS.items()
      if entry.variant.startswith(start)
    ),
    '',
  )
  return [
    'python train.py',
    '--train_logdir=train',
    '--dataset_dir=tfrecord',
    f'--tf_initial_checkpoint={folder}/{entry.name}',
    '--train_crop_size=513,513',
    *diagnosis.flags(_fields(entry)).split(),
    *head.split(),
  ]


def _scales(evaluation):
  first, *_, last = evaluation.scales
  # The flag's own ellipsis goes on in steps of 0.25.
  return f'{first:g},...,{last:g}'


def next_commands(entry, folder=_FOLDER):
  """What to run after the download, one command a paragraph.

  Args:
    entry: a zoo.entry.Entry.
    folder: where it was downloaded to.
  """
  if entry.kind == BACKBONE:
    commands = [_wrap(training_command(entry, folder))]
  else:
    commands = [
      _wrap(evaluation_command(entry, evaluation, folder))
      for evaluation in entry.evaluations
    ]
  return '\n\n'.join(commands)


def _wrap(words, width=78):
  """Words of a command in lines that a shell takes together."""
  lines = [words[0]]
  for word in words[1:]:
    if len(lines[-1]) + len(word) + 3 > width:
      lines[-1] += ' \\'
      lines.append(f'  {word}')
    else:
      lines[-1] += f' {word}'
  return '\n'.join(lines)


# The list and one entry.


def listing():
  """All entries, one a line."""
  rows = [('name', 'backbone', 'data set', 'MB', 'published')]
  for entry in ENTRIES.values():
    rows.append(
      (
        entry.name,
        entry.variant,
        entry.dataset or ' + '.join(entry.pretraining),
        _number(entry.size_mb),
        _results(entry),
      )
    )
  widths = [max(len(row[i]) for row in rows) for i in range(4)]
  lines = []
  for *cells, published in rows:
    padded = [cell.ljust(w) for cell, w in zip(cells, widths, strict=True)]
    lines.append('  '.join([*padded, published]).rstrip())
  return '\n'.join(lines)


def as_json():
  """All entries as a list of plain JSON values."""
  return [
    json.loads(json.dumps(dataclasses.asdict(entry), default=list))
    for entry in ENTRIES.values()
  ]


def _number(value):
  return '' if value is None else f'{value:g}'


def _results(entry):
  if entry.kind == BACKBONE:
    return '' if entry.top_1 is None else f'top-1 {entry.top_1:g}%'
  return ', '.join(
    f'mIoU {item.miou:.2f}% ({item.split}, output stride {item.output_stride}'
    f'{", multi-scale" if len(item.scales) > 1 else ""}'
    f'{", flips" if item.flips else ""})'
    for item in entry.evaluations
  )


def _sentence(item):
  stride, scales, flips, adds, miou = _cells(item)
  text = f'{miou} at output stride {stride}, scales {scales}, flips {flips}'
  return f'{text}, {adds} multiply-adds (1e9)' if adds else text


def describe(entry):
  """All that is known of an entry, and its commands."""
  lines = [
    entry.name,
    f'  archive       {entry.url}',
    f'  backbone      {entry.variant}',
    f'  trained on    {", ".join(entry.pretraining)}',
    f'  model flags   {diagnosis.flags(_fields(entry))}',
  ]
  if entry.size_mb:
    lines.append(f'  size          {entry.size_mb:g} MB')
  if entry.top_1:
    lines.append(f'  top-1         {entry.top_1:g}% on ImageNet')
  for item in entry.evaluations:
    lines.append(f'  mIoU          {_sentence(item)}')
  lines += ['', download_command(entry), '', next_commands(entry)]
  return '\n'.join(lines)


# docs/model_zoo.md.

_INTRODUCTION = """\
# Model zoo

Every published checkpoint of the original, with the command that fetches it
and the command that measures it. This page is written by

```
python -m deeplab.model_zoo markdown > docs/model_zoo.md
```

`python -m deeplab.model_zoo list` prints the list, `show NAME` one entry.
`download NAME --output_dir=zoo` fetches the archive, refuses it if it is
truncated or would write outside its folder, checks that it holds the network
that this page says, and makes `zoo/NAME` with the checkpoint,
`model_options.json` and `dataset_info.json`. `eval.py`, `vis.py` and
`export_model.py` take the model's flags from there:
`--checkpoint_dir=zoo/NAME` is enough. The flags under "model flags" are those
it stores, for checkpoints that came another way.

Without a network, or when a file has moved:

* `--archive=FILE` unpacks and checks an archive that was fetched elsewhere.
* `--base_url=URL` takes the archives from the folder of a mirror.
* `--sha256=SUM` checks the archive's SHA-256. No official sums exist.

`python -m deeplab.model_zoo inspect CHECKPOINT` says which network a
checkpoint is of, and its flags, from names and shapes of its variables alone.

A folder with nothing but a published `frozen_inference_graph.pb`, or that file
itself, is a checkpoint too: for `--checkpoint_dir`, `--checkpoint_path` and
`--tf_initial_checkpoint`.

Networks are stored as they were trained: at output stride 16, MobileNetV3 at
32. `--output_stride=8` alone doubles the atrous rates. Figures on a test set
come from the test server; `vis.py` writes the label images to send there.
Multiply-adds (M-adds, in 1e9, of one scale, or of all for a multi-scale test)
are the published ones; `python -m deeplab.model_stats` counts anew.
`tfrecord` stands for the folder of the converted data set.
"""

_BACKBONES_INTRODUCTION = """\
Where a training begins. They have no head and so no `model_options.json`;
`train.py` takes the weights of the backbone and starts the rest anew. The
flags of the head below are those of the papers, and any others will do.
Checkpoints of whole networks serve as well, with
`--initialize_last_layer=false` for other classes.
"""

_SECTIONS = (
  ('PASCAL VOC 2012', 'pascal_voc_seg'),
  ('Cityscapes', 'cityscapes'),
  ('ADE20K', 'ade20k'),
)


def _cells(item):
  """A published measurement as the cells of a table."""
  adds = '' if item.multiply_adds is None else f'{item.multiply_adds:g}'
  pixels = ''
  if item.pixel_accuracy is not None:
    pixels = f', pixel accuracy {item.pixel_accuracy:.2f}%'
  return [
    str(item.output_stride),
    _scales(item) if len(item.scales) > 1 else '1',
    'yes' if item.flips else 'no',
    adds,
    f'{item.miou:.2f}% ({item.split}){pixels}',
  ]


def _row(cells):
  return f'| {" | ".join(cells)} |'


def _table(header, rows):
  return [_row(header), _row(['---'] * len(header)), *map(_row, rows)]


def markdown():
  """The text of docs/model_zoo.md."""
  lines = [_INTRODUCTION]
  for title, dataset in _SECTIONS:
    entries = [
      entry
      for entry in ENTRIES.values()
      if entry.kind == SEGMENTATION and entry.dataset == dataset
    ]
    lines += [f'## {title}', '']
    lines += _table(
      ['checkpoint', 'stride', 'scales', 'flips', 'M-adds', 'mIoU', 'MB'],
      [
        [entry.name, *_cells(item), _number(entry.size_mb)]
        for entry in entries
        for item in entry.evaluations
      ],
    )
    for entry in entries:
      lines += ['', *_section(entry)]
    lines.append('')
  lines += ['## Backbones', '', _BACKBONES_INTRODUCTION]
  entries = [entry for entry in ENTRIES.values() if entry.kind == BACKBONE]
  lines += _table(
    ['checkpoint', 'variant', 'ImageNet top-1', 'MB'],
    [
      [
        entry.name,
        entry.variant,
        '' if entry.top_1 is None else f'{entry.top_1:g}%',
        _number(entry.size_mb),
      ]
      for entry in entries
    ],
  )
  for entry in entries:
    lines += ['', *_section(entry)]
  return '\n'.join(lines) + '\n'


def _section(entry):
  commands = f'{download_command(entry)}\n\n{next_commands(entry)}'
  return [
    f'### {entry.name}',
    '',
    f'[{entry.archive}]({entry.url}). Trained on '
    f'{", ".join(entry.pretraining)}. Model flags: '
    f'`{diagnosis.flags(_fields(entry))}`.',
    '',
    f'```\n{commands}\n```',
  ]
