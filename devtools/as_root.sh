# shellcheck shell=bash
# as_root COMMAND...: runs it as root, through sudo where that isn't so already.

as_root() {
  if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi
}
