# shellcheck shell=bash

# ./dev soak [--rounds N] [--fuzz SECONDS]: every test N times over (the micro guests here, the stock kernels in the
# lab), until one fails, and then each fuzzer for so long. docs/reliability.md has what came out.
run_soak() {
  local rounds=20 seconds=600
  while (($#)); do
    case $1 in
      --rounds) rounds=${2-} ;;
      --fuzz) seconds=${2-} ;;
      *) fail "soak: unknown option $1 (there are: --rounds N, --fuzz SECONDS)" ;;
    esac
    [[ ${2-} =~ ^[1-9][0-9]*$ ]] || fail "soak: $1: not a number: ${2-}"
    shift 2
  done
  # Long rounds of disks under random load, other ones each time.
  export BOTHY_DISK_OPERATIONS=${BOTHY_DISK_OPERATIONS:-20000} BOTHY_DISK_SEED=${BOTHY_DISK_SEED:-$RANDOM}
  echo "soak: BOTHY_DISK_OPERATIONS=$BOTHY_DISK_OPERATIONS BOTHY_DISK_SEED=$BOTHY_DISK_SEED"
  # shellcheck source=devtools/test.sh
  . devtools/test.sh
  run_test unit micro tsan lab --repeat "until-fail:$rounds"
  # shellcheck source=devtools/fuzz.sh
  . devtools/fuzz.sh
  run_fuzz "" "$seconds"
}
