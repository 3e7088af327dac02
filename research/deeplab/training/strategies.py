"""Which devices and hosts a training runs on."""

import contextlib
import dataclasses
import json
import os
import re

import tensorflow as tf

from deeplab.common import InputError
from deeplab.training.interruption import Interrupted

# Hosts that are late, or that start again at this moment.
_PASSING = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
)

_ADDRESS = re.compile(r'[^\s,/]+:\d+')


@dataclasses.dataclass(frozen=True)
class Cluster:
  """The hosts of a training on several of them.

  Attributes:
    hosts: 'name:port' of each, in the same order everywhere.
    index: which of them this one is.
  """

  hosts: tuple[str, ...]
  index: int

  def __post_init__(self):
    for host in self.hosts:
      if not isinstance(host, str) or not _ADDRESS.fullmatch(host):
        raise InputError(
          'worker_hosts (--worker_hosts, or TF_CONFIG) must be name:port each. '
          f'Received: {host!r}.'
        )
    if len(set(self.hosts)) < len(self.hosts):
      raise InputError(
        'worker_hosts (--worker_hosts, or TF_CONFIG) names a host and port '
        f'twice. Received: {",".join(self.hosts)}.'
      )
    if self.index not in range(len(self.hosts)):
      raise InputError(
        f'task (--task, or TF_CONFIG) must be in 0..{len(self.hosts) - 1}, one '
        f'for each host. Received: {self.index!r}.'
      )


def find_cluster(num_replicas=None, task=None, worker_hosts=(), environ=None):
  """The Cluster that the flags or TF_CONFIG describe.

  Args:
    num_replicas: number of hosts, None where it is not given.
    task: index of this host, None where it is not given.
    worker_hosts: 'name:port' of each host; or empty, for TF_CONFIG.
    environ: the environment, os.environ by default.

  Returns:
    A Cluster; None for one host.

  Raises:
    InputError: they contradict each other, or are not complete.
  """
  text = (os.environ if environ is None else environ).get('TF_CONFIG')
  if worker_hosts and text:
    raise InputError(
      '--worker_hosts and TF_CONFIG both name hosts. Give one of them.'
    )
  if text:
    hosts, index = _parse_tf_config(text)
    if task not in (None, index):
      raise InputError(f'--task={task}, but TF_CONFIG says {index}.')
  else:
    hosts, index = tuple(worker_hosts), task or 0
  wanted = max(1, len(hosts)) if num_replicas is None else num_replicas
  if wanted != max(1, len(hosts)):
    raise InputError(
      f'--num_replicas={wanted}, but {len(hosts)} hosts are named. Give '
      '--worker_hosts=host0:port,host1:port with all of them (the same on each '
      'host, with its own --task), or set TF_CONFIG.'
    )
  if not hosts and index:
    raise InputError(
      f'--task={index} is one of several hosts. Give --worker_hosts and '
      '--num_replicas as well.'
    )
  return Cluster(hosts, index) if len(hosts) > 1 else None


def _parse_tf_config(text):
  """Hosts and index of TF_CONFIG; the chief, if there is one, is the first."""
  try:
    values = json.loads(text)
    cluster, task = values['cluster'], values['task']
    kind, index = task['type'], int(task['index'])
    groups = {name: list(cluster[name]) for name in cluster}
  except (ValueError, TypeError, LookupError) as error:
    raise InputError(
      'TF_CONFIG must be JSON such as {"cluster": {"worker": ["host0:port", '
      '"host1:port"]}, "task": {"type": "worker", "index": 0}}. Received: '
      f'{text!r} ({type(error).__name__}: {error}).'
    ) from error
  unknown = sorted({*groups, kind} - {'chief', 'worker'})
  if unknown:
    raise InputError(
      f'TF_CONFIG has {", ".join(unknown)}: only chief and worker take part. '
      'There are no parameter servers (all replicas take each step together), '
      'and eval.py follows a training without being named.'
    )
  chiefs = groups.get('chief', [])
  if kind not in groups or index not in range(len(groups[kind])):
    raise InputError(
      f'TF_CONFIG names {kind} {index} as this task, and its cluster has '
      f'{ {name: len(hosts) for name, hosts in groups.items()} }.'
    )
  hosts = (*chiefs, *groups.get('worker', []))
  return hosts, index + (len(chiefs) if kind == 'worker' else 0)


def make_strategy(num_clones=1, clone_on_cpu=False, tpu=None, cluster=None):
  """The tf.distribute strategy.

  Args:
    num_clones: number of GPUs of each host, or of CPU devices with
      `clone_on_cpu`.
    clone_on_cpu: use CPU devices although there are GPUs; more than one are
      virtual devices, which must be asked for before TensorFlow is used.
    tpu: name or address of a TPU, 'local' on its own host; None for none.
    cluster: a Cluster, None for one host. It is waited for the other hosts;
      to be called before TensorFlow is used.

  Returns:
    A strategy.

  Raises:
    InputError: there are not that many devices, or there is no such TPU.
  """
  if tpu:
    return _tpu_strategy(tpu, num_clones, clone_on_cpu, cluster)
  if cluster is not None:
    return _cluster_strategy(num_clones, clone_on_cpu, cluster)
  devices = _devices(num_clones, clone_on_cpu)
  if len(devices) == 1:
    return tf.distribute.OneDeviceStrategy(devices[0])
  return tf.distribute.MirroredStrategy(devices)


def _cluster_strategy(num_clones, clone_on_cpu, cluster):
  gpus = [] if clone_on_cpu else tf.config.list_physical_devices('GPU')
  if num_clones > max(1, len(gpus)):
    raise InputError(
      f'--num_clones={num_clones}, but this host shows {len(gpus)} GPUs to '
      'TensorFlow. On several hosts a host without GPUs is one replica.'
    )
  # It tells of every reduction that is traced.
  tf.get_logger().setLevel('WARNING')
  try:
    tf.config.set_visible_devices(gpus[:num_clones], 'GPU')
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
      tf.train.ClusterSpec({'worker': list(cluster.hosts)}),
      task_type='worker',
      task_id=cluster.index,
      num_accelerators={'GPU': len(gpus[:num_clones])},
      rpc_layer='grpc',
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)
  except RuntimeError as error:
    raise InputError(
      'Several hosts must be asked for before TensorFlow is used in this '
      f'process: {error}'
    ) from error
  except _PASSING as error:
    raise Interrupted(
      f'the other hosts of {", ".join(cluster.hosts)} did not come: '
      f'{str(error).splitlines()[0]}'
    ) from error
  except tf.errors.OpError as error:
    raise InputError(
      f'host {cluster.index} ({cluster.hosts[cluster.index]}) cannot join '
      f'{", ".join(cluster.hosts)}: {str(error).splitlines()[0]}. Its port '
      'must be free, and the others must be started.'
    ) from error


def _devices(num_clones, clone_on_cpu):
  """Names of the devices, one for each replica."""
  gpus = [] if clone_on_cpu else tf.config.list_logical_devices('GPU')
  if len(gpus) >= num_clones:
    return [gpu.name for gpu in gpus[:num_clones]]
  if num_clones == 1:
    return ['/cpu:0']
  if not clone_on_cpu:
    raise InputError(
      f'--num_clones={num_clones}, but this host shows {len(gpus)} GPUs to '
      'TensorFlow. Give a smaller number, or --clone_on_cpu for virtual CPU '
      'devices.'
    )
  return _virtual_cpus(num_clones)


def _virtual_cpus(count):
  cpu = tf.config.list_physical_devices('CPU')[0]
  try:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
  except RuntimeError as error:
    # TensorFlow was used before; there may be enough devices all the same.
    if len(tf.config.list_logical_devices('CPU')) < count:
      raise InputError(
        f'{count} CPU devices must be asked for before TensorFlow is used in '
        f'this process: {error}'
      ) from error
  return [cpu.name for cpu in tf.config.list_logical_devices('CPU')[:count]]


def _tpu_strategy(tpu, num_clones, clone_on_cpu, cluster):
  if cluster is not None:
    raise InputError(
      f'--tpu={tpu} brings its own hosts. Leave out --worker_hosts and '
      'TF_CONFIG.'
    )
  if num_clones != 1 or clone_on_cpu:
    flag = '--clone_on_cpu' if clone_on_cpu else f'--num_clones={num_clones}'
    raise InputError(
      f'{flag} is for CPUs and GPUs; all cores of --tpu={tpu} are used. Leave '
      'one of the flags out.'
    )
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
  except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
    lines = str(error).splitlines() or [type(error).__name__]
    raise InputError(f'--tpu={tpu}: no such TPU: {lines[0]}') from error
  return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def deterministic_kernels(enabled):
  """Computes the same, bit for bit, each time, on one kind of device.

  TensorFlow keeps to this until the end of the process.

  Args:
    enabled: whether to; False does nothing.

  Raises:
    InputError: a kernel has no such form on this device.
  """
  if enabled:
    tf.config.experimental.enable_op_determinism()
  try:
    yield
  except tf.errors.UnimplementedError as error:
    if not enabled or 'determinis' not in str(error):
      raise
    raise InputError(
      'this network has a kernel without a deterministic form on this device: '
      f'{str(error).splitlines()[0]}. --nodeterministic takes the fastest '
      'ones, whose last bits may differ from run to run.'
    ) from error
