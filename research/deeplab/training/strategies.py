"""Which devices a training runs on."""

import tensorflow as tf

from deeplab.common import InputError


def make_strategy(num_clones=1, clone_on_cpu=False, tpu=None):
  """The tf.distribute strategy for one host, or a TPU.

  Args:
    num_clones: number of GPUs, or of CPU devices with `clone_on_cpu`.
    clone_on_cpu: use CPU devices although there are GPUs; more than one are
      virtual devices, which must be asked for before TensorFlow is used.
    tpu: name or address of a TPU, 'local' on its own host; None for none.

  Returns:
    A strategy.

  Raises:
    InputError: there are not that many devices, or there is no such TPU.
  """
  if tpu:
    return _tpu_strategy(tpu, num_clones)
  devices = _devices(num_clones, clone_on_cpu)
  if len(devices) == 1:
    return tf.distribute.OneDeviceStrategy(devices[0])
  return tf.distribute.MirroredStrategy(devices)


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


def _tpu_strategy(tpu, num_clones):
  if num_clones != 1:
    raise InputError(
      f'--num_clones={num_clones} is for GPUs; all cores of --tpu={tpu} are '
      'used. Leave one of the flags out.'
    )
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
  except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
    lines = str(error).splitlines() or [type(error).__name__]
    raise InputError(f'--tpu={tpu}: no such TPU: {lines[0]}') from error
  return tf.distribute.TPUStrategy(resolver)
