// Attention on CUDA: which tiles of keys a tile of query rows visits, in which order, and which of
// them need a mask. One definition for plans (host and device) and kernels (producers and
// consumers), so that no list of tiles lies in memory. Compiled by the host's compiler as well.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_VISITED_TILES_H_
#define SWAA_KERNELS_CUDA_ATTENTION_VISITED_TILES_H_

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

// A span whose arithmetic cannot overflow: any window or sinks of 2^30 and more see everything that
// a sequence can hold.
struct ResolvedSpan {
  static constexpr int32_t kUnlimited = 1 << 30;
  int32_t window = kUnlimited;
  int32_t sinks = 0;
};

SWAA_HOST_DEVICE ResolvedSpan Resolve(const KeySpan& span) {
  ResolvedSpan resolved;
  if (span.window >= ResolvedSpan::kUnlimited) return resolved;
  resolved.window = span.window;
  resolved.sinks = span.sinks < ResolvedSpan::kUnlimited ? span.sinks : ResolvedSpan::kUnlimited;
  return resolved;
}

// The visited key tiles: window tiles top, top - 1, ... down to the window's edge, then sink tiles
// sink_tiles - 1 ... 0. Visit number 0 holds the last row's own key. Nothing is visited twice, and
// every visited tile holds a key that some row sees.
struct VisitedTiles {
  int32_t top = 0;           // the tile of the last row's position
  int32_t window_tiles = 0;  // at least 1
  int32_t sink_tiles = 0;    // those that are not window tiles

  SWAA_HOST_DEVICE int32_t count() const { return window_tiles + sink_tiles; }
  SWAA_HOST_DEVICE int32_t Tile(int32_t visit) const {
    return visit < window_tiles ? top - visit : window_tiles + sink_tiles - 1 - visit;
  }
};

// For query rows at positions first_position .. last_position and tiles of tile_tokens keys.
SWAA_HOST_DEVICE VisitedTiles Visit(int32_t first_position, int32_t last_position,
                                    const ResolvedSpan& span, int32_t tile_tokens) {
  const int32_t edge = first_position - span.window + 1;  // first key in the first row's window
  const int32_t lowest = (edge > 0 ? edge : 0) / tile_tokens;
  const int32_t sinks = (span.sinks + tile_tokens - 1) / tile_tokens;
  VisitedTiles tiles;
  tiles.top = last_position / tile_tokens;
  tiles.window_tiles = tiles.top - lowest + 1;
  tiles.sink_tiles = sinks < lowest ? sinks : lowest;
  return tiles;
}

// Does a row at first_position .. last_position see one of the keys first_key .. first_key + keys -
// 1?
SWAA_HOST_DEVICE bool SeesAny(int32_t first_key, int32_t keys, int32_t first_position,
                              int32_t last_position, int32_t window, int32_t sinks) {
  return first_key <= last_position &&
         (first_key + keys - 1 > first_position - window || first_key < sinks);
}

// Does a row see less than all of these keys because some lie after its position?
SWAA_HOST_DEVICE bool NeedsCausalMask(int32_t first_key, int32_t keys, int32_t first_position) {
  return first_key + keys > first_position + 1;
}

// Does a row see less than all of these keys because some lie left of its window and behind the
// sinks? Also true where the sinks end in the tile, right of the window's edge: one comparison
// less.
SWAA_HOST_DEVICE bool NeedsSpanMask(int32_t first_key, int32_t keys, int32_t last_position,
                                    int32_t window, int32_t sinks) {
  return first_key <= last_position - window && first_key + keys > sinks;
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_VISITED_TILES_H_
