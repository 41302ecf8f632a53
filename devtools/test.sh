# shellcheck shell=bash

declare -a summary=()
tests_run=0
tests_failed=0

# suite NAME MINUTES COMMAND...: a run of ctest, which ends after that time whatever happens. Shows what failed, keeps
# ctest's closing line for the end.
suite() {
  local name=$1 minutes=$2 log status=0 closing
  shift 2
  log=$(log_of "test $name")
  attempt "test $name" python3 devtools/deadline.py $((minutes * 60 * repetitions)) -- "$@" || status=$?
  ((status != 130)) || exit 130
  closing=$(grep -E '^[0-9]+% tests passed' "$log" | tail -n 1 || true)
  if [[ $closing =~ ([0-9]+)\ tests\ failed\ out\ of\ ([0-9]+) ]]; then
    tests_failed=$((tests_failed + BASH_REMATCH[1]))
    tests_run=$((tests_run + BASH_REMATCH[2]))
  elif ((status == 0)); then
    closing="no tests"
  else
    closing="did not run to its end (status $status)"
  fi
  # What this machine lacks is told: a skipped test showed nothing.
  local skipped
  skipped=$(grep -cE '\*\*\*Skipped' "$log" || true)
  if ((skipped > 0)); then
    closing+=", $skipped skipped"
    say "test $name: skipped:"
    sed -nE 's/^.*Test +#[0-9]+: ([^ ]+) \.*\*\*\*Skipped.*$/  \1/p' "$log"
  fi
  # What failed in a lab whose emulator failed, too, isn't in the closing line of the next one.
  if grep -q 'the command runs again, in another lab' "$log"; then
    say "test $name: ran again, in another lab; before that:"
    sed '/the command runs again, in another lab/q' "$log" | grep -E '\*\*\*|the command runs again' || true
  fi
  if ((status != 0)); then
    tests_failed=$((tests_failed > 0 ? tests_failed : 1))
    if [[ $closing == *" tests passed"* ]]; then
      awk -f devtools/ctest_failures.awk "$log" >&2
    else
      tail -n "${DEV_LOG_LINES:-60}" "$log" >&2
    fi
    echo "test $name: all of its output: $log" >&2
  fi
  summary+=("$(printf '%-6s %s' "$name" "$closing")")
}

# ctest_command PRESET LABEL OPTION...: sets `command` to the run of ctest. A test of several labels
# carries them as one, joined by "+".
ctest_command() {
  local preset=$1 label=$2
  shift 2
  command=(ctest --test-dir "build/$preset" -L "(^|[+])$label([+]|\$)" --output-on-failure "--no-tests=$without_tests" "$@")
}

run_test() {
  local -A chosen=()
  local -a command=() in_lab=()
  local all_suites="unit micro asan tsan host lab" jobs
  jobs=$(nproc)
  while (($#)) && [[ " $all_suites " == *" $1 "* ]]; do
    chosen[$1]=1
    shift
  done
  if ((${#chosen[@]} == 0)); then chosen=([unit]=1 [micro]=1 [asan]=1 [tsan]=1 [host]=1 [lab]=1); fi

  # What a suite takes at most grows with how often its tests run.
  local repetitions=1
  if [[ " $* " =~ \ --repeat\ [a-z-]+:([0-9]+)\  ]]; then repetitions=${BASH_REMATCH[1]}; fi

  # A suite without tests is a mistake, unless somebody chose among them.
  local without_tests=error
  if (($#)); then without_tests=ignore; fi

  need build test lab
  if [[ -v chosen[unit] || -v chosen[micro] || -v chosen[host] || -v chosen[lab] ]]; then build_preset release; fi
  if [[ -v chosen[unit] ]]; then
    ctest_command release unit -j "$jobs" --timeout 120 "$@"
    suite unit 15 "${command[@]}"
  fi
  if [[ -v chosen[micro] ]]; then
    # Any /dev/kvm will do, even one that interprets.
    if [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then in_lab=(tests/lab/lab.py --labs 3 --); fi
    ((${#in_lab[@]} == 0)) || step "prepare the lab" tests/lab/prepare.sh
    ctest_command release micro --timeout 120 "$@"
    suite micro 20 "${in_lab[@]}" "${command[@]}"
  fi
  if [[ -v chosen[asan] ]]; then
    build_preset asan
    ctest_command asan unit -j "$jobs" --timeout 300 "$@"
    suite asan 20 "${command[@]}"
  fi
  if [[ -v chosen[tsan] ]]; then
    build_preset tsan
    ctest_command tsan tsan -j "$jobs" --timeout 300 "$@"
    suite tsan 20 "${command[@]}"
  fi
  if [[ -v chosen[host] || -v chosen[lab] ]]; then
    step "prepare the guest" tests/guest/prepare.sh disk net
    step "prepare the lab" tests/lab/prepare.sh
  fi
  if [[ -v chosen[host] ]]; then
    ctest_command release host --timeout 600 "$@"
    suite host 25 "${command[@]}"
  fi
  if [[ -v chosen[lab] ]]; then
    ctest_command release lab --timeout 600 "$@"
    suite lab 30 tests/lab/lab.py --labs 3 -- "${command[@]}"
  fi

  printf '\n'
  printf '%s\n' "${summary[@]}"
  ((tests_run > 0)) || fail "test: nothing ran"
  ((tests_failed == 0)) || fail "test: $tests_failed of $tests_run tests failed"
  succeed "all $tests_run tests passed"
}
