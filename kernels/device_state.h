// What a device tells of itself while it runs: where its memory went, and how it is doing.

#ifndef SWAA_KERNELS_DEVICE_STATE_H_
#define SWAA_KERNELS_DEVICE_STATE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace swaa::kernels {

enum class MemoryKind : uint8_t {
  kWeights,    // matrices, norms, biases
  kKv,         // pages, the zero page included
  kWorkspace,  // everything else: activations, page tables, scratch
};

// Bytes of a device's memory.
struct MemoryUse {
  // Handed out for the model, whether touched yet or not (MemoryKind).
  int64_t weights = 0;
  int64_t kv = 0;
  int64_t workspace = 0;
  // What the device has left, for whomever. The rest is the driver's, other processes', or kept to
  // be handed out.
  int64_t free = 0;
};

// Adds up what is handed out. Thread-safe.
class MemoryCounter {
 public:
  void Add(MemoryKind kind, int64_t bytes) { bytes_[static_cast<size_t>(kind)] += bytes; }
  // Beside `free` bytes.
  MemoryUse Use(int64_t free) const {
    return {.weights = bytes_[static_cast<size_t>(MemoryKind::kWeights)],
            .kv = bytes_[static_cast<size_t>(MemoryKind::kKv)],
            .workspace = bytes_[static_cast<size_t>(MemoryKind::kWorkspace)],
            .free = free};
  }

 private:
  std::array<std::atomic<int64_t>, 3> bytes_{};
};

// What the driver tells of a card; what it does not tell is absent.
struct DeviceFacts {
  std::optional<std::string> name;    // the product's
  std::optional<int32_t> count;       // cards of the machine that the driver shows to this process
  std::optional<double> clock_hertz;  // of the multiprocessors
  std::optional<double> power_watts;  // drawn by the whole card
  std::optional<double> power_limit_watts;
  std::optional<double> temperature_celsius;
};

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_DEVICE_STATE_H_
