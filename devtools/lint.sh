# shellcheck shell=bash

# Every check runs, whatever the ones before it said; the last line names those that failed.
run_lint() {
  local failed=() scripts sources tidy=()
  while (($#)); do
    case $1 in
      --changed) tidy=(--changed) ;;
      *) fail "lint: unknown option $1" ;;
    esac
    shift
  done

  check() { # check NAME COMMAND...
    attempt "$@" && return
    tail -n "${DEV_LOG_LINES:-200}" "$(log_of "$1")" >&2
    failed+=("$1")
  }

  need build lint
  mapfile -t scripts < <(git grep -lE '^#!.*\b(ba)?sh\b|^# shellcheck shell=bash')
  mapfile -t sources < <(git ls-files --cached --others --exclude-standard '*.cc' '*.h')
  check shellcheck shellcheck -x "${scripts[@]}"
  check "dependency law" python3 devtools/check_layers.py
  check "devtools' own tests" python3 -m unittest discover -s devtools -p '*_test.py'
  check clang-format clang-format-14 --dry-run -Werror "${sources[@]}"
  # clang-tidy reads generated headers.
  build_preset release
  check clang-tidy python3 devtools/tidy.py build/release "${tidy[@]}"
  ((${#failed[@]} == 0)) || fail "lint failed: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
  succeed "lint: all checks passed"
}
