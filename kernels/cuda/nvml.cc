// What the driver's management library (NVML) tells of a card.

#include "kernels/cuda/nvml.h"

#include <array>
#include <cstdint>
#include <dlfcn.h>
#include <optional>
#include <utility>

namespace swaa::kernels::cuda {
namespace {

// Of NVML's interface, which is stable for C callers: 0 is success in every answer.
constexpr int kSuccess = 0;
constexpr int kClockSm = 1;         // nvmlClockType_t
constexpr int kTemperatureGpu = 0;  // nvmlTemperatureSensors_t
constexpr unsigned kNameBytes = 96;

using Card = void*;
using ReadNumber = int (*)(Card, unsigned*);
using ReadNumberOf = int (*)(Card, int, unsigned*);

// Sets `function` to the symbol; whether there is one.
template <typename Function>
bool Find(void* library, const char* symbol, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, symbol));
  return *function != nullptr;
}

std::optional<double> Scaled(int code, unsigned value, double unit) {
  if (code != kSuccess) return std::nullopt;
  return value * unit;
}

}  // namespace

// The loaded library, started.
struct Nvml::Library {
  ~Library() {
    if (started) shutdown();
    if (handle != nullptr) dlclose(handle);
  }

  bool Start(const std::string& name) {
    handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return false;
    const bool complete = Find(handle, "nvmlInit_v2", &init) &&
                          Find(handle, "nvmlShutdown", &shutdown) &&
                          Find(handle, "nvmlDeviceGetCount_v2", &count) &&
                          Find(handle, "nvmlDeviceGetHandleByPciBusId_v2", &card_at) &&
                          Find(handle, "nvmlDeviceGetName", &name_of) &&
                          Find(handle, "nvmlDeviceGetClockInfo", &clock) &&
                          Find(handle, "nvmlDeviceGetPowerUsage", &power) &&
                          Find(handle, "nvmlDeviceGetEnforcedPowerLimit", &power_limit) &&
                          Find(handle, "nvmlDeviceGetTemperature", &temperature);
    started = complete && init() == kSuccess;
    return started;
  }

  void* handle = nullptr;
  bool started = false;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*card_at)(const char* pci_bus_id, Card*) = nullptr;
  int (*name_of)(Card, char* name, unsigned bytes) = nullptr;
  ReadNumberOf clock = nullptr;        // MHz
  ReadNumber power = nullptr;          // mW
  ReadNumber power_limit = nullptr;    // mW
  ReadNumberOf temperature = nullptr;  // degrees Celsius
};

Nvml::Nvml(std::unique_ptr<Library> library, void* card)
    : library_(std::move(library)), card_(card) {}
Nvml::~Nvml() = default;

std::unique_ptr<Nvml> Nvml::Open(const std::string& library, const std::string& pci_bus_id) {
  auto loaded = std::make_unique<Library>();
  if (!loaded->Start(library)) return nullptr;
  Card card = nullptr;
  if (loaded->card_at(pci_bus_id.c_str(), &card) != kSuccess) return nullptr;
  return std::unique_ptr<Nvml>(new Nvml(std::move(loaded), card));
}

DeviceFacts Nvml::Read() const {
  DeviceFacts facts;
  std::array<char, kNameBytes> name{};
  if (library_->name_of(card_, name.data(), kNameBytes) == kSuccess) facts.name = name.data();
  unsigned value = 0;
  if (library_->count(&value) == kSuccess) facts.count = static_cast<int32_t>(value);
  int code = library_->clock(card_, kClockSm, &value);
  facts.clock_hertz = Scaled(code, value, 1e6);
  code = library_->power(card_, &value);
  facts.power_watts = Scaled(code, value, 1e-3);
  code = library_->power_limit(card_, &value);
  facts.power_limit_watts = Scaled(code, value, 1e-3);
  code = library_->temperature(card_, kTemperatureGpu, &value);
  facts.temperature_celsius = Scaled(code, value, 1);
  return facts;
}

}  // namespace swaa::kernels::cuda
