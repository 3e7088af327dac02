#!/usr/bin/env bash
# Fine-tunes the published MobileNetV2 VOC model on CamVid.
#   bash recipes/camvid_mobilenet_v2.sh CAMVID CHECKPOINT OUTPUT
# Reached: mIoU 0.6243 on val (101 images, single scale, output stride 16), pixel
# accuracy 0.9109. Time on two cores: 22 minutes of training, 23 in all.
# CAMVID is the folder with train/ and trainannot/ (SegNet's split);
# CHECKPOINT the folder of deeplabv3_mnv2_pascal_trainval.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
camvid=$1 checkpoint=$2 output=$3

python datasets/build_camvid_data.py --camvid_root="$camvid" \
  --output_dir="$output/tfrecord"

python train.py --train_logdir="$output/train" \
  --dataset_dir="$output/tfrecord" --tf_initial_checkpoint="$checkpoint" \
  --initialize_last_layer=false --model_variant=mobilenet_v2 \
  --output_stride=16 --decoder_output_stride=4 --train_crop_size=193,257 \
  --train_batch_size=8 --base_learning_rate=0.02 --batch_norm_decay=0.99 \
  --min_scale_factor=0.5 --max_scale_factor=1.5 \
  --training_number_of_steps=2000 --save_interval_steps=500 --log_steps=50

python eval.py --checkpoint_dir="$output/train" --eval_logdir="$output/eval" \
  --dataset_dir="$output/tfrecord" --eval_crop_size=361,481 \
  --max_number_of_evaluations=1

python vis.py --checkpoint_dir="$output/train" --vis_logdir="$output/vis" \
  --dataset_dir="$output/tfrecord" --vis_crop_size=361,481 \
  --max_number_of_iterations=1
