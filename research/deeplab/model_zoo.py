"""The published checkpoints: a list, and what fetches them.

  python -m deeplab.model_zoo list
  python -m deeplab.model_zoo show mobilenetv2_coco_voc_trainaug
  python -m deeplab.model_zoo download mobilenetv2_coco_voc_trainaug \
    --output_dir=zoo
  python -m deeplab.model_zoo inspect zoo/mobilenetv2_coco_voc_trainaug

After a download, eval.py, vis.py and export_model.py need no flag of the model.
`inspect` says which network a checkpoint is of, whatever its origin.
"""

import argparse
import json
import sys

from deeplab import checkpoints, diagnosis, flags
from deeplab.zoo import download, table, text


def _list(values):
  if values.json:
    print(json.dumps(text.as_json(), indent=2))
  else:
    print(text.listing())


def _show(values):
  print(text.describe(table.get(values.name)))


def _download(values):
  entry = table.get(values.name)
  folder, is_new = download.install(
    entry,
    values.output_dir,
    base_url=values.base_url,
    archive=values.archive,
    sha256=values.sha256,
    overwrite=values.overwrite,
  )
  if is_new:
    print(f'{entry.name} is in {folder}.')
  else:
    print(f'{folder} is there already; --overwrite fetches it anew.')
  print(f'\n{text.next_commands(entry, values.output_dir)}')


def _inspect(values):
  prefix = checkpoints.find(values.checkpoint)
  found = diagnosis.diagnose(
    {name: shape for name, (shape, _) in checkpoints.read(prefix).items()}
  )
  print(f'{prefix}: {found}')
  if found.guessed:
    print(f'Only guessed, weights do not show it: {", ".join(found.guessed)}.')
  if found.unused:
    names = ', '.join(found.unused[:6])
    print(f'{len(found.unused)} more variables are no part of it: {names}.')


def _markdown(unused_values):
  sys.stdout.write(text.markdown())


def _parser():
  parser = argparse.ArgumentParser(
    prog='python -m deeplab.model_zoo',
    description='The published checkpoints.',
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  def command(name, function, help_text):
    added = commands.add_parser(
      name, help=help_text, description=help_text, allow_abbrev=False
    )
    added.set_defaults(function=function)
    return added

  added = command('list', _list, 'All checkpoints, one a line.')
  added.add_argument('--json', action='store_true', help='As JSON.')
  added = command('show', _show, 'All about one, with its commands.')
  added.add_argument('name', help='Name of a checkpoint, see list.')
  added = command('download', _download, 'Fetches, checks and unpacks one.')
  added.add_argument('name', help='Name of a checkpoint, see list.')
  added.add_argument(
    '--output_dir', default='zoo', help='Folder; gets a folder of that name.'
  )
  added.add_argument('--archive', help='An archive fetched by other means.')
  added.add_argument('--base_url', help='Folder of a mirror with the archives.')
  added.add_argument('--sha256', help='What the checksum must be.')
  added.add_argument(
    '--overwrite', action='store_true', help='Replace what is there.'
  )
  added = command('inspect', _inspect, 'Which network a checkpoint is of.')
  added.add_argument('checkpoint', help='Directory, prefix or file.')
  command('markdown', _markdown, 'The text of docs/model_zoo.md.')
  return parser


def main():
  """Runs the command of the command line."""
  values = _parser().parse_args()
  del sys.argv[1:]
  flags.run(lambda: values.function(values))


if __name__ == '__main__':
  main()
