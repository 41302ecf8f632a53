// MODE SENSE and MODE SELECT (SPC-5, 6.14 to 6.17; pages in 7.5 and SBC-4, 6.5).
#include <algorithm>
#include <array>
#include <cstring>

#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kErrorRecoveryPage = 0x01;
constexpr uint8_t kCachingPage = 0x08;
constexpr uint8_t kControlPage = 0x0A;
constexpr uint8_t kAllPages = 0x3F;
constexpr uint8_t kAllSubpages = 0xFF;

// Page control: which values are asked for.
constexpr uint8_t kChangeable = 1;
constexpr uint8_t kSaved = 3;

constexpr uint8_t kWriteProtect = 0x80;  // device-specific parameter
constexpr uint8_t kDpoFua = 0x10;
constexpr size_t kHeader6 = 4;
constexpr size_t kHeader10 = 8;

}  // namespace

// The pages asked for, or nothing when there is no such page.
std::vector<uint8_t> LogicalUnit::ModePages(uint8_t page, uint8_t control) const {
  std::vector<uint8_t> data;
  const auto add = [&](uint8_t code, std::vector<uint8_t> body) {
    if (page != code && page != kAllPages) return;
    // Nothing can be changed.
    if (control == kChangeable) std::fill(body.begin(), body.end(), uint8_t{0});
    data.push_back(code);
    data.push_back(static_cast<uint8_t>(body.size()));
    data.insert(data.end(), body.begin(), body.end());
  };
  add(kErrorRecoveryPage, {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0});  // AWRE
  std::vector<uint8_t> caching(18);
  caching[0] = 0x04;  // WCE: the host caches until SYNCHRONIZE CACHE
  add(kCachingPage, caching);
  std::vector<uint8_t> control_page(10);
  control_page[1] = 0x10;  // unrestricted reordering
  add(kControlPage, control_page);
  return data;
}

void LogicalUnit::ModeSense(Command& command) {
  const uint8_t* cdb = command.input_.cdb.data();
  const bool ten = cdb[0] == 0x5A;
  const uint8_t control = cdb[2] >> 6;
  const uint8_t subpage = cdb[3];
  if (control == kSaved) return Check(command, kSavingNotSupported);
  if (subpage != 0 && subpage != kAllSubpages) return InvalidField(command, 3);
  const std::vector<uint8_t> pages = ModePages(cdb[2] & 0x3F, control);
  if (pages.empty()) return InvalidField(command, 2);

  std::vector<uint8_t> data(ten ? kHeader10 : kHeader6);
  const auto specific =
      static_cast<uint8_t>((disk_->geometry().read_only ? kWriteProtect : 0) | kDpoFua);
  if ((cdb[1] & 0x08) == 0) {
    // DBD is clear: a block descriptor, the short one.
    std::array<uint8_t, 8> descriptor{};
    StoreBe(descriptor.data(), static_cast<uint32_t>(std::min<uint64_t>(blocks(), UINT32_MAX)));
    StoreBe(&descriptor[4], block_bytes());  // 24 bits of it; byte 4 is reserved
    data.insert(data.end(), descriptor.begin(), descriptor.end());
    data[ten ? 7 : 3] = static_cast<uint8_t>(descriptor.size());
  }
  data.insert(data.end(), pages.begin(), pages.end());
  if (ten) {
    StoreBe(data.data(), static_cast<uint16_t>(data.size() - 2));
    data[3] = specific;
  } else {
    data[0] = static_cast<uint8_t>(data.size() - 1);
    data[2] = specific;
  }
  Return(command, data, ten ? LoadBe<uint16_t>(cdb + 7) : cdb[4]);
}

// Nothing can be changed; what says what is already so is accepted, as drivers write back what they
// have read.
void LogicalUnit::ModeSelect(Command& command) {
  const uint8_t* cdb = command.input_.cdb.data();
  const bool ten = cdb[0] == 0x55;
  if ((cdb[1] & 0x01) != 0) return InvalidField(command, 1);  // SP: nothing is saved
  const size_t length = ten ? LoadBe<uint16_t>(cdb + 7) : cdb[4];
  if (length == 0) return Good(command);
  if (!CheckRoom(command, command.input_.data_out_bytes, length)) return;
  std::vector<uint8_t> list;
  for (const iovec& buffer : command.input_.data_out) {
    const auto* bytes = static_cast<const uint8_t*>(buffer.iov_base);
    const size_t part = std::min(buffer.iov_len, length - list.size());
    list.insert(list.end(), bytes, bytes + part);
  }
  const size_t header = ten ? kHeader10 : kHeader6;
  if (list.size() < header) return Check(command, kParameterListLength);
  size_t at = header + (ten ? LoadBe<uint16_t>(&list[6]) : list[3]);
  while (at + 2 <= list.size()) {
    if ((list[at] & 0x40) != 0) return InvalidParameter(command, static_cast<uint16_t>(at));
    const std::vector<uint8_t> page = ModePages(list[at] & 0x3F, 0);
    if (page.empty() || (list[at] & 0x3F) == kAllPages || page[1] != list[at + 1]) {
      return InvalidParameter(command, static_cast<uint16_t>(at));
    }
    if (list.size() - at < page.size()) return Check(command, kParameterListLength);
    for (size_t i = 2; i < page.size(); ++i) {
      if (list[at + i] != page[i]) return InvalidParameter(command, static_cast<uint16_t>(at + i));
    }
    at += page.size();
  }
  if (at != list.size()) return Check(command, kParameterListLength);
  command.residual = command.input_.data_out_bytes - length;
  Good(command);
}

}  // namespace bothy::scsi
