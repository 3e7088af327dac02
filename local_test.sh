#!/usr/bin/env bash
# The main job, end to end, from a fresh clone: makes the virtual environment,
# generates the shapes data set, trains mobilenet_v2 on it from scratch,
# evaluates, visualises, exports, and runs the exported model.
#   bash local_test.sh [folder for the results]
# Under ten minutes on two cores. OUTPUT/... can be deleted afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
output="${1:-local_test_output}"
source environment.sh

# Of an earlier run, and nothing else.
rm -rf "$output"/{shapes,train,eval,vis,exported}
mkdir -p "$output"
data="$output/shapes/tfrecord"
size=129,161

echo "== Data"
python datasets/build_shapes_data.py --output_dir="$output/shapes" \
  --num_train=2000 --num_val=100 --image_size=128,160

echo "== Training"
start=$SECONDS
python train.py --train_logdir="$output/train" --dataset_dir="$data" \
  --model_variant=mobilenet_v2 --output_stride=16 --train_crop_size=97,97 \
  --depth_multiplier=0.5 --divisible_by=8 --decoder_output_stride=4 \
  --aspp_convs_filters=64 --decoder_filters=64 --batch_norm_decay=0.99 \
  --min_scale_factor=0.75 --max_scale_factor=1.0 --train_batch_size=16 \
  --base_learning_rate=0.15 \
  --training_number_of_steps=1800 --log_steps=100
training=$((SECONDS - start))

echo "== Evaluation"
python eval.py --checkpoint_dir="$output/train" --eval_logdir="$output/eval" \
  --dataset_dir="$data" --eval_crop_size=$size --max_number_of_evaluations=1

echo "== Visualisation"
python vis.py --checkpoint_dir="$output/train" --vis_logdir="$output/vis" \
  --dataset_dir="$data" --vis_crop_size=$size --max_number_of_iterations=1 \
  --also_save_raw_predictions

echo "== Export"
python export_model.py --checkpoint_path="$output/train" \
  --export_path="$output/exported" --crop_size=$size

echo "== The exported model, in plain TensorFlow"
python - "$output" <<'PYTHON'
import glob
import os
import sys

import numpy as np
import tensorflow as tf

output = sys.argv[1]
run = tf.saved_model.load(f'{output}/exported').signatures['serving_default']
files = sorted(glob.glob(f'{output}/vis/raw_segmentation_results/*.png'))
for path in files:
  name = os.path.splitext(os.path.basename(path))[0]
  image = tf.io.read_file(f'{output}/shapes/JPEGImages/{name}.jpg')
  labels = run(ImageTensor=tf.io.decode_jpeg(image, channels=3)[tf.newaxis])
  expected = tf.io.decode_png(tf.io.read_file(path), channels=1)[..., 0]
  if not np.array_equal(labels['SemanticPredictions'][0], expected):
    sys.exit(f'{name}: the exported model differs from vis.py')
print(f'The labels of {len(files)} images equal those of vis.py.')
PYTHON

python - "$output" "$training" <<'PYTHON'
import json
import sys

path = f'{sys.argv[1]}/eval/miou_latest.json'
with open(path) as file:
  miou = json.load(file)['miou']
print(f'mIoU {miou:.4f} after {sys.argv[2]} s of training.')
print(f'Pictures: {sys.argv[1]}/vis/index.html')
PYTHON
