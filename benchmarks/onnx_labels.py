"""Copies an ONNX export without its probabilities.

  python -m benchmarks.onnx_labels model.onnx labels.onnx

The runtimes would compute them whether they are asked for or not.
"""

import sys

import onnx


def main(source, target):
  model = onnx.load(source)
  for output in list(model.graph.output):
    if output.name != 'SemanticPredictions':
      model.graph.output.remove(output)
  onnx.save(model, target)


if __name__ == '__main__':
  main(*sys.argv[1:])
