# shellcheck shell=bash

# ./dev bench [NAME...] [OPTION...]
# A benchmark is a folder of bench/ with an executable `run`, which prints its figures beside their targets,
# and fails when it can't measure (with --check also when a target is missed).
run_bench() {
  local name failed=() names=()
  while (($#)) && [[ $1 != -* ]]; do
    names+=("${1//-/_}")
    shift
  done
  need build lab test bench
  build_preset release
  step "prepare the guest" tests/guest/prepare.sh disk net
  step "prepare the lab" tests/lab/prepare.sh
  if ((${#names[@]} == 0)); then mapfile -t names < <(cd bench && find . -mindepth 2 -maxdepth 2 -name run | cut -d/ -f2 | sort); fi
  for name in "${names[@]}"; do
    [[ -x bench/$name/run ]] || fail "bench: no such benchmark: $name"
  done
  for name in "${names[@]}"; do
    say "bench $name"
    "bench/$name/run" "$@" || failed+=("$name")
  done
  ((${#failed[@]} == 0)) || fail "bench failed: ${failed[*]}"
}
