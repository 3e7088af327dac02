#!/usr/bin/env bash
# Unpacks Cityscapes and converts it to TFRecord files.
#
#   bash datasets/convert_cityscapes.sh [options]
#
#   --work_dir=FOLDER  where everything goes; cityscapes if not given
#   --zip_dir=FOLDER   where the downloaded archives are; --work_dir if not
#                      given
#   --coarse           also the coarse annotations
#   --help
#
# Cityscapes asks for a registration, so that the archives have to be
# downloaded by hand from https://www.cityscapes-dataset.com/downloads/
#   gtFine_trainvaltest.zip (241 MB), leftImg8bit_trainvaltest.zip (11 GB)
#   for --coarse: gtCoarse.zip (1.3 GB), leftImg8bit_trainextra.zip (44 GB)
#
# The records are in FOLDER/tfrecord: train_fine, val_fine, trainval_fine,
# test_fine (and train_coarse, trainval_coarse). Train ids are made on the way;
# cityscapesScripts are not needed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

work_dir=cityscapes
zip_dir=
coarse=false
for option in "$@"; do
  case "$option" in
    --work_dir=?*) work_dir="${option#*=}" ;;
    --zip_dir=?*) zip_dir="${option#*=}" ;;
    --coarse) coarse=true ;;
    --help) show_help ;;
    *) fail_option "$option" ;;
  esac
done
output_dir="$work_dir/tfrecord"
zip_dir="${zip_dir:-$work_dir}"

# "archive folder in it".
archives=('gtFine_trainvaltest gtFine' 'leftImg8bit_trainvaltest leftImg8bit')
splits=train_fine,val_fine,trainval_fine,test_fine
if $coarse; then
  archives+=('gtCoarse gtCoarse'
    'leftImg8bit_trainextra leftImg8bit/train_extra')
  splits+=,train_coarse,trainval_coarse
fi

# All of them are looked for before the first is unpacked. Who has unpacked
# them already needs none.
prepare unzip
missing=()
for archive in "${archives[@]}"; do
  read -r name member <<< "$archive"
  if [ ! -e "$zip_dir/$name.zip" ] && [ ! -e "$work_dir/$member" ]; then
    missing+=("$name.zip")
  fi
done
if [ ${#missing[@]} -gt 0 ]; then
  fail "--zip_dir=$zip_dir has no ${missing[*]}. Register at" \
    "https://www.cityscapes-dataset.com/, download them from" \
    "https://www.cityscapes-dataset.com/downloads/ and put them there."
fi
for archive in "${archives[@]}"; do
  read -r name member <<< "$archive"
  if [ -e "$zip_dir/$name.zip" ]; then
    unpack "$zip_dir/$name.zip" "$work_dir" "$member"
  fi
done
convert build_cityscapes_data.py --cityscapes_root="$work_dir" \
  --splits="$splits"
