// Attention on CUDA: what plans look like in memory, shared by the host that writes them, the
// kernel that plans decoding, and the kernels that read them. Plain data.
//
// The bytes of a step that the host writes and copies, all offsets multiples of 16:
//   StepHeader | layer_class uint8 [layers] | decode sequences [n] | decode spans [classes, n] |
//   QueryTile [tiles of class 0] | [tiles of class 1] | ...

#ifndef SWAA_KERNELS_CUDA_ATTENTION_PLAN_FORMAT_H_
#define SWAA_KERNELS_CUDA_ATTENTION_PLAN_FORMAT_H_

#include <cstdint>

#include "kernels/cuda/attention/visited_tiles.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

inline constexpr int kMaxDecodeSequences = 1024;  // of one step
inline constexpr int kMaxDecodeBlocks = 264;
inline constexpr int kMaxGroup = 16;  // query heads of a KV head
inline constexpr int kMaxHeadDim = 128;

// Where the decode part of a step's bytes lies. Read by kernels, so that a captured graph serves
// any step.
struct StepHeader {
  int32_t decode_sequences = 0;
  int32_t classes = 0;
  int32_t sequences_offset = 0;  // bytes from the header to SequenceRows [decode_sequences]
  int32_t spans_offset = 0;      // to KeySpan [classes, decode_sequences]
};
static_assert(sizeof(StepHeader) == 16);

SWAA_HOST_DEVICE const uint8_t* LayerClasses(const StepHeader* header) {
  return reinterpret_cast<const uint8_t*>(header + 1);
}

// One unit of prefill work before heads are multiplied in: query rows of one sequence, aligned to
// absolute multiples of the tile's rows, against some or all of the key tiles that they visit.
struct QueryTile {
  int32_t slot;         // row of the page table
  int32_t position;     // absolute, of the tile's row 0
  int32_t out_row;      // row of q and out that the tile's row 0 would have; may be negative
  int32_t first, last;  // rows of the tile that exist
  int32_t window, sinks;
  VisitedTiles visited;
  int32_t begin, end;    // which visits
  int32_t part, parts;   // 0 of 1: writes final output; else the last part to arrive merges all
  int32_t first_result;  // of the parts' results in the workspace: heads * parts of them
  int32_t split;         // number of the split tile, for its counters of arrivals
};
static_assert(sizeof(QueryTile) == 64);

// A decoding sequence, as the attention kernel needs it.
struct alignas(16) DecodeRecord {
  int32_t tiles;  // key tiles of kPageTokens that it visits; at least 1
  VisitedTiles visited;
  int32_t slot, row, position, window, sinks;
  int32_t weight;  // of one of its items: its tiles, and what beginning costs
  int32_t before;  // weights of the sequences before it, one KV head of each
  int32_t unused;
};
static_assert(sizeof(DecodeRecord) == 48);

// A block's piece of the line of items (sequence, KV head): its tiles, and where it begins.
struct alignas(16) DecodeBlock {
  int32_t tiles;  // of the piece
  int32_t sequence, head, tile;
  int32_t total;   // the line's weight
  int32_t blocks;  // among which it is cut
  int32_t unused[2];
  DecodeRecord record;
};
static_assert(sizeof(DecodeBlock) == 80);

// Decode plan of one span class, made on the device once a step.
struct DecodePlan {
  DecodeBlock blocks[kMaxDecodeBlocks];
  DecodeRecord records[kMaxDecodeSequences];
};

// A block's result of an item that began before its piece, while it waits to be merged: bits
// inverted, and zero when it is not there (decode_merge.cuh).
struct DecodePartial {
  float o[kMaxGroup][kMaxHeadDim];  // not divided by l
  float m_l[kMaxGroup][2];
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_PLAN_FORMAT_H_
