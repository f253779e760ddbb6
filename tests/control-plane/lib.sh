# Shared by the scripts of this directory (sourced, not run): starting, waiting for and ending processes.
# Linux only: a process is known by its pid and its start time in /proc, so that a pid that was used again is
# never taken for ours.
# shellcheck shell=bash

PANACEA_CONTROL_PLANE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
PANACEA_ROOT=$(cd -- "$PANACEA_CONTROL_PLANE/../.." && pwd -P)

say() { printf 'control-plane: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The operator's binary: the debug build, unless PANACEA_BIN names another.
operator_binary() { printf '%s\n' "${PANACEA_BIN:-${CARGO_TARGET_DIR:-$PANACEA_ROOT/target}/debug/panacea}"; }

# Start time of a process in clock ticks since boot (field 22; the name in field 2 may hold spaces), empty when it is gone.
start_time() {
  local stat=''
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  read -ra stat <<<"${stat##*) }"
  # A zombie no longer runs: its parent has just not read its exit status.
  [[ ${stat[0]} == Z ]] || printf '%s\n' "${stat[19]}"
}

# spawn DIR NAME COMMAND...: starts it detached, with output to DIR/logs/NAME.log and the pid and start time as
# the two lines of DIR/pids/NAME. PANACEA_OWNED_BY lets `down` find also what the command starts itself; inside
# `with` it names that cluster, so that a server which a test started for itself does not outlive it either.
spawn() {
  local dir=$1 name=$2; shift 2
  mkdir -p "$dir/logs" "$dir/pids"
  # No descriptor but the standard three is left to it: a lock or a pipe that it held would outlive us.
  PANACEA_OWNED_BY=${PANACEA_OWNED_BY:-$dir} setsid "$@" </dev/null >>"$dir/logs/$name.log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
  local pid=$!
  disown "$pid"
  printf '%s\n%s\n' "$pid" "$(start_time "$pid")" >"$dir/pids/.$name.new"
  mv "$dir/pids/.$name.new" "$dir/pids/$name"
}

# pid_of DIR NAME: the pid when that process still runs, else fails.
pid_of() {
  local pid='' started=''
  [[ -f $1/pids/$2 ]] || return 1
  { read -r pid; read -r started; } <"$1/pids/$2" || return 1
  [[ -n $started && $(start_time "$pid") == "$started" ]] || return 1
  printf '%s\n' "$pid"
}

# halt DIR NAME [SIGNAL [SECONDS]]: sends the signal (default KILL), waits for the end, kills what stays.
halt() {
  local dir=$1 name=$2 signal=${3:-KILL} seconds=${4:-10} pid until
  if pid=$(pid_of "$dir" "$name"); then
    kill "-$signal" "$pid" 2>/dev/null || true
    until=$((SECONDS + seconds))
    while pid_of "$dir" "$name" >/dev/null; do
      if ((SECONDS >= until)); then
        kill -KILL "$pid" 2>/dev/null || true
        until=$((SECONDS + 10))
      fi
      sleep 0.05
    done
  fi
  rm -f "$dir/pids/$name"
}

# wait_for SECONDS DIR NAME COMMAND...: until the command succeeds. Fails at once when process NAME (or with '*' any
# process of DIR) has ended, and prints the end of its log.
wait_for() {
  local seconds=$1 dir=$2 names=$3 until=$((SECONDS + $1)) file name; shift 3
  until "$@" >/dev/null 2>&1; do
    for file in "$dir"/pids/$names; do
      name=${file##*/}
      pid_of "$dir" "$name" >/dev/null && continue
      say "$name ended; the end of $dir/logs/$name.log:"
      tail -n 25 "$dir/logs/$name.log" >&2 || true
      return 1
    done
    if ((SECONDS >= until)); then
      say "gave up after $seconds s waiting for: $*"
      for file in "$dir"/pids/$names; do
        say "the end of $dir/logs/${file##*/}.log:"
        tail -n 25 "$dir/logs/${file##*/}.log" >&2 || true
      done
      return 1
    fi
    sleep 0.1
  done
}

# A port on 127.0.0.1 that nothing listens on, below the range that the kernel assigns automatically. Chosen ports are
# remembered for two minutes, so that clusters that start side by side do not choose the same.
free_port() {
  local taken=/tmp/panacea-ports.$UID port try
  mkdir -p "$taken"
  find "$taken" -type f -mmin +2 -delete 2>/dev/null || true
  for ((try = 0; try < 200; try++)); do
    port=$((20000 + (RANDOM << 15 | RANDOM) % 12000))
    (set -o noclobber; : >"$taken/$port") 2>/dev/null || continue
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return
    fi
  done
  die "found no free port on 127.0.0.1"
}

# A single-quoted shell word, for files that a shell reads.
quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# set_env FILE NAME VALUE: sets one `export NAME='VALUE'` line in place.
set_env() {
  local file=$1 name=$2 value=$3
  touch "$file"
  { grep -v "^export $name=" "$file" || true; printf 'export %s=%s\n' "$name" "$(quote "$value")"; } >"$file.new"
  mv "$file.new" "$file"
}

# need COMMAND HOW: fails with how to get it.
need() { command -v "$1" >/dev/null || die "$1 is needed: $2"; }

# install_package COMMAND PACKAGE...: with root and apt-get what is missing is installed, saying so.
install_package() {
  local command=$1; shift
  if ((UID != 0)) || ! command -v apt-get >/dev/null; then
    die "$command is not installed; get it with: sudo apt-get install $*  (or your distribution's package), and put it on PATH"
  fi
  say "$command is missing: installing $* with apt-get (once)"
  # Debian starts servers at installation; the policy file's answer 101 keeps it from doing so here.
  local policy=/usr/sbin/policy-rc.d made=''
  [[ -e $policy ]] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; made=1; }
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >&2 || status=$?
  [[ -z $made ]] || rm -f "$policy"
  ((status == 0)) || die "apt-get install $* failed"
}

# absolute PATH: works for one that does not exist yet.
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s/%s\n' "$PWD" "$1" ;; esac; }
