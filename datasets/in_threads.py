"""Work on one image after another, several of them at the same time."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')

# Items that wait for a thread, or for being used, for each thread.
_WAITING = 2


def in_threads(
  function: Callable[[_Item], _Result],
  items: Iterable[_Item],
  num_threads: int | None = None,
) -> Iterator[_Result]:
  """What a function returns for each item, in their order.

  Few results are kept at the same time. An error is raised at the place of its
  item; what was begun by then is finished, and the rest is left.

  Args:
    function: what the threads call.
    items: its arguments; only the caller's thread iterates over them.
    num_threads: how many there are, as many as processors if None.

  Yields:
    The results.
  """
  num_threads = num_threads or os.cpu_count() or 1
  waiting = collections.deque()
  pool = concurrent.futures.ThreadPoolExecutor(num_threads)
  try:
    for item in items:
      waiting.append(pool.submit(function, item))
      if len(waiting) > _WAITING * num_threads:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
