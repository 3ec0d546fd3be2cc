#!/usr/bin/env bash
# Packs a Python and the packages that the models need into one file for EXECUTION_ENV_PATH, for servers whose image
# cannot be changed:
#   ./pack_environment.sh python3.10 environment.tar.gz
# This Python must have a shared library (libpython3.10.so), as Pythons of pyenv and conda do, and the same version as the
# server's Python backend: 3.10 up to Triton 24.10, 3.12 from 24.11 on.
set -euo pipefail
python=$1 target=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$("$python" -c 'import sys; print(sys.base_prefix)')
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ls "$source/lib/libpython$version.so" >/dev/null

mkdir "$work/bin" "$work/lib"
cp -P "$source"/bin/python* "$work/bin"
cp -P "$source"/lib/libpython* "$work/lib"
tar -C "$source/lib" --exclude=site-packages --exclude=test --exclude=__pycache__ --exclude='config-*' -c "python$version" |
  tar -C "$work/lib" -x
"$python" -m pip --disable-pip-version-check install -q --require-hashes -r requirements.lock.txt \
  --target "$work/lib/python$version/site-packages"
# Triton unpacks the file, sources this script, and starts the model.
cat >"$work/bin/activate" <<'ACTIVATE'
PYTHONHOME=$(dirname "$(dirname "${BASH_SOURCE[0]:-$0}")")
export PYTHONHOME PATH="$PYTHONHOME/bin:$PATH"
unset PYTHONPATH
ACTIVATE
tar -C "$work" -czf "$target.part" .
mv "$target.part" "$target"
ls -lh "$target"
