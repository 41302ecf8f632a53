// Whatever bytes arrive as a request: validation ends with a status, and what it lets through is
// inside the ranges that the machine below relies on.
//
// The first byte chooses the message, the rest is its wire form.
#include <google/protobuf/empty.pb.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <stop_token>
#include <string>
#include <utility>

#include "support/check.h"
#include "support/log.h"
#include "vmservice/create_request.h"
#include "vmservice/modify_request.h"
#include "vmservice/testing/recording_machine.h"
#include "vmservice/unknown_fields.h"

namespace bothy::vmservice {
namespace {

namespace wire = ::vmservice;

bool IsPath(const std::string& text) {
  return !text.empty() && text.find('\0') == std::string::npos;
}

void CheckScsiPlace(const machine::ScsiDiskConfig& disk) {
  CHECK(disk.controller < machine::kScsiControllers && disk.lun < machine::kScsiLuns);
}

void CheckDisks(const machine::MachineConfig& config) {
  std::map<std::string, bool> read_only;  // by path: no image that is written to has two disks
  const auto check_image = [&read_only](const machine::ImageConfig& image) {
    CHECK(IsPath(image.path));
    CHECK(image.type <= machine::ImageType::kPhysical);
    const auto [first, added] = read_only.try_emplace(image.path, image.read_only);
    CHECK(added || (first->second && image.read_only));
  };
  std::set<std::pair<uint32_t, uint32_t>> places;
  for (const machine::ScsiDiskConfig& disk : config.scsi_disks) {
    CheckScsiPlace(disk);
    CHECK(places.emplace(disk.controller, disk.lun).second);
    check_image(disk.image);
  }
  std::set<std::string> pmem;
  for (const machine::PmemDiskConfig& disk : config.pmem_disks) {
    CHECK(pmem.insert(disk.image.path).second);
    check_image(disk.image);
  }
}

void CheckConfig(const machine::MachineConfig& config) {
  CheckDisks(config);
  const machine::MemoryConfig& memory = config.memory;
  // Sizes in MiB stay below 2^64 bytes.
  constexpr uint64_t kMaxMib = uint64_t{1} << 44;
  CHECK(memory.ram_mib >= 1 && memory.ram_mib < kMaxMib);
  CHECK(memory.low_mmio_gap_mib == 0 ||
        (memory.low_mmio_gap_mib >= 512 && memory.low_mmio_gap_mib <= 3072));
  CHECK(memory.high_mmio_base_mib == 0 || memory.high_mmio_base_mib >= 4096);
  CHECK(memory.high_mmio_base_mib < kMaxMib && memory.high_mmio_gap_mib < kMaxMib);
  CHECK(config.processors.count >= 1);
  CHECK(IsPath(config.direct_boot.kernel_path));
  CHECK(config.direct_boot.initrd_path.empty() || IsPath(config.direct_boot.initrd_path));
  CHECK(config.direct_boot.command_line.find('\0') == std::string::npos);
  std::set<uint32_t> ports;
  std::set<std::string> paths;
  for (const machine::SerialPortConfig& port : config.serial_ports) {
    CHECK(port.port <= 3 && ports.insert(port.port).second);
    CHECK(IsPath(port.socket_path) && paths.insert(port.socket_path).second);
  }
}

template <typename Message>
void Check(const std::string& bytes) {
  Message message;
  if (!message.ParseFromString(bytes)) return;
  const absl::Status status = RefuseUnknownFields(message);
  // Unknown fields are all that a message has beside what it is made of.
  Message known = message;
  known.DiscardUnknownFields();
  CHECK(status.ok() == (known.ByteSizeLong() == message.ByteSizeLong()));
}

void CheckCreate(const std::string& bytes) {
  wire::CreateVMRequest request;
  if (!request.ParseFromString(bytes)) return;
  const auto config = TranslateCreateRequest(request);
  if (config.ok()) {
    CheckConfig(*config);
  } else {
    CHECK(!config.status().message().empty());
  }
}

void CheckModify(const std::string& bytes) {
  wire::ModifyResourceRequest request;
  if (!request.ParseFromString(bytes)) return;
  const auto change = TranslateModifyRequest(request);
  if (!change.ok()) {
    CHECK(!change.status().message().empty());
    return;
  }
  CHECK(!change->resource.empty());
  RecordingMachine machine;
  change->apply(machine, change->change, std::stop_token(), [](const absl::Status&) {});
  CHECK(machine.changes.size() == 1);
  const RecordingMachine::Change& applied = *machine.changes[0];
  CHECK(applied.change == change->change);
  if (applied.scsi.has_value()) {
    CheckScsiPlace(*applied.scsi);
    CHECK(applied.change == machine::Change::kRemove || IsPath(applied.scsi->image.path));
  } else {
    CHECK(applied.change != machine::Change::kUpdate);
    CHECK(IsPath(applied.pmem->image.path));
  }
}

}  // namespace
}  // namespace bothy::vmservice

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  // Keys of others are logged; one record a run is enough to slow everything down.
  bothy::ConfigureLogging({.level = bothy::LogLevel::kError});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bothy::vmservice;
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      Check<wire::CreateVMRequest>(bytes);
      break;
    case 1:
      Check<wire::ModifyResourceRequest>(bytes);
      break;
    case 2:
      Check<wire::VMSocketRequest>(bytes);
      break;
    case 3:
      Check<wire::InspectVMRequest>(bytes);
      break;
    case 4:
      Check<wire::PropertiesVMRequest>(bytes);
      break;
    case 5:
      Check<google::protobuf::Empty>(bytes);
      break;
    case 6:
      CheckModify(bytes);
      break;
    default:
      CheckCreate(bytes);
      break;
  }
  return 0;
}
