#!/bin/sh
# Objects that are built for newer processors must share no function with the rest of the program: of
# several equal inline functions the linker keeps any one, and a binary with that one dies on an old machine.
#
#   isolated_objects_test.sh OBJECT...    looks at those named *_avx2, *_avx512*, *_amx*
found=0
for object in "$@"; do
  case "$object" in *_avx2* | *_avx512* | *_amx*) ;; *) continue ;; esac
  found=$((found + 1))
  symbols=$(nm -C "$object") || exit 1
  shared=$(printf '%s\n' "$symbols" | grep -E '^[0-9a-f]+ [WVu] ')
  if [ -n "$shared" ]; then
    echo "$object defines symbols that the linker may take for all:"
    echo "$shared"
    exit 1
  fi
done
[ "$found" -gt 0 ] || { echo "no object to look at among: $*"; exit 1; }
echo "$found objects share nothing"
