# Brings $MODEL_PATH from $MODEL_URL unless it is there; ends with 1 if its sha256 is not $MODEL_SHA256.
# Replicas may share the volume: the file appears when it is whole.
set -eu
is_right() { echo "$MODEL_SHA256  $1" | sha256sum -c - >/dev/null 2>&1; }
if [ -f "$MODEL_PATH" ] && is_right "$MODEL_PATH"; then
  echo "$MODEL_PATH is there"
  exit 0
fi
mkdir -p "$(dirname "$MODEL_PATH")"
part="$MODEL_PATH.${HOSTNAME:-$$}.part"
trap 'rm -f "$part"' EXIT
curl --fail --silent --show-error --location --retry 5 --retry-connrefused --connect-timeout 20 \
  --output "$part" "$MODEL_URL"
if ! is_right "$part"; then
  echo "$MODEL_URL: its sha256 is $(sha256sum "$part" | cut -d' ' -f1), not $MODEL_SHA256" >&2
  exit 1
fi
mv "$part" "$MODEL_PATH"
echo "$MODEL_PATH is fetched"
