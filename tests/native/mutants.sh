#!/bin/sh
# Proves that the ThreadSanitizer run can fail: weakens each labelled memory order in turn, in a copy of the sources, and demands
# a report. Usage: mutants.sh ROOT OUT [check]; with `check` it only checks that each text is in its file.
set -eu
root=$1
out=$2/mutants
only=${3-}
failed=0

# mutant FILE TEXT REPLACEMENT TEST
mutant() {
    rm -rf "$out"
    mkdir -p "$out"
    cp -r "$root/csrc" "$out/csrc"
    sed -i "s|$2|$3|" "$out/csrc/$1"
    if cmp -s "$root/csrc/$1" "$out/csrc/$1"; then
        echo "nothing in $1 matches: $2"
        exit 1
    fi
    if [ "$only" = check ]; then
        echo "applies: $1: $2"
        return
    fi
    "${CXX:-g++}" -std=c++17 -O1 -g -fsanitize=thread -fno-builtin -pthread -I"$out/csrc" -I"$root/tests/native" \
        "$root/tests/native/ring_test.cpp" "$out/csrc/shm/futex.cpp" "$out/csrc/base/process.cpp" -o "$out/ring_test"
    if "$out/ring_test" "$4" > "$out/log" 2>&1 || ! grep -q "ThreadSanitizer: data race" "$out/log"; then
        echo "not found: $1: $2"
        failed=1
    else
        echo "found: $1: $2"
    fi
}

positions=the_positions_alone_order_the_entries
bells=a_ring_publishes_what_came_before_it
for label in publish recycle; do
    mutant shm/ring.hpp "memory_order_release);  // SYNC($label)" "memory_order_relaxed);  // SYNC($label)" $positions
    mutant shm/ring.hpp "memory_order_acquire);  // SYNC($label)" "memory_order_relaxed);  // SYNC($label)" $positions
done
mutant shm/futex.cpp "kOneRing, std::memory_order_acq_rel);  // SYNC(bell)" "kOneRing, std::memory_order_relaxed);" $bells
mutant shm/futex.hpp "memory_order_acquire)); }  // SYNC(bell)" "memory_order_relaxed)); }" $bells
mutant shm/claim.hpp "return claim_of(descriptor)->compare_exchange_strong(offered, wanted, std::memory_order_acq_rel);  // SYNC(claim)" \
    "if (claim_of(descriptor)->load() != offered) return false; claim_of(descriptor)->store(wanted); return true;" \
    each_task_is_run_or_withdrawn_and_never_both
exit $failed
