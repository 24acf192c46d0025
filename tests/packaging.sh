#!/usr/bin/env bash
# Each way to install callme must show it to twistd: pip install ., pip install -e ., the wheel.
# Two builds of the same sources must be equal, byte by byte.
set -euo pipefail
source=$PWD
work=$(mktemp -d "${1:?a directory to work in}/packaging.XXXXXX")
trap 'rm -rf "$work"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$work"
cd "$work"

# The second build has other times, modes and paths, and another order of directory entries.
export SOURCE_DATE_EPOCH=1767225600
python -m build --quiet --outdir "$work/dist" .
(
    umask 077
    mkdir "$work/again"
    git -C "$source" ls-files -z | sort -rz | (cd "$source" && xargs -0 cp --parents --no-preserve=all -t "$work/again")
    cd "$work/again"
    python -m build --quiet --outdir "$work/again/dist" .
)
for file in "$work"/dist/*; do
    cmp "$file" "$work/again/dist/${file##*/}" || { echo "${file##*/} is not reproducible"; exit 1; }
done
unset SOURCE_DATE_EPOCH
rm -rf "$work/again"
ls "$work"/dist/callme_daemon-*.tar.gz >/dev/null
echo "two builds are equal"

for what in . "-e ." "$work"/dist/*.whl; do
    rm -rf "$work/venv" "$work/build" "$work"/*.egg-info
    python -m venv "$work/venv"
    # shellcheck disable=SC2086 # -e and . are two words
    "$work/venv/bin/pip" install --quiet $what
    cd /
    # Not through a pipe, which grep would close while twistd still writes.
    "$work/venv/bin/twistd" --help >"$work/plugins"
    grep -q '^    callme ' "$work/plugins" || { echo "pip install $what: no callme in twistd --help"; exit 1; }
    "$work/venv/bin/twistd" callme --version
    "$work/venv/bin/twistd" callme --help >"$work/help"
    grep -q -- --database "$work/help"
    git -C "$source" ls-files callme | "$work/venv/bin/python" -c '
import sys
from pathlib import Path
import callme
root = Path(callme.__file__).parents[1]
missing = [name for name in sys.stdin.read().split() if not (root / name).is_file()]
sys.exit(f"not installed: {missing}" if missing else 0)'
    cd "$work"
    echo "pip install ${what##*/}: callme is there"
done

# The command that errors and pages name installs psycopg, and keeps the callme that is there.
"$work/venv/bin/pip" install --quiet 'callme-daemon[postgresql]'
"$work/venv/bin/python" -c "import psycopg"
