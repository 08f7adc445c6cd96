#!/usr/bin/env bash
# tools/lint finds a file that is badly formatted and one that uses what it has moved from, says which
# line it is, and passes a clean one.
#
#   lint_test.sh BUILD_FOLDER      in which it writes its files
set -euo pipefail
export SWAA_BUILD=$1
files=$(mktemp -d "$SWAA_BUILD/lint_test.XXXXXX")
trap 'rm -r "$files"' EXIT
# As for any other file above them.
cp .clang-format .clang-tidy "$files"

expect() {  # expect STATUS TEXT COMMAND...
  local wanted=$1 text=$2 status=0 output
  shift 2
  output=$("$@" 2>&1) || status=$?
  if [ "$((status != 0))" != "$wanted" ] || [[ "$output" != *"$text"* ]]; then
    echo "$* exited with $status, and said: $output; expected ${wanted} and: $text"
    exit 1
  fi
}

cat >"$files/clean.cc" <<'END'
#include <string>
#include <utility>

std::string Keep(std::string text) { return std::exchange(text, "kept"); }
END
cat >"$files/format.cc" <<'END'
int   Three( ) {return 3;}
END
cat >"$files/moved.cc" <<'END'
#include <string>
#include <utility>
#include <vector>

size_t Append(std::string text, std::vector<std::string>* all) {
  all->push_back(std::move(text));
  return text.size();
}
END
expect 0 "" tools/lint format "$files/clean.cc"
expect 0 "" tools/lint tidy "$files/clean.cc"
expect 1 "format.cc:1" tools/lint format "$files/format.cc"
expect 1 "moved.cc:7" tools/lint tidy "$files/moved.cc"
echo "both findings are found"
