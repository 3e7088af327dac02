"""The table of published checkpoints, and fetching them from a server."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import lzma
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import (
  checkpoints,
  common,
  diagnosis,
  frozen_graph,
  model,
  stored_options,
)
from deeplab.common import InputError
from deeplab.datasets import dataset_info
from deeplab.evaluation import prediction
from deeplab.zoo import download, table, text
from deeplab.zoo.entry import BACKBONE, SEGMENTATION

# What the checkpoint of tests/testdata/original is of.
_NAME = 'mobilenetv2_dm05_coco_voc_trainaug'
_ENTRY = table.get(_NAME)


# The table.


def test_names_and_addresses():
  assert len(table.ENTRIES) == 34
  assert len({entry.url for entry in table.ENTRIES.values()}) == 34
  for name, entry in table.ENTRIES.items():
    assert entry.archive.endswith(('.tar.gz', '.tgz')), name
    assert table.get(name.upper()) is entry
    assert table.get(entry.archive.split('.t')[0]) is entry
    assert (entry.kind == BACKBONE) == (entry.info is None)
    assert bool(entry.evaluations) == (entry.kind == SEGMENTATION)
  with pytest.raises(InputError, match=r"called 'nothing'.*list"):
    table.get('nothing')


@pytest.mark.parametrize(
  'entry',
  [e for e in table.ENTRIES.values() if e.kind == SEGMENTATION],
  ids=lambda entry: entry.name,
)
def test_every_network_can_be_built(entry):
  options = entry.model_options()
  classes = dataset_info.BUILTIN[entry.dataset].num_classes
  assert options.outputs_to_num_classes == {'semantic': classes}
  shapes = diagnosis.model_shapes(options)
  # Its variables say the same as the table.
  found = diagnosis.diagnose(shapes)
  assert not found.missing and not found.reshaped and not found.unused
  inferred = common.ModelOptions(**{**found.fields, 'output_stride': 16})
  for name in set(entry.fields) - {
    'output_stride',
    'image_pooling_crop_size',
    'image_pooling_stride',
    'image_se_uses_qsigmoid',
  }:
    assert getattr(inferred, name) == entry.fields[name], name


@pytest.mark.parametrize(
  ('name', 'millions'),
  [
    # Trainable parameters, as the original counts them.
    ('mobilenetv2_coco_voc_trainaug', 2.114),
    ('mobilenetv2_dm05_coco_voc_trainaug', 0.697),
    ('xception65_coco_voc_trainaug', 41.055),
    ('xception71_dpc_cityscapes_trainfine', 41.609),
    ('mobilenetv3_large_cityscapes_trainfine', 1.507),
    ('mobilenetv3_small_cityscapes_trainfine', 0.469),
    ('EdgeTPU-DeepLab', 3.603),
    ('EdgeTPU-DeepLab-slim', 1.942),
  ],
)
def test_published_sizes(name, millions):
  shapes = diagnosis.model_shapes(table.get(name).model_options())
  count = sum(
    np.prod(shape, dtype=np.int64)
    for name, shape in shapes.items()
    if not name.endswith(('moving_mean', 'moving_variance'))
  )
  assert count / 1e6 == pytest.approx(millions, abs=5e-4)


def test_the_page_is_what_the_table_says(repository):
  page = repository / 'docs' / 'model_zoo.md'
  assert page.read_text() == text.markdown()
  assert all(name in text.listing() for name in table.ENTRIES)
  as_json = {item['name']: item for item in text.as_json()}
  assert as_json['EdgeTPU-DeepLab-slim']['fields']['depth_multiplier'] == 0.75


# The page has the same commands; test_docs_commands.py parses them.
@pytest.mark.slow
def test_commands_have_flags_that_exist(repository):
  used = {}
  for entry in table.ENTRIES.values():
    for command in text.next_commands(entry).split('\n\n'):
      words = command.replace('\\\n', ' ').split()
      assert words[0] == 'python'
      names = {word.split('=')[0].lstrip('-') for word in words[2:]}
      used.setdefault(words[1], set()).update(names)
  assert set(used) == {'eval.py', 'vis.py', 'train.py'}
  for script, names in used.items():
    known = _run(repository / script, '--helpfull').stdout
    missing = [name for name in sorted(names) if f'{name}:' not in known]
    assert not missing, (script, missing)


# Archives.


def _pack(path, members):
  """Writes a .tar.gz: {member name: content, or a TarInfo without content}."""
  with tarfile.open(path, 'w:gz') as tar:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      if isinstance(content, tarfile.TarInfo):
        content.name = name
        tar.addfile(content)
        continue
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return path


@pytest.fixture
def published(testdata, tmp_path):
  """The archive of _ENTRY in the folder of a mirror."""
  folder = 'deeplabv3_mnv2_dm05_pascal_trainaug'
  original = testdata / 'original' / 'ckpt_mobilenet_v2_dm05_os16'
  mirror = tmp_path / 'mirror'
  mirror.mkdir()
  return _pack(
    mirror / _ENTRY.archive,
    {
      f'{folder}/model.ckpt{suffix}': pathlib.Path(
        f'{original}{suffix}'
      ).read_bytes()
      for suffix in ('.index', '.data-00000-of-00001')
    },
  )


class _Handler(http.server.SimpleHTTPRequestHandler):
  """Serves a folder; cuts files in the middle, or hides their size."""

  def log_message(self, *unused):
    pass

  def copyfile(self, source, outputfile):
    content = source.read()
    if self.server.cut:
      content = content[: len(content) // 2]
    outputfile.write(content)

  def send_header(self, keyword, value):
    if not (self.server.hide_size and keyword == 'Content-Length'):
      super().send_header(keyword, value)


@contextlib.contextmanager
def _serve(folder, cut=False, hide_size=False):
  handler = functools.partial(_Handler, directory=str(folder))
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  server.cut, server.hide_size = cut, hide_size
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


def _is_empty(folder):
  return not folder.exists() or not list(folder.iterdir())


def test_download(published, tmp_path):
  zoo = tmp_path / 'zoo'
  checksum = hashlib.sha256(published.read_bytes()).hexdigest()
  with _serve(published.parent) as url:
    folder, is_new = download.install(
      _ENTRY, str(zoo), base_url=f'{url}/', sha256=checksum.upper()
    )
  assert is_new and folder == str(zoo / _NAME)
  assert os.listdir(zoo) == [_NAME]
  assert sorted(os.listdir(folder)) == [
    'dataset_info.json',
    'model.ckpt.data-00000-of-00001',
    'model.ckpt.index',
    'model_options.json',
  ]
  options = stored_options.load(folder)
  assert options == common.ModelOptions.from_dict(
    _ENTRY.model_options().to_dict()
  )
  assert options.depth_multiplier == 0.5 and options.output_stride == 16
  assert dataset_info.load(folder).name == 'pascal_voc_seg'
  # A prefix without a step: evaluated once, as step 0.
  prefix = os.path.join(folder, 'model.ckpt')
  assert list(prediction.checkpoint_paths(folder)) == [prefix]
  assert checkpoints.global_step(prefix) == 0
  network = model.build_model(options)
  checkpoints.restore(network, folder)
  for name, variable in checkpoints.named_variables(network).items():
    np.testing.assert_array_equal(
      variable.numpy(), recipe.make_value(name, variable.shape)
    )


def test_what_is_there_is_kept(published, tmp_path):
  install = functools.partial(
    download.install, _ENTRY, str(tmp_path / 'zoo'), archive=str(published)
  )
  folder, is_new = install()
  assert is_new
  own = pathlib.Path(folder) / 'note.txt'
  own.write_text('mine')
  assert install() == (folder, False) and own.exists()
  # A download that fails replaces nothing.
  with pytest.raises(InputError, match='checksum'):
    install(overwrite=True, sha256='0' * 64)
  # Nor does one that would lose what is not of the archive.
  with pytest.raises(InputError, match=r'has not.*note\.txt'):
    install(overwrite=True)
  assert own.exists()
  own.unlink()
  (pathlib.Path(folder) / common.MODEL_OPTIONS_FILE).unlink()
  assert install(overwrite=True) == (folder, True)
  assert (pathlib.Path(folder) / common.MODEL_OPTIONS_FILE).exists()
  assert os.listdir(tmp_path / 'zoo') == [_NAME]


def test_a_folder_of_something_else_is_left_alone(published, tmp_path):
  other = tmp_path / _NAME
  other.mkdir()
  (other / 'thesis.txt').touch()
  for overwrite in (False, True):
    with pytest.raises(InputError, match='holds no checkpoint'):
      download.install(
        _ENTRY, str(tmp_path), archive=str(published), overwrite=overwrite
      )
  assert (other / 'thesis.txt').exists()
  (tmp_path / 'file').mkdir()
  (tmp_path / 'file' / _NAME).touch()
  with pytest.raises(InputError, match='is a file where a folder'):
    download.install(_ENTRY, str(tmp_path / 'file'), archive=str(published))


@pytest.mark.parametrize('hide_size', [False, True])
def test_a_truncated_download(published, tmp_path, hide_size):
  zoo = tmp_path / 'zoo'
  with (
    _serve(published.parent, cut=True, hide_size=hide_size) as url,
    pytest.raises(InputError, match='truncated'),
  ):
    download.install(_ENTRY, str(zoo), base_url=url)
  assert _is_empty(zoo)


def test_a_wrong_checksum(published, tmp_path):
  zoo = tmp_path / 'zoo'
  with (
    _serve(published.parent) as url,
    pytest.raises(InputError, match='checksum is wrong: SHA-256 is'),
  ):
    download.install(_ENTRY, str(zoo), base_url=url, sha256='ab' * 32)
  assert _is_empty(zoo)


def test_a_server_without_the_file(tmp_path):
  with (
    _serve(tmp_path) as url,
    pytest.raises(InputError, match=r'404.*--base_url.*--archive='),
  ):
    download.install(_ENTRY, str(tmp_path / 'zoo'), base_url=url)
  assert _is_empty(tmp_path / 'zoo')


def test_no_network(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{free.getsockname()[1]}'
  with pytest.raises(InputError, match='cannot be reached') as error:
    download.install(_ENTRY, str(tmp_path / 'zoo'), base_url=url)
  assert f'{url}/{_ENTRY.archive}' in str(error.value)
  assert f'--archive={_ENTRY.archive}' in str(error.value)
  with pytest.raises(InputError, match='not an address'):
    download.install(_ENTRY, str(tmp_path / 'zoo'), base_url='mirror')
  assert _is_empty(tmp_path / 'zoo')


def _special(kind, target=''):
  info = tarfile.TarInfo()
  info.type, info.linkname = kind, target
  return info


@pytest.mark.parametrize(
  ('name', 'content', 'reason'),
  [
    ('../evil.txt', b'x', 'outside'),
    ('a/../../evil.txt', b'x', 'outside'),
    ('/evil.txt', b'x', 'outside'),
    ('link', _special(tarfile.SYMTYPE, '/etc'), "link to '/etc'"),
    ('link', _special(tarfile.LNKTYPE, '../x'), 'link to'),
    ('pipe', _special(tarfile.FIFOTYPE), 'device'),
    ('null', _special(tarfile.CHRTYPE), 'device'),
    ('good.txt/x', b'x', 'cannot be unpacked'),
    ('a' * 300, b'x', 'cannot be unpacked.*too long'),
    ('.', b'x', 'cannot be unpacked'),
  ],
)
def test_archives_that_reach_outside(tmp_path, name, content, reason):
  archive = _pack(tmp_path / 'a.tar.gz', {'good.txt': b'x', name: content})
  zoo = tmp_path / 'zoo'
  with pytest.raises(InputError, match=reason) as error:
    download.install(_ENTRY, str(zoo), archive=str(archive))
  assert repr(name[:80]) in str(error.value)
  assert _is_empty(zoo)
  assert sorted(os.listdir(tmp_path)) == ['a.tar.gz', 'zoo']


def test_other_archives(published, tmp_path):
  zoo = tmp_path / 'zoo'
  install = functools.partial(download.install, _ENTRY, str(zoo))
  archive = tmp_path / 'a.tar.gz'
  with pytest.raises(InputError, match='no such file'):
    install(archive=str(archive))
  archive.write_bytes(b'<html>Sign in</html>')
  with pytest.raises(InputError, match='not a tar archive'):
    install(archive=str(archive))
  # The last bytes are the checksum.
  for cut in (2000, 2):
    archive.write_bytes(published.read_bytes()[:-cut])
    with pytest.raises(InputError, match='truncated'):
      install(archive=str(archive))
  content = bytearray(lzma.compress(bytes(range(256)) * 4000))
  content[len(content) // 2] ^= 255
  archive.write_bytes(content)
  with pytest.raises(InputError, match='damaged'):
    install(archive=str(archive))
  _pack(archive, {'README': b'x'})
  with pytest.raises(InputError, match=r'no checkpoint.*README'):
    install(archive=str(archive))
  assert _is_empty(zoo)


def test_another_network_in_the_archive(published, tmp_path):
  other = table.get('mobilenetv2_coco_voc_trainaug')
  with pytest.raises(InputError, match='is not mobilenetv2_coco') as error:
    download.install(other, str(tmp_path / 'zoo'), archive=str(published))
  assert '--depth_multiplier=0.5 (21 classes)' in str(error.value)
  assert _is_empty(tmp_path / 'zoo')


def test_an_archive_with_only_a_frozen_graph(testdata, tmp_path):
  graph = tf.compat.v1.GraphDef()
  prefix = testdata / 'original' / 'ckpt_mobilenet_v2_dm05_os16'
  for name, (_, get) in checkpoints.read(str(prefix)).items():
    node = graph.node.add(name=name, op='Const')
    node.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(get()))
  archive = _pack(
    tmp_path / 'a.tar.gz',
    {f'x/{frozen_graph.FILE_NAME}': graph.SerializeToString()},
  )
  folder, _ = download.install(
    _ENTRY, str(tmp_path / 'zoo'), archive=str(archive)
  )
  assert checkpoints.find(folder).endswith(frozen_graph.FILE_NAME)
  assert stored_options.load(folder).depth_multiplier == 0.5


@pytest.mark.parametrize('v1', [False, True])
def test_a_backbone(tmp_path, v1):
  """Flat archives; the oldest are single files in TensorFlow's V1 format."""
  entry = table.get('mobilenet_v2_0.35_224_imagenet')
  shapes, _ = diagnosis.backbone_shapes(entry.model_options())
  values = {name: np.full(shape, 0.5, 'f4') for name, shape in shapes.items()}
  values['MobilenetV2/Logits/Conv2d_1c_1x1/weights'] = np.zeros([1, 1, 8, 9])
  path = tmp_path / 'mobilenet_v2_0.35_224.ckpt'
  if v1:
    tf.raw_ops.Save(
      filename=str(path), tensor_names=list(values), data=list(values.values())
    )
  else:
    tf.raw_ops.SaveV2(
      prefix=str(path),
      tensor_names=list(values),
      shape_and_slices=[''] * len(values),
      tensors=list(values.values()),
    )
  archive = _pack(
    tmp_path / 'a.tgz',
    {
      f'./{file.name}': file.read_bytes()
      for file in tmp_path.glob(f'{path.name}*')
    },
  )
  folder, _ = download.install(
    entry, str(tmp_path / 'zoo'), archive=str(archive)
  )
  assert not os.path.exists(os.path.join(folder, common.MODEL_OPTIONS_FILE))
  options = common.ModelOptions({'semantic': 3}, **entry.fields)
  network = model.build_model(options)
  report = checkpoints.restore(network, folder, allow_missing=True)
  assert set(report.restored) == set(shapes)
  np.testing.assert_array_equal(network.get_weights()[0], 0.5)
  # Other channels than those of the table.
  other = table.get('mobilenet_v2_0.5_224_imagenet')
  with pytest.raises(InputError, match=r'is not mobilenet_v2_0\.5_224'):
    download.install(other, str(tmp_path / 'zoo'), archive=str(archive))


# As a user runs it.


def _run(*arguments):
  return subprocess.run(
    [sys.executable, *map(str, arguments)],
    capture_output=True,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    check=False,
  )


def test_download_then_evaluate_without_model_flags(
  published, repository, testdata, tmp_path
):
  with _serve(published.parent) as url:
    done = _run(
      *('-m', 'deeplab.model_zoo', 'download', _NAME),
      f'--output_dir={tmp_path}/zoo',
      f'--base_url={url}',
    )
  assert done.returncode == 0, done.stderr
  assert f'{_NAME} is in {tmp_path}/zoo/{_NAME}' in done.stdout
  assert f'--checkpoint_dir={tmp_path}/zoo/{_NAME}' in done.stdout
  done = _run(
    repository / 'eval.py',
    f'--checkpoint_dir={tmp_path}/zoo/{_NAME}',
    f'--eval_logdir={tmp_path}/eval',
    f'--dataset_dir={testdata}/voc_tfrecord',
    *('--min_resize_value=65', '--max_resize_value=65'),
    '--eval_crop_size=65,65',
  )
  assert done.returncode == 0, done.stderr
  assert 'miou' in json.loads((tmp_path / 'eval' / 'miou_0.json').read_text())


def test_errors_are_one_line_and_status_1():
  done = _run('-m', 'deeplab.model_zoo', 'show', 'nothing')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert "error: no published checkpoint is called 'nothing'" in done.stderr
  with pytest.raises(InputError, match=f'Did you mean .*{_NAME}'):
    table.get(f'{_NAME}s')
