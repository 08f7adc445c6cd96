# shellcheck shell=bash
# Sourced by the scripts in tools/: shows a long command as one line, and hides its output until it
# fails.

progress_pid=

# progress MESSAGE COMMAND...: runs the command and says how far it is: on a terminal one line that
# is drawn again, with the seconds and the command's latest output; elsewhere a line every 30
# seconds. A command that fails shows the end of its output, and its exit status is returned.
progress() {
  local message=$1 log status=0 started=$SECONDS seconds said=0 latest width
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/swaa-log.XXXXXX")
  "$@" >"$log" 2>&1 </dev/null &
  progress_pid=$!
  while kill -0 "$progress_pid" 2>/dev/null; do
    seconds=$((SECONDS - started))
    if [ -t 1 ]; then
      width=$((${COLUMNS:-100} - ${#message} - 16))
      latest=$(tail -c 2000 "$log" | tr '\r\t' '\n ' | grep -v '^ *$' | tail -n 1 || true)
      latest=${latest:0:$((width > 0 ? width : 0))}
      printf '\r\033[K  %s … %d s  %s' "$message" "$seconds" "$latest"
      sleep 0.2
    else
      if [ "$seconds" -ge $((said + 30)) ] || { [ "$said" = 0 ] && [ "$seconds" -ge 1 ]; }; then
        latest=$(tail -c 2000 "$log" | tr '\r\t' '\n ' | grep -v '^ *$' | tail -n 1 || true)
        printf '  %s … %d s  %s\n' "$message" "$seconds" "${latest:0:100}"
        said=$((seconds > 0 ? seconds : 1))
      fi
      sleep 0.1
    fi
  done
  wait "$progress_pid" || status=$?
  progress_pid=
  [ -t 1 ] && printf '\r\033[K'
  seconds=$((SECONDS - started))
  if [ "$status" != 0 ]; then
    printf '  %s: failed after %d s; the end of its output:\n\n' "$message" "$seconds" >&2
    tail -n 30 "$log" >&2
    printf '\n  all of it: %s\n' "$log" >&2
    return "$status"
  fi
  # What took no time needs no line.
  [ "$seconds" -lt 2 ] || printf '  %s: %d s\n' "$message" "$seconds"
  rm -f "$log"
}

# progress_stop: ends the command that progress is showing, if there is one. For traps.
progress_stop() {
  [ -z "$progress_pid" ] || kill "$progress_pid" 2>/dev/null || true
}

# fail MESSAGE...: ends the script with a message, one argument a line.
fail() {
  printf '%s\n' "$@" >&2
  exit 1
}
