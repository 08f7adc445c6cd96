// Stands for the driver's management library on machines without a driver: two cards, of which the
// second tells nothing but its name. With FAKE_NVML_BROKEN set it does not start, as with a driver
// that is not loaded.

#include <cstdlib>
#include <cstring>

namespace {
constexpr int kSuccess = 0, kNotSupported = 3, kNotFound = 6, kDriverNotLoaded = 9;
char cards[2];
int users = 0;
}  // namespace

extern "C" {

int nvmlInit_v2() {
  if (std::getenv("FAKE_NVML_BROKEN") != nullptr) return kDriverNotLoaded;
  ++users;
  return kSuccess;
}

int nvmlShutdown() {
  --users;
  return kSuccess;
}

int FakeNvmlUsers() { return users; }

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 2;
  return kSuccess;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char* pci_bus_id, void** card) {
  if (std::strcmp(pci_bus_id, "0000:3b:00.0") == 0) {
    *card = &cards[0];
  } else if (std::strcmp(pci_bus_id, "0000:5e:00.0") == 0) {
    *card = &cards[1];
  } else {
    return kNotFound;
  }
  return kSuccess;
}

int nvmlDeviceGetName(void* card, char* name, unsigned bytes) {
  std::strncpy(name, card == &cards[0] ? "Card A" : "Card B", bytes);
  return kSuccess;
}

int nvmlDeviceGetClockInfo(void* card, int type, unsigned* megahertz) {
  if (card != &cards[0] || type != 1) return kNotSupported;
  *megahertz = 1755;
  return kSuccess;
}

int nvmlDeviceGetPowerUsage(void* card, unsigned* milliwatts) {
  if (card != &cards[0]) return kNotSupported;
  *milliwatts = 349500;
  return kSuccess;
}

int nvmlDeviceGetEnforcedPowerLimit(void* card, unsigned* milliwatts) {
  if (card != &cards[0]) return kNotSupported;
  *milliwatts = 700000;
  return kSuccess;
}

int nvmlDeviceGetTemperature(void* card, int sensor, unsigned* celsius) {
  if (card != &cards[0] || sensor != 0) return kNotSupported;
  *celsius = 61;
  return kSuccess;
}
}
