// What the driver's management library (NVML) tells of a card. It is loaded while the server runs:
// a machine without it only knows less.

#ifndef SWAA_KERNELS_CUDA_NVML_H_
#define SWAA_KERNELS_CUDA_NVML_H_

#include <memory>
#include <string>

#include "kernels/device_state.h"

namespace swaa::kernels::cuda {

inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

// One card. Thread-safe, as NVML is.
class Nvml {
 public:
  // The card at a PCI address as CUDA tells it, "0000:3b:00.0": the ordinals of CUDA and of NVML
  // may differ. Null where the library is missing, does not start, or does not know the card.
  static std::unique_ptr<Nvml> Open(const std::string& library, const std::string& pci_bus_id);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Asks the driver, which takes up to some milliseconds.
  DeviceFacts Read() const;

 private:
  struct Library;

  Nvml(std::unique_ptr<Library> library, void* card);

  const std::unique_ptr<Library> library_;
  void* const card_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_NVML_H_
