#!/usr/bin/env bash
# Downloads COCO 2017 (20 GB) with the labels of COCO-Stuff (0.7 GB) or the
# panoptic ones (0.9 GB), and converts it to TFRecord files.
#
#   bash datasets/download_and_convert_coco.sh [options]
#
#   --work_dir=FOLDER  where everything goes; coco if not given
#   --labels=stuff     171 classes, or --labels=panoptic: 133 classes
#   --help
#
# The records are in FOLDER/tfrecord_stuff or FOLDER/tfrecord_panoptic: train,
# val. Started again, it goes on where it was interrupted. The archives may be
# removed afterwards. The annotations are under CC BY 4.0; the photographs are
# from Flickr, whose terms of use hold.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

work_dir=coco
labels=stuff
for option in "$@"; do
  case "$option" in
    --work_dir=?*) work_dir="${option#*=}" ;;
    --labels=stuff | --labels=panoptic) labels="${option#*=}" ;;
    --help) show_help ;;
    *) fail_option "$option" ;;
  esac
done
output_dir="$work_dir/tfrecord_$labels"
images=http://images.cocodataset.org
stuff=http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset

prepare curl unzip
if [ "$labels" = stuff ]; then
  get "$stuff/stuffthingmaps_trainval2017.zip" zip "$work_dir/stuffthingmaps" \
    val2017
else
  get "$images/annotations/panoptic_annotations_trainval2017.zip" \
    sha256:c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370 \
    "$work_dir" annotations/panoptic_val2017.json
  for folder in panoptic_train2017 panoptic_val2017; do
    unpack "$work_dir/annotations/$folder.zip" "$work_dir/annotations" $folder
  done
fi
get "$images/zips/val2017.zip" \
  sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05 \
  "$work_dir" val2017
get "$images/zips/train2017.zip" \
  sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929 \
  "$work_dir" train2017
convert build_coco_data.py --coco_root="$work_dir" --labels="$labels"
