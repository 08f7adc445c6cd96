// A step's way to the device.

#include "kernels/cuda/step_inputs.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/lora/lora.h"
#include "kernels/cuda/lora/lora_weight.h"

namespace swaa::kernels::cuda {
namespace {

// Page-table changes that go up with the step; more of them go in pieces of this many.
constexpr int64_t kMaxUpdates = 16384;

int64_t PageTableBytes(const StepCapacity& c) {
  return int64_t{4} * c.num_slots * c.model.num_layers * c.max_pages_per_layer;
}

int64_t PlanBytes(const StepCapacity& c, int32_t multiprocessors) {
  // A request may have two sequences in a step, one a phase; wanted rows may all stand alone.
  return AttentionPlanBytes(AttentionShapeOf(c), multiprocessors,
                            std::max(2 * c.num_slots, c.max_rows), c.max_rows, c.model.num_layers);
}

// Of all and of the wanted rows: tiles, and rows; and what each adapter adds where.
int64_t LoraBytes(const StepCapacity& c) {
  if (c.adapted_products == 0) return 0;
  const int64_t rows = std::max<int64_t>(c.max_rows, kMaxGraphRows);
  const int64_t adapters = std::max<int64_t>(c.num_slots, kMaxGraphRows);
  return 2 * rows * (static_cast<int64_t>(sizeof(LoraTile)) + 4) +
         adapters * c.adapted_products * static_cast<int64_t>(sizeof(void*));
}

// The block's sections, each rounded up, at the most that a step can hold.
int64_t BlockBytes(const StepCapacity& c, int32_t multiprocessors) {
  constexpr int64_t kSections = 24, kRounding = 256;
  const int64_t rows = std::max<int64_t>(c.max_rows, kMaxGraphRows);
  return kSections * kRounding + rows * (5 * 4 + static_cast<int64_t>(sizeof(LogitsRow))) +
         LoraBytes(c) + 2 * PlanBytes(c, multiprocessors) +
         kMaxUpdates * static_cast<int64_t>(sizeof(PageTableEntry));
}

// One plan a class of all rows, and one for the wanted rows of the last layer.
int64_t DecodePlanBytes(const StepCapacity& c) {
  return (int64_t{c.model.num_layers} + 1) * static_cast<int64_t>(sizeof(DecodePlan));
}

// Rows beyond the step's are dead.
void WriteRows(const StepInput& input, int64_t rows, int32_t* tokens, int32_t* positions,
               int32_t* slots) {
  std::copy(input.tokens.begin(), input.tokens.end(), tokens);
  for (const SequenceRows& sequence : input.sequences) {
    for (int32_t r = 0; r < sequence.query_count; ++r) {
      positions[sequence.first_row + r] = sequence.first_position + r;
      slots[sequence.first_row + r] = sequence.slot;
    }
  }
  for (auto row = static_cast<int64_t>(input.tokens.size()); row < rows; ++row) {
    tokens[row] = positions[row] = 0;
    slots[row] = -1;
  }
}

}  // namespace

AttentionShape AttentionShapeOf(const StepCapacity& c) {
  return {.heads = c.model.heads,
          .kv_heads = c.model.kv_heads,
          .head_dim = c.model.head_dim,
          .scale = c.model.attention_scale,
          .num_layers = c.model.num_layers,
          .max_pages = c.max_pages_per_layer};
}

int64_t StepInputs::DeviceBytes(const StepCapacity& capacity, int32_t multiprocessors) {
  return PageTableBytes(capacity) + BlockBytes(capacity, multiprocessors) +
         DecodePlanBytes(capacity);
}

absl::Status StepInputs::Prepare(const StepCapacity& capacity, int32_t multiprocessors,
                                 DeviceArena* arena) {
  capacity_ = capacity;
  block_bytes_ = BlockBytes(capacity, multiprocessors);
  SWAA_ASSIGN_OR_RETURN(page_table_, arena->Allocate(PageTableBytes(capacity), "page tables"));
  SWAA_ASSIGN_OR_RETURN(block_, arena->Allocate(block_bytes_, "a step's inputs"));
  SWAA_ASSIGN_OR_RETURN(std::byte * plans,
                        arena->Allocate(DecodePlanBytes(capacity), "plans of attention"));
  decode_plans_ = reinterpret_cast<DecodePlan*>(plans);
  wanted_decode_plans_ = decode_plans_ + capacity.model.num_layers;
  return absl::OkStatus();
}

void StepInputs::Send(const StepInput& input, PagedAttention* attention, cudaStream_t stream,
                      CudaStep* step) const {
  const int64_t rows = step->rows(), wanted = step->wanted_rows();
  const std::vector<PageTableEntry> updates = SendEarlyUpdates(input.page_table_updates, stream);
  BlockWriter block(step->block.data(), block_, step->block.bytes());
  const int64_t slices = (wanted + capacity_.max_logits_rows - 1) / capacity_.max_logits_rows;
  const auto slice_rows = block.Take<int32_t>(std::max<int64_t>(slices, 1));
  const auto tokens = block.Take<int32_t>(rows);
  const auto positions = block.Take<int32_t>(rows);
  const auto slots = block.Take<int32_t>(rows);
  const auto logits = block.Take<LogitsRow>(wanted);
  const auto live = static_cast<int64_t>(input.logits.size());
  for (int64_t slice = 0; slice < slices; ++slice) {
    const int64_t first = slice * capacity_.max_logits_rows;
    slice_rows.host[slice] =
        static_cast<int32_t>(std::clamp<int64_t>(live - first, 0, capacity_.max_logits_rows));
  }
  std::copy(input.logits.begin(), input.logits.end(), logits.host);
  WriteRows(input, rows, tokens.host, positions.host, slots.host);
  step->slice_rows = slice_rows.device;
  step->tokens = tokens.device;
  step->positions = positions.device;
  step->slots = slots.device;
  step->logits = logits.device;
  if (step->adapted()) WriteAdapters(input, step, &block);
  WritePlan({input.sequences, input.spans, input.layer_class}, decode_plans_,
            capacity_.model.num_layers, attention, &step->attention, &block);
  if (!step->all_wanted()) {
    const auto indices = block.Take<int32_t>(wanted);
    std::copy(step->wanted_sequences.rows.begin(), step->wanted_sequences.rows.end(), indices.host);
    step->wanted = indices.device;
    const std::vector<uint8_t> one_class(capacity_.model.num_layers, 0);
    WritePlan({step->wanted_sequences.sequences, step->wanted_sequences.spans, one_class},
              wanted_decode_plans_, 1, attention, &step->wanted_attention, &block);
  }
  const auto entries = block.Take<PageTableEntry>(static_cast<int64_t>(updates.size()));
  std::copy(updates.begin(), updates.end(), entries.host);
  CopyWords({.from = step->block.data(), .to = block_, .bytes = block.used()}, {.stream = stream});
  SetPageTableEntries(entries.device, static_cast<int64_t>(updates.size()), stream);
  attention->PlanDecode(*step->attention, stream);
  if (!step->all_wanted()) attention->PlanDecode(*step->wanted_attention, stream);
}

LoraRows StepInputs::WriteLoraRows(const AdapterRows& grouped, int64_t rows,
                                   BlockWriter* block) const {
  const auto counts = block->Take<int32_t>(2);
  const auto tiles = block->Take<LoraTile>(rows);
  const auto indices = block->Take<int32_t>(rows);
  int32_t used = 0;
  const auto add = [&](int32_t adapter, int32_t first, int32_t count) {
    for (int32_t at = 0; at < count; at += kLoraTileRows) {
      tiles.host[used++] = {adapter, first + at, std::min(kLoraTileRows, count - at), 0};
    }
  };
  for (const AdapterRows::Group& group : grouped.groups) {
    add(group.adapter, group.first, group.count);
  }
  counts.host[0] = used;
  const auto adapted = static_cast<int32_t>(grouped.rows.size());
  std::vector<bool> has_adapter(rows);
  for (const int32_t row : grouped.rows) has_adapter[row] = true;
  int32_t* next = std::copy(grouped.rows.begin(), grouped.rows.end(), indices.host);
  for (int32_t row = 0; row < rows; ++row) {
    if (!has_adapter[row]) *next++ = row;
  }
  add(-1, adapted, static_cast<int32_t>(rows) - adapted);
  LoraRows result;
  result.tile_count = counts.device;
  result.all_tile_count = counts.device + 1;
  result.tiles = tiles.device;
  result.rows = indices.device;
  result.max_tiles = counts.host[0];
  result.max_all_tiles = counts.host[1] = used;
  result.splits = rows <= kLoraSplitRows ? kLoraSplits : 1;
  return result;
}

void StepInputs::WriteAdapters(const StepInput& input, CudaStep* step, BlockWriter* block) const {
  const bool graph = step->shape.graph_rows > 0;
  step->lora = WriteLoraRows(step->adapter_rows, step->rows(), block);
  if (!step->all_wanted()) {
    step->wanted_lora = WriteLoraRows(step->wanted_adapter_rows, step->wanted_rows(), block);
  }
  const int32_t products = capacity_.adapted_products;
  const auto adapters = static_cast<int64_t>(input.adapters.size());
  // A graph's rows may have as many adapters.
  const auto weights = block->Take<const LoraDeviceWeight*>(
      (graph ? std::max(adapters, step->rows()) : adapters) * products);
  const LoraDeviceWeight** next = weights.host;
  for (const auto& adapter : input.adapters) {
    SWAA_CHECK_EQ(static_cast<int32_t>(adapter.size()), products);
    for (const LoraWeight* weight : adapter) {
      *next++ = weight == nullptr ? nullptr : static_cast<const CudaLoraWeight*>(weight)->device();
    }
  }
  for (LoraRows* rows : {&step->lora, &step->wanted_lora}) {
    rows->weights = weights.device;
    rows->products = products;
  }
}

void StepInputs::WritePlan(const AttentionStep& step, DecodePlan* decode_plans, int32_t max_classes,
                           PagedAttention* attention, std::optional<AttentionPlan>* plan,
                           BlockWriter* block) const {
  const auto rest = block->Rest();
  plan->emplace(rest.host, rest.device, block->left(), decode_plans, max_classes);
  block->Advance(attention->Write(step, &**plan));
}

// The changes that go up with the step. A step that adopts a long prefix has more of them than a
// block holds: the others are sent here, which waits for the device.
std::vector<PageTableEntry> StepInputs::SendEarlyUpdates(std::span<const PageTableUpdate> updates,
                                                         cudaStream_t stream) const {
  static_assert(sizeof(PageTableUpdate) == sizeof(PageTableEntry));
  std::vector<PageTableEntry> entries;
  entries.reserve(updates.size());
  for (const PageTableUpdate& update : updates) {
    entries.push_back({update.slot, update.layer, update.block, update.page});
  }
  entries = KeepLastOfEach(entries);
  while (static_cast<int64_t>(entries.size()) > kMaxUpdates) {
    const auto begin = entries.end() - kMaxUpdates;
    SWAA_CUDA_CHECK(cudaMemcpyAsync(block_, &*begin, kMaxUpdates * sizeof(PageTableEntry),
                                    cudaMemcpyHostToDevice, stream));
    SetPageTableEntries(reinterpret_cast<const PageTableEntry*>(block_), kMaxUpdates, stream);
    SWAA_CUDA_CHECK(cudaStreamSynchronize(stream));
    entries.erase(begin, entries.end());
  }
  return entries;
}

void StepInputs::SetPageTableEntries(const PageTableEntry* updates, int64_t count,
                                     cudaStream_t stream) const {
  if (count == 0) return;
  SetPageTable({.entries = reinterpret_cast<int32_t*>(page_table_),
                .num_layers = capacity_.model.num_layers,
                .max_pages = capacity_.max_pages_per_layer,
                .updates = updates,
                .capacity = count},
               {.stream = stream, .programmatic = false});
}

}  // namespace swaa::kernels::cuda
