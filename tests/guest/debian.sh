#!/usr/bin/env bash
# Makes build/debian/root.ext4: Debian 12 with sysvinit, as a file system without partitions. Its packages come from a mirror of
# Debian's, which takes a minute or two; afterwards only what is older than its sources is made again. Needs no root: fakeroot
# keeps who owns what.
#
#   bothyctl disk convert build/debian/root.ext4 debian.vhdx
#   bothyctl run --kernel build/guest/vmlinuz --initrd build/guest/initrd.img --disk debian.vhdx --cmdline "console=ttyS0 root=/dev/sda"
# shellcheck disable=SC2016  # programs for other shells
set -euo pipefail
cd "$(dirname "$0")/../.."

out=build/debian
here=tests/guest
# shellcheck source=tests/guest/make.sh
. $here/make.sh
lock "$out"

mapfile -t files < <(find $here/debian -type f)
newer "$out/root.ext4" $here/debian.sh "${files[@]}" && exit

work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Services of the base system that have nothing to do in a virtual machine without network file systems.
idle_services=(brightness hwclock.sh mountnfs.sh mountnfs-bootclean.sh urandom bootlogs)

mmdebstrap --variant=essential --include=sysvinit-core,kmod,procps,e2fsprogs \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook="sync-in $here/debian /" \
  --customize-hook='cd "$1" && chown 0:0 etc/inittab etc/hostname etc/fstab root root/.profile' \
  --customize-hook="for service in ${idle_services[*]}; do chroot \"\$1\" update-rc.d \"\$service\" disable; done" \
  bookworm "$work/root.tar"

# Room to work in; what isn't used takes no space in a sparse file.
mkdir "$work/root"
fakeroot -- sh -c 'tar -C "$1/root" -xf "$1/root.tar" && mke2fs -q -t ext4 -L debian -E lazy_itable_init=0,lazy_journal_init=0 -d "$1/root" "$1/root.ext4" 1G' sh "$work"
mv "$work/root.ext4" "$out/root.ext4"
