#!/usr/bin/env bash
# Makes what tests boot under build/guest: Debian's cloud kernel (vmlinuz) and an initramfs of our agent, busybox and the
# virtio modules (initrd.img). Does only what is missing or older than its sources.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=build/guest
here=tests/guest
# shellcheck source=tests/guest/make.sh
. $here/make.sh
lock "$out"

newer "$out/agent" $here/{agent,facts,first_process}.cc $here/{facts,first_process}.h ||
  compile "$out/agent" $here/{agent,facts,first_process}.cc

$here/debian_kernel.sh linux-image-cloud-amd64 "$out/kernel"
[[ $out/vmlinuz -ef $out/kernel/vmlinuz ]] || ln -f "$out/kernel/vmlinuz" "$out/vmlinuz"

newer "$out/initrd.img" "$out/agent" "$out/kernel/release" $here/{modules,prepare.sh,make.sh} || {
  release=$(<"$out/kernel/release")
  tree=$(mktemp -d "$out/initrd.XXXXXX")
  trap 'rm -rf "$tree"' EXIT
  mkdir -p "$tree"/{bin,dev,proc,sys,tmp,etc}
  cp "$out/agent" "$tree/init"
  ln -s /init "$tree/bin/facts"
  ln -s /init "$tree/bin/clock-gap"
  cp /bin/busybox "$tree/bin/busybox"
  modules_with_dependencies "$out/kernel" "$release" $here/modules >"$out/modules.paths"
  while read -r path; do
    install -D -m 644 "$path" "$tree/lib/modules/$release/${path#*"/lib/modules/$release/"}"
  done <"$out/modules.paths"
  cp "$out/kernel/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$tree/lib/modules/$release/"
  /sbin/depmod -b "$tree" "$release"
  rm "$tree/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$tree/lib/modules/$release"/*.bin
  archive "$tree" "$out/initrd.img"
}
