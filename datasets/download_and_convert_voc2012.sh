#!/usr/bin/env bash
# Downloads PASCAL VOC 2012 (2 GB) and converts it to TFRecord files.
#
#   bash datasets/download_and_convert_voc2012.sh [options]
#
#   --work_dir=FOLDER  where everything goes; pascal_voc_seg if not given
#   --with_sbd         also the Semantic Boundaries Dataset (1.4 GB), which
#                      makes the split train_aug
#   --help
#
# The records are in FOLDER/tfrecord: train, val, trainval (and train_aug).
# Started again, it goes on where it was interrupted. The archives may be
# removed afterwards. The photographs are from Flickr, whose terms of use hold.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

work_dir=pascal_voc_seg
with_sbd=false
for option in "$@"; do
  case "$option" in
    --work_dir=?*) work_dir="${option#*=}" ;;
    --with_sbd) with_sbd=true ;;
    --help) show_help ;;
    *) fail_option "$option" ;;
  esac
done
output_dir="$work_dir/tfrecord"
voc="$work_dir/VOCdevkit/VOC2012"
berkeley=https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping

prepare curl tar
get http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar \
  md5:6cd6e144f989b92b3379bac3b3de84fd "$work_dir" VOCdevkit/VOC2012
flags=()
if $with_sbd; then
  get "$berkeley/semantic_contours/benchmark.tgz" \
    md5:82b4d87ceb2ed10f6038a1cba92111cb "$work_dir" benchmark_RELEASE/dataset
  flags+=(--sbd_root="$work_dir/benchmark_RELEASE/dataset")
fi
convert build_voc2012_data.py --image_folder="$voc/JPEGImages" \
  --semantic_segmentation_folder="$voc/SegmentationClass" \
  --list_folder="$voc/ImageSets/Segmentation" ${flags[@]+"${flags[@]}"}
