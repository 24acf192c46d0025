#!/usr/bin/env bash
# Each way to install callme must show it to twistd: pip install ., pip install -e ., the wheel.
set -euo pipefail
work=$(mktemp -d "${1:?a directory to work in}/packaging.XXXXXX")
trap 'rm -rf "$work"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$work"
cd "$work"
python -m build --quiet --wheel --outdir "$work/dist" .
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
    "$work/venv/bin/python" -c "from callme.store.sqlite.file import migrations; assert migrations().numbered"
    "$work/venv/bin/python" -c "from callme.webui.routes import Pages; from callme.webui.layout import ASSETS; assert len(ASSETS) == 3"
    cd "$work"
    echo "pip install ${what##*/}: callme is there"
done
