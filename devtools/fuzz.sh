# shellcheck shell=bash

# Each fuzzer starts from fuzz/corpus/NAME and what earlier runs found, which stays in build/fuzz/corpus/NAME.
# fuzz/options/NAME.options has libFuzzer's options of those for which the limits below aren't good enough, in the form
# that ClusterFuzz reads.
run_fuzz() {
  local only=${1-} seconds=${2:-60} fuzzer name failed=()
  [[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "fuzz: seconds: $seconds is not a number"
  build_preset fuzz
  [[ -z $only || -x build/fuzz/fuzzers/$only ]] ||
    fail "fuzz: no such target: $only (there are: $(cd build/fuzz/fuzzers && echo *))"
  for fuzzer in build/fuzz/fuzzers/*; do
    name=${fuzzer##*/}
    [[ -x $fuzzer && (-z $only || $name == "$only") ]] || continue
    mkdir -p "build/fuzz/corpus/$name" "build/fuzz/artifacts/$name"
    local corpora=("build/fuzz/corpus/$name")
    [[ -d fuzz/corpus/$name ]] && corpora+=("fuzz/corpus/$name")
    local options=()
    if [[ -f fuzz/options/$name.options ]]; then
      mapfile -t options < <(sed -nE 's/^([a-z_]+) *= *(.*)$/-\1=\2/p' "fuzz/options/$name.options")
    fi
    attempt "fuzz $name" "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 "${options[@]}" \
      -print_final_stats=1 -artifact_prefix="build/fuzz/artifacts/$name/" "${corpora[@]}" || {
      tail -n 60 "$(log_of "fuzz $name")" >&2
      failed+=("$name")
    }
    awk -v name="$name" '/stat::number_of_executed_units/ { runs = $2 } / cov: / { line = $0 }
      END { if (match(line, /cov: [0-9]+/)) cov = substr(line, RSTART + 5, RLENGTH - 5)
            printf "  %-32s %s runs, %s edges covered\n", name, runs, cov }' "$(log_of "fuzz $name")"
  done
  ((${#failed[@]} == 0)) || fail "fuzz: found something: ${failed[*]} (inputs: build/fuzz/artifacts)"
}
