# Sourced by download_and_convert_*.sh and convert_cityscapes.sh.
#
# $work_dir is the folder that everything goes into. $PYTHON chooses the
# interpreter; it needs this package, so that .venv is best activated before.

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python}"

fail() {
  echo "error: $*" >&2
  exit 1
}

# The comment at the top of the script.
show_help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit 0
}

# Called with an argument that the script does not know.
fail_option() {
  fail "unknown option $1. --help lists the options."
}

# prepare COMMAND...: finds out what is missing before anything is downloaded.
prepare() {
  local command
  for command in "$@" "$python"; do
    command -v "$command" > /dev/null || fail "$command is missing; install it."
  done
  "$python" -c 'import deeplab' 2> /dev/null || fail "$python does not know" \
    "this package. Run 'source $(dirname "$here")/.venv/bin/activate' first," \
    "or set PYTHON."
  mkdir -p "$work_dir" || fail "--work_dir=$work_dir cannot be made."
}

# checksum KIND FILE
checksum() {
  "$python" - "$@" << 'PYTHON'
import hashlib, sys

digest = hashlib.new(sys.argv[1])
with open(sys.argv[2], 'rb') as file:
  while chunk := file.read(1 << 20):
    digest.update(chunk)
print(digest.hexdigest())
PYTHON
}

# is_whole FILE CHECK: CHECK is md5:..., sha1:..., sha256:..., or zip where no
# checksum is published.
is_whole() {
  if [ "$2" = zip ]; then
    unzip -tqq "$1" > /dev/null 2>&1
  else
    [ "$(checksum "${2%%:*}" "$1")" = "${2#*:}" ]
  fi
}

# fetch URL FILE CHECK: goes on with a download that was interrupted.
fetch() {
  local url="$1" file="$2" check="$3" part="$2.part" status=0
  if [ -e "$file" ]; then
    is_whole "$file" "$check" || fail "$file is damaged, or another file than" \
      "$url ($check). Remove it and start again."
    return
  fi
  echo "Downloading $url"
  curl --fail --location --retry 5 --continue-at - --output "$part" "$url" \
    || status=$?
  # curl also fails where everything was there already.
  if [ -e "$part" ] && is_whole "$part" "$check"; then
    mv "$part" "$file"
    return
  fi
  # 33: the server cannot go on in the middle.
  if [ "$status" -ne 0 ] && [ "$status" -ne 33 ]; then
    fail "$url cannot be downloaded, or not entirely (curl: $status). Start" \
      "again to go on, or put the file at $file yourself."
  fi
  rm -f "$part"
  fail "$url is not the file that was expected ($check); what was downloaded" \
    "is removed. Start again."
}

# unpack FILE FOLDER MEMBER: does nothing if that was done before; MEMBER is
# what must be in FOLDER then.
unpack() {
  local file="$1" folder="$2" stamp status=0
  stamp="$folder/.$(basename "$file").unpacked"
  if [ -e "$stamp" ] && [ -e "$folder/$3" ]; then
    return
  fi
  echo "Unpacking $file"
  mkdir -p "$folder"
  case "$file" in
    *.zip) unzip -qo "$file" -d "$folder" || status=$? ;;
    *) tar -xf "$file" -C "$folder" || status=2 ;;
  esac
  # 1 of unzip is a warning.
  [ "$status" -le 1 ] || fail "$file cannot be unpacked into $folder. Is the" \
    "disk full, or the file damaged?"
  [ -e "$folder/$3" ] || fail "$file has no $3 in it; it is another archive" \
    "than expected."
  touch "$stamp"
}

# get URL CHECK FOLDER MEMBER: downloads and unpacks; the archive may be
# removed afterwards.
get() {
  local file="$work_dir/${1##*/}" folder="$3"
  if [ ! -e "$folder/.${1##*/}.unpacked" ] || [ ! -e "$folder/$4" ]; then
    fetch "$1" "$file" "$2"
    unpack "$file" "$folder" "$4"
  fi
}

# convert SCRIPT FLAG...
convert() {
  local script="$1"
  shift
  "$python" "$here/$script" "$@" --output_dir="$output_dir"
}
