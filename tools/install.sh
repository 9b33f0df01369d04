#!/usr/bin/env bash
# Installs the Debian packages of the tools named (all of tools/packages.txt without names) that are missing.
#
#   tools/install.sh [--if-allowed] [--quick] [TOOL ...]
#
# --quick: without those that only slow tests use.
# --if-allowed: where installing is not possible (neither root nor sudo without a password, no apt-get, no network, or
# SYSTEM_TOOLS=no), say so and succeed: the tests that need a missing tool are skipped, and say so at their end.
set -uo pipefail
table=$(dirname "${BASH_SOURCE[0]}")/packages.txt
optional=no quick=no
while [[ ${1:-} == --* ]]; do
    case $1 in
        --if-allowed) optional=yes ;;
        --quick) quick=yes ;;
        *) echo "tools/install.sh: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done

is_there() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        python:*) "${PYTHON:-python3}" -c "import ${1#python:}" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

give_up() {
    echo "system packages are missing: ${missing[*]}; $1" >&2
    [[ $optional == yes ]] && exit 0
    exit 1
}

for name in "$@"; do
    if ! awk '!/^#/ && NF {print $1}' "$table" | grep -qxF -- "$name"; then
        echo "tools/install.sh: no tool '$name' in $table; it lists: $(awk '!/^#/ && NF {print $1}' "$table" | sort -u | xargs)" >&2
        exit 2
    fi
done

missing=()
while read -r tool package witness tests; do
    [[ -z $tool || $tool == \#* ]] && continue
    (($# == 0)) || [[ " $* " == *" $tool "* ]] || continue
    [[ $quick == yes && $tests == slow ]] && continue
    is_there "$witness" || [[ " ${missing[*]} " == *" $package "* ]] || missing+=("$package")
done <"$table"
((${#missing[@]})) || exit 0

command="apt-get install --no-install-recommends ${missing[*]}"
[[ ${SYSTEM_TOOLS:-} != no ]] || give_up "SYSTEM_TOOLS=no forbids installing them (as root: $command)"
command -v apt-get >/dev/null || give_up "there is no apt-get here: install what holds the same programs"
as_root=()
if [[ $(id -u) != 0 ]]; then
    if [[ $optional == yes ]]; then
        as_root=(sudo -n)
        sudo -n true 2>/dev/null || give_up "installing them needs root: run 'make tools' as root, or: $command"
    else
        as_root=(sudo)
        command -v sudo >/dev/null || give_up "installing them needs root: $command"
    fi
fi
echo "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    give_up "apt-get could not install them (its last lines stand above)"
fi
