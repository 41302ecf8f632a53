# shellcheck shell=bash
# What the guest's and the lab's prepare.sh share: to be sourced.

# lock DIR: makes it, and keeps others from working in it until this script ends.
lock() {
  mkdir -p "$1"
  exec {lock_fd}>"$1/lock"
  flock "$lock_fd"
}

# newer TARGET SOURCE...: is the target there and no older than any source?
newer() {
  local target=$1 source
  shift
  [[ -e $target ]] || return 1
  for source; do [[ ! $source -nt $target ]] || return 1; done
}

# compile TARGET SOURCE...: a small static program.
compile() {
  local target=$1
  shift
  "${CXX:-g++}" -std=c++20 -Os -Wall -Wextra -Werror -ffunction-sections -Wl,--gc-sections -static -s -I. -o "$target.new" "$@"
  mv "$target.new" "$target"
}

# modules_with_dependencies KERNEL RELEASE LIST: the paths of the modules in the list, in the order in which to load them.
modules_with_dependencies() {
  grep -v '^#' "$3" | xargs /sbin/modprobe -d "$1" -S "$2" --show-depends -a |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# install_programs TREE PROGRAM...: programs of this machine in TREE/bin, with the shared libraries that aren't in the tree's
# own folder of them.
install_programs() {
  local tree=$1 libraries=$1/lib/x86_64-linux-gnu program path
  shift
  mkdir -p "$tree/bin" "$tree/lib64" "$libraries"
  for program; do
    path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program")
    install -m 755 -t "$tree/bin" "$path"
    while read -r path; do
      [[ -e $libraries/${path##*/} ]] || cp -L -t "$libraries" "$path"
    done < <(LD_LIBRARY_PATH=$libraries ldd "$path" | awk '$2 == "=>" { print $3 }')
  done
  cp -L -t "$tree/lib64" /lib64/ld-linux-x86-64.so.2
}

# archive TREE FILE: the same initramfs for the same contents, whenever and by whomever it is made.
# Not compressed: unpacking costs an emulated CPU more than copying does.
archive() {
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc -R +0:+0 --reproducible --quiet) >"$2.new"
  mv "$2.new" "$2"
}
