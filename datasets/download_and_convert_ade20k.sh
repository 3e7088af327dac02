#!/usr/bin/env bash
# Downloads ADE20K, as the scene parsing challenge of 2016 has it (1 GB), and
# converts it to TFRecord files.
#
#   bash datasets/download_and_convert_ade20k.sh [options]
#
#   --work_dir=FOLDER  where everything goes; ADE20K if not given
#   --help
#
# The records are in FOLDER/tfrecord: train, val. Started again, it goes on
# where it was interrupted. The archive may be removed afterwards. The data are
# for non-commercial research and education; their terms are at
# https://groups.csail.mit.edu/vision/datasets/ADE20K/terms/
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

work_dir=ADE20K
for option in "$@"; do
  case "$option" in
    --work_dir=?*) work_dir="${option#*=}" ;;
    --help) show_help ;;
    *) fail_option "$option" ;;
  esac
done
output_dir="$work_dir/tfrecord"

prepare curl unzip
get http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip \
  sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7 "$work_dir" \
  ADEChallengeData2016/images
convert build_ade20k_data.py --ade20k_root="$work_dir/ADEChallengeData2016"
