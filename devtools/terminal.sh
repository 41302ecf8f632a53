# shellcheck shell=bash
# What ./dev says while it works: one line a step that is updated on a terminal, elsewhere a line a minute, and at a
# failure the end of what the step printed, with the step's name last.

logs=build/logs
bold='' red='' green='' plain=''
if [[ -t 1 && -z ${NO_COLOR-} ]]; then
  bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
fi

ticker=
stop_ticker() {
  [[ -n $ticker ]] || return 0
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  ticker=
  [[ ! -t 1 ]] || printf '\r\e[K'
}
trap stop_ticker EXIT
trap 'stop_ticker; echo "dev: interrupted" >&2; exit 130' INT
trap 'exit 143' TERM HUP

# Shows that a step goes on: its name, its age, the last line it printed. Not before it is two seconds old.
tick() { # tick NAME LOG
  local start=$SECONDS width last
  trap - EXIT INT
  sleep 2
  while :; do
    width=$(($(tput cols 2>/dev/null || echo 80) - ${#1} - 12))
    last=$(tail -c 400 "$2" | tr '\r' '\n' | tail -n 1)
    printf '\r\e[K%s%s%s %d s  %s' "$bold" "$1" "$plain" $((SECONDS - start)) "${last:0:$((width > 0 ? width : 0))}"
    sleep 1
  done
}

# The same where no line can be updated: a step that hangs can be seen to, and where.
pulse() { # pulse NAME LOG
  local start=$SECONDS
  trap - EXIT INT
  while sleep 1; do
    (((SECONDS - start) % 60 != 0)) ||
      printf '%s: %d s so far; %s\n' "$1" $((SECONDS - start)) "$(tail -c 400 "$2" | tr '\r' '\n' | tail -n 1 | cut -c 1-120)"
  done
}

say() { printf '%s%s%s\n' "$bold" "$1" "$plain"; }

# succeed TEXT: the good end.
succeed() { echo "$green$1$plain"; }

# log_of NAME: where a step's output goes.
log_of() { echo "$logs/${1// /-}.log"; }

# fail TEXT: ends ./dev; TEXT is the last line.
fail() {
  echo "${red}dev: $1${plain}" >&2
  exit 1
}

# attempt NAME COMMAND...: runs it with its output in $logs/NAME.log, and returns its status.
attempt() {
  local name=$1 log start=$SECONDS status=0
  shift
  log=$(log_of "$name")
  mkdir -p "$logs"
  : >"$log"
  if [[ -t 1 ]]; then
    tick "$name" "$log" &
  else
    echo "$name ..."
    pulse "$name" "$log" &
  fi
  ticker=$!
  "$@" >"$log" 2>&1 </dev/null || status=$?
  stop_ticker
  if ((status == 0 && SECONDS - start >= 2)); then echo "$name: $((SECONDS - start)) s"; fi
  return "$status"
}

# step NAME COMMAND...: as attempt, but a failure ends ./dev with the end of the output.
step() {
  local status=0
  attempt "$@" || status=$?
  ((status != 0)) || return 0
  ((status != 130)) || exit 130
  tail -n "${DEV_LOG_LINES:-60}" "$(log_of "$1")" >&2
  fail "$1 failed (status $status; all of its output: $(log_of "$1"))"
}
