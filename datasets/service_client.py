"""The tf.data service: other machines decode and augment the examples.

A dispatcher deals the epochs out to workers, which make batches; every host of
a run takes batches from them as they become ready. The workers read the
TFRecord files under the same path as the trainer, and run the same version of
TensorFlow.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from deeplab.checking import InputError

# How long a dispatcher and its first worker may take to answer.
WAIT_SECONDS = 60.0

# Between two questions while they do not.
_POLL_SECONDS = 0.5

_ADDRESS = re.compile(
  r'grpc://(?P<target>([\w.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5}))'
)

# Asks the dispatcher for its workers. Request and answer are protocol buffers;
# both are empty where there is nothing in them.
_GET_WORKERS = '/tensorflow.data.DispatcherService/GetWorkers'


def check_address(address: str) -> str:
  """Checks the form of a dispatcher's address.

  Args:
    address: such as 'grpc://host:5000'.

  Returns:
    What follows 'grpc://'.

  Raises:
    InputError: it has another form.
  """
  found = isinstance(address, str) and _ADDRESS.fullmatch(address)
  if not found or not 1 <= int(found['port']) <= 65535:
    raise InputError(
      "data_service must be the address of a tf.data service's dispatcher, "
      'of the form grpc://host:port, such as grpc://10.0.0.5:5000. Received: '
      f'data_service={address!r}.'
    )
  return found['target']


def check(address: str, should_repeat: bool, shard_by: str | None):
  """Checks that a data set with these arguments can use a service.

  Args:
    address: such as 'grpc://host:5000'.
    should_repeat: whether epochs follow each other without end.
    shard_by: what input pipelines are asked to share.

  Raises:
    InputError: it cannot.
  """
  check_address(address)
  if not should_repeat:
    raise InputError(
      f'data_service={address}: the service makes batches for training, where '
      'epochs follow each other without end. Received: should_repeat=False.'
    )
  if shard_by is not None:
    raise InputError(
      f'data_service={address}: the service deals out the batches itself, so '
      f'that shard_by has no meaning. Received: shard_by={shard_by!r}, '
      'expected None.'
    )


def wait_for_workers(address: str, seconds: float | None = None):
  """Waits until the dispatcher answers and has a worker.

  TensorFlow itself would wait for ever.

  Args:
    address: such as 'grpc://host:5000'.
    seconds: how long to wait at most, WAIT_SECONDS if None.

  Raises:
    InputError: the address has another form, nothing or something else answers
      there, or no worker came in time.
  """
  # TensorFlow brings it along; only who uses the service needs it.
  import grpc

  seconds = WAIT_SECONDS if seconds is None else seconds
  deadline = time.monotonic() + seconds
  target = check_address(address)
  fault = 'it does not answer'
  with grpc.insecure_channel(target) as channel:
    ask = channel.unary_unary(_GET_WORKERS)
    while True:
      left = max(deadline - time.monotonic(), 0.01)
      try:
        if ask(b'', timeout=left, wait_for_ready=True):
          return
        fault = 'the dispatcher answers, but has no workers'
      except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
          fault = 'what answers there is no dispatcher of the tf.data service'
          break
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
          fault = f'it answers {error.code().name} ({error.details()})'
      if time.monotonic() + _POLL_SECONDS >= deadline:
        break
      time.sleep(_POLL_SECONDS)
  raise InputError(
    f'data_service={address}: {fault} (tried for {seconds:g} s). Start a '
    'tf.data.experimental.service.DispatchServer and at least one '
    'WorkerServer, check the address, or train without the service.'
  )


def distribute(
  dataset: tf.data.Dataset, address: str, job: Sequence[Any]
) -> tf.data.Dataset:
  """Has the workers of a tf.data service make the elements of a data set.

  What the data set starts from, say the numbers of the epochs, is dealt out:
  every item goes to one worker.

  Args:
    dataset: the data set.
    address: such as 'grpc://host:5000'.
    job: whoever gives the same values, and a data set of the same elements,
      shares them.

  Returns:
    The same elements, in whatever order they become ready.

  Raises:
    InputError: see `wait_for_workers`, or the dispatcher refuses the data set.
  """
  wait_for_workers(address)
  text = repr([*job, dataset.element_spec])
  service = tf.data.experimental.service
  try:
    return dataset.apply(
      service.distribute(
        processing_mode=service.ShardingPolicy.DYNAMIC,
        service=address,
        job_name=hashlib.sha256(text.encode()).hexdigest(),
      )
    )
  except tf.errors.OpError as error:
    raise InputError(
      f'data_service={address}: the dispatcher refuses the data set: '
      f'{error.message}. It has to run the same version of TensorFlow '
      f'({tf.__version__}).'
    ) from error
