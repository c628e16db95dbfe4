#!/usr/bin/env bash
# Install what the benches compare with, from Debian's packages. Needs root.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends \
    invesalius-examples dcmtk orthanc rsync openssh-server borgbackup syncthing-relaysrv gcc libc6-dev
# Debian starts an Orthanc of its own; the benches start theirs.
(service orthanc stop || true) >/dev/null 2>&1
