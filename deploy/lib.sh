# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Shared by deploy/deps, deploy/demo and tests/run. Sourced, not run.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# become_root "$@": returns as root, or runs this script again through sudo.
become_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || die "needs root: block devices and mounts do. Run it as root, or install sudo."
    exec sudo --preserve-env=MOORING_BUILD,CMAKE_BUILD_PARALLEL_LEVEL -- "$0" "$@"
}

# quietly LOG COMMAND...: no output unless it fails.
quietly() {
    local log=$1
    shift
    "$@" </dev/null >>"$log" 2>&1 && return
    local status=$?
    printf '\nThis failed with status %d: %s\n' "$status" "$*" >&2
    tail -n 40 "$log" >&2
    return "$status"
}

# build PRESET LOG: configures and builds.
build() {
    (cd "$top" && quietly "$2" cmake --preset "$1" && quietly "$2" cmake --build --preset "$1")
}
