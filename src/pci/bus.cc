#include "pci/bus.h"

#include <mutex>

#include "absl/strings/str_format.h"

namespace bothy::pci {
namespace {

bool OnABus(DeviceFunction where) {
  return where.device < kDevicesPerBus && where.function < kFunctionsPerDevice;
}

}  // namespace

absl::Status Bus::Attach(DeviceFunction where, Function& function) {
  if (!OnABus(where)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("pci: no such place: %02x.%x", where.device, where.function));
  }
  const std::unique_lock lock(mutex_);
  Function*& slot = functions_[Index(where)];
  if (slot != nullptr) {
    return absl::AlreadyExistsError(
        absl::StrFormat("pci: %02x.%x is taken", where.device, where.function));
  }
  slot = &function;
  return absl::OkStatus();
}

absl::Status Bus::Detach(DeviceFunction where) {
  const std::unique_lock lock(mutex_);
  if (!OnABus(where) || functions_[Index(where)] == nullptr) {
    return absl::NotFoundError(
        absl::StrFormat("pci: nothing is at %02x.%x", where.device, where.function));
  }
  functions_[Index(where)] = nullptr;
  return absl::OkStatus();
}

uint32_t Bus::ReadConfig(DeviceFunction where, uint16_t offset) const {
  const std::shared_lock lock(mutex_);
  Function* function = functions_[Index(where)];
  return function == nullptr ? kAllOnes : function->ReadConfig(offset);
}

void Bus::WriteConfig(DeviceFunction where, uint16_t offset, uint32_t value,
                      uint32_t enabled) const {
  const std::shared_lock lock(mutex_);
  Function* function = functions_[Index(where)];
  if (function != nullptr) function->WriteConfig(offset, value, enabled);
}

void Bus::Reset() const {
  const std::shared_lock lock(mutex_);
  for (Function* function : functions_) {
    if (function != nullptr) function->Reset();
  }
}

}  // namespace bothy::pci
