#!/usr/bin/env bash
# The gate trials behind docs/decisions/0001-journal-sizes.md. Power cuts and the full file system need root, loop devices,
# ext4 and xfs_io (xfsprogs); the slow device qemu-storage-daemon and FUSE.
#
#   gates.sh all                                                every figure of the decision, in about ten minutes
#   gates.sh cuts NAME COUNT COMMIT_BYTES ROTATE_BYTES PREALLOC_MIB [nosync]   COUNT power cuts, then the sums of what was lost
#   gates.sh ref_cuts NAME COUNT COMMIT_BYTES first|together|ahead [nosync]    the same for commits that reference their bytes
#   gates.sh throttled MIB                                      commits that reference their bytes, on a slow device
#   gates.sh full COMMIT_KIB MIB PREALLOC_MIB                   commits on a full 128 MiB file system
#
# A cut shuts ext4 down without flushing its journal (EXT4_IOC_SHUTDOWN): what was not synced is lost. It does not model a
# disk that loses what it received before a flush. GATES names the program (default: gates), WORK a folder.
set -euo pipefail

gates=${GATES:-gates}
work=${WORK:-$(mktemp -d)}
image_mib=${IMAGE_MIB:-256}
mnt=$work/mnt
mkdir -p "$mnt"
trap 'umount "$mnt" 2>/dev/null || true' EXIT

make_image() {
    rm -f "$work/image"
    truncate -s "${image_mib}M" "$work/image"
    mkfs.ext4 -q -F "$work/image"
    mount -o loop "$work/image" "$mnt"
}

# sled's threads can run for a moment after the last write
unmount() { for _ in $(seq 50); do umount "$mnt" 2>/dev/null && return; sleep 0.05; done; umount "$mnt"; }

# cut_all COUNT RESULTS CHECK SHORTEST LONGER WRITER WORD...: cuts, each judged by `gates CHECK`, whose line goes to RESULTS.
# A writer has SHORTEST ms at least, and up to LONGER ms more.
cut_all() {
    local count=$1 results=$2 check=$3 shortest=$4 longer=$5 writer
    shift 5
    : >"$results"
    make_image
    for _ in $(seq "$count"); do
        "$gates" "$1" "$mnt/store" "${@:2}" >"$work/acked" 2>"$work/writer.err" &
        writer=$!
        for _ in $(seq 100); do [[ -s $work/acked ]] && break; sleep 0.01; done
        sleep "0.$(printf '%03d' $((shortest + RANDOM % longer)))"
        xfs_io -x -c shutdown "$mnt"
        kill -9 "$writer" 2>/dev/null || true
        wait "$writer" 2>/dev/null || true
        unmount
        mount -o loop "$work/image" "$mnt"
        rm -rf "$work/copy"
        timeout 30 "$gates" "$check" "$mnt/store" "$work/acked" "$work/copy" >>"$results" 2>"$work/check.err" ||
            echo "acked 0 scan_lost 0 copy_lost 0 both_lost 0 check_failed $(tail -n 1 "$work/check.err")" >>"$results"
        # Each cut begins on a fresh folder, of a file system that has been cut before.
        rm -rf "$mnt/store"
    done
    unmount
}

cuts() {
    local name=$1 count=$2 results=$work/$1.results
    cut_all "$count" "$results" check 50 450 writer "${@:3}"
    awk -v name="$name" '
        { acked += $2; scan += $4; copy += $6; both += $8; cuts++
          scan_cuts += $4 > 0; copy_cuts += $6 > 0; both_cuts += $8 > 0; idle += $2 == 0 }
        /check_failed/ { failed++ }
        $9 == "blobs" && $11 != "" { opened++ }
        END { printf "%s: %d cuts, %d commits acknowledged, lost by scan %d (in %d cuts), by copy %d (in %d), by both %d (in %d); copy did not open %d, check failed %d, nothing acknowledged %d\n",
              name, cuts, acked, scan, scan_cuts, copy, copy_cuts, both, both_cuts, opened, failed, idle }' "$results"
}

# The same of commits that reference their bytes.
ref_cuts() {
    local name=$1 count=$2 results=$work/$1.results
    cut_all "$count" "$results" refcheck 20 300 refwriter "${@:3}"
    awk -v name="$name" '
        /check_failed/ { failed++; next }
        { acked += $2; lost += $4; damaged += $6; torn += $8; torn_cuts += $8 > 0; cuts++; bad += $4 + $6 > 0 }
        END { printf "%s: %d cuts, %d commits acknowledged, lost %d, damaged %d (in %d cuts), references without their bytes behind them %d (in %d cuts), check failed %d\n",
              name, cuts, acked, lost, damaged, bad, torn, torn_cuts, failed }' "$results"
}

# The same work on a device of 150 MB/s and 1,000 requests a second, next to a plain copy: every 4 MiB written are synced.
throttled() {
    IMAGE_MIB=4096 "$(dirname "$0")/../../../plots/slow-disk" 150 1000 "$0" all_ways DIR "$1"
}

# all_ways DIR MIB: commits that reference their bytes, in all ways and sizes, and a copy
all_ways() {
    local how kib
    for kib in 256 1024 4096; do
        for how in inline first together ahead; do
            "$gates" refs "$1/store" "$kib" "$2" "$how"
            rm -rf "$1/store"
        done
    done
    "$gates" copy "$1/store" "$2"
}

full() {
    local image_mib=128
    make_image
    "$gates" full "$mnt/full" "$@" || echo "  ended with status $?"
    unmount
}

all() {
    local mib kib prealloc
    for mib in 4 8 16; do
        for cache in 1 8; do echo "# memory, $mib MiB, cache $cache MiB" && "$gates" memory "$work/dir" "$mib" "$cache" 20; done
        echo "# memory, $mib MiB, cache 1 MiB, one tuned arena"
        MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072 MALLOC_MMAP_THRESHOLD_=131072 \
            "$gates" memory "$work/dir" "$mib" 1 20
    done
    "$gates" blobs "$work/dir"
    "$gates" times "$work/dir"
    for commits in 16384 20000 100000; do "$gates" acks "$work/dir" "$commits"; done
    for kib in 1 16 60 256 1024 8192; do
        for mib in 8 16; do
            for prealloc in 0 32; do "$gates" prealloc "$work/dir" "$kib" "$mib" "$prealloc"; done
        done
    done
    for prealloc in 0 16 32; do full 256 8 "$prealloc"; done
    image_mib=512
    cuts control-without-sync 20 262144 8388608 32 nosync
    cuts 256KiB 100 262144 8388608 32
    cuts 8MiB 50 8388608 67108864 32
    cuts 8KiB 50 8192 8388608 32
    cuts 100B 50 100 8388608 32
    cuts rotations 60 262144 2097152 32
    cuts not-preallocated 100 262144 8388608 0
}

case ${1:-} in
all | cuts | ref_cuts | throttled | all_ways | full) "$@" ;;
*) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
