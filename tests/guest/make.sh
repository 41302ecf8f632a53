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

# archive TREE FILE: the same initramfs for the same contents, whenever and by whomever it is made.
# Not compressed: unpacking costs an emulated CPU more than copying does.
archive() {
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc -R +0:+0 --reproducible --quiet) >"$2.new"
  mv "$2.new" "$2"
}
