#!/bin/sh
# Has spin check every order of steps of claim.pml, and proves that the check can fail. Usage: check.sh SOURCE OUT
set -eu
source=$(realpath "$1")
mkdir -p "$2"
cd "$2"

# check [-DNAME]: prints spin's result, and fails if spin found an error
check() {
    spin -a "$@" "$source"
    cc -O2 -DSAFETY -o pan pan.c
    ./pan -m100000 > log
    grep -E "errors:|states, stored|pan:" log
    grep -q "errors: 0" log
}

check
if check -DBROKEN; then
    echo "spin found no error in the broken protocol"
    exit 1
fi
echo "spin found the error in the broken protocol, as it must"
