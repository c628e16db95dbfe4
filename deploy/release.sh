#!/usr/bin/env bash
# Makes what a release publishes, into a new folder, and signs it:
#
#   deploy/release.sh FOLDER KEY
#
# KEY is an SSH key that signs releases and nothing else. What is built is the commit that is checked
# out; what was changed and not committed is refused. It needs git, ssh-keygen and the project's
# environment; the maker of the SBOM is installed beside, into an environment that is thrown away.
# docs/releasing.md says how the result is checked.
set -euo pipefail
[ $# = 2 ] || { echo "usage: deploy/release.sh FOLDER KEY" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1 key=$2 python=${PYTHON:-$root/.venv/bin/python}
[ ! -e "$folder" ] || { echo "$folder is there already; name a new folder" >&2; exit 1; }
[ -f "$key" ] || { echo "$key is no file; make a key: ssh-keygen -t ed25519 -f KEY" >&2; exit 1; }
cd "$root"
[ -z "$(git status --porcelain)" ] || { echo "commit or undo what was changed first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Built twice from what is committed, and compared: whoever doubts the wheel can build it again.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
for n in 1 2; do
    mkdir "$work/source$n" "$work/built$n"
    git archive HEAD | tar -x -C "$work/source$n"
    "$python" -m build --no-isolation --wheel --outdir "$work/built$n" "$work/source$n" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
done
wheel=$(cd "$work/built1" && ls emix-*.whl)
cmp "$work/built1/$wheel" "$work/built2/$wheel" ||
    { echo "two builds of the wheel differ; nothing was made" >&2; exit 1; }

"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
"$work/tools/bin/cyclonedx-py" requirements --output-reproducible --spec-version 1.6 \
    --pyproject pyproject.toml --output-file "$work/emix.cdx.json" deploy/requirements.txt

mkdir "$folder"
cp "$work/built1/$wheel" "$work/emix.cdx.json" deploy/requirements.txt deploy/*.service "$folder"
cd "$folder"
sha256sum -- * >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" .
ssh-keygen -q -Y sign -f "$key" -n emix-release SHA256SUMS
echo "$folder has $wheel, its SBOM, what it needs, and SHA256SUMS, signed"
