// Adapters (LoRA) as the engine sees them: something that a device holds, and a name.

#ifndef SWAA_ENGINE_DEVICE_ADAPTER_H_
#define SWAA_ENGINE_DEVICE_ADAPTER_H_

#include <cstdint>
#include <memory>
#include <string>

namespace swaa {

// An adapter's weights on a device. Immutable; freed with its last owner, in any thread, before the
// device.
class DeviceAdapter {
 public:
  virtual ~DeviceAdapter() = default;
  virtual int64_t bytes() const = 0;
};

// One load of an adapter. Requests hold it until no step reads it any more, so that counting its
// owners tells when it may go.
struct LoadedAdapter {
  std::string name;
  // Another one for each load, and never 0: what earlier loads computed is nobody's who asks for
  // this one (MakePrefixScope).
  uint64_t load = 0;
  std::shared_ptr<const DeviceAdapter> weights;
};

// Null: the base model.
using AdapterHandle = std::shared_ptr<const LoadedAdapter>;

}  // namespace swaa

#endif  // SWAA_ENGINE_DEVICE_ADAPTER_H_
