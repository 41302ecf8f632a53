# shellcheck shell=bash
# The Debian packages that ./dev needs, by what for.

# shellcheck source=devtools/as_root.sh
. devtools/as_root.sh

declare -A packages=(
  [build]="g++ cmake ninja-build ccache pkg-config python3
    libprotobuf-dev libprotoc-dev protobuf-compiler libabsl-dev libasio-dev libspdlog-dev libfmt-dev libcli11-dev
    liburing-dev libslirp-dev liblzma-dev zlib1g-dev liblz4-dev libzstd-dev libgtest-dev libgmock-dev"
  [lab]="python3 g++ qemu-system-x86 busybox-static cpio kmod xz-utils"
  [test]="qemu-utils libvhdi-utils fio e2fsprogs iperf3 golang-go golang-github-containerd-ttrpc-dev golang-github-prometheus-common-dev gogottrpc acpica-tools iproute2 lz4 zstd xz-utils"
  [demo]="mmdebstrap fakeroot e2fsprogs"
  [lint]="clang-format-14 clang-tidy-14 shellcheck git"
  [fuzz]="clang-14 libclang-rt-14-dev lld-14"
  [bench]="libbenchmark-dev fio qemu-utils golang-go golang-github-containerd-ttrpc-dev"
)

# Those of the given packages that aren't installed.
missing_packages() {
  # dpkg-query fails when it doesn't know one of them, and prints the others all the same.
  { dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } |
    awk -v wanted="$*" '
      $1 == "installed" { installed[$2] = 1 }
      END { n = split(wanted, names); for (i = 1; i <= n; i++) if (!installed[names[i]]++) print names[i] }'
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600 "$@"
}

# need GROUP...: installs what is missing of these groups, and asks nobody.
need() {
  local group missing=() wanted=()
  for group; do
    [[ -n ${packages[$group]-} ]] || fail "no such group of packages: $group (there are: ${!packages[*]})"
    # shellcheck disable=SC2206  # words on purpose
    wanted+=(${packages[$group]})
  done
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  ((${#missing[@]})) || return 0
  # A password can only be asked for while the terminal is still ours.
  [[ $EUID -eq 0 ]] || sudo -v || fail "installing packages needs root: ${missing[*]}"
  step "refresh the package lists" apt update
  step "install ${#missing[@]} packages" apt install --no-install-recommends "${missing[@]}"
}

run_setup() {
  if (($#)); then need "$@"; else need "${!packages[@]}"; fi
}
