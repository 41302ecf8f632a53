#include "disk/vhdx/header.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhdx/crc32c.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint8_t kFileSignature[8] = {'v', 'h', 'd', 'x', 'f', 'i', 'l', 'e'};
constexpr uint32_t kHeaderSignature = 0x64616568;  // "head"

// Places of the fields.
enum : size_t {
  kSignature = 0,
  kChecksum = 4,
  kSequenceNumber = 8,
  kFileWriteGuid = 16,
  kDataWriteGuid = 32,
  kLogGuid = 48,
  kLogVersion = 64,
  kVersion = 66,
  kLogLength = 68,
  kLogOffset = 72,
};

Guid LoadGuid(const uint8_t* from) {
  Guid guid;
  std::memcpy(guid.bytes.data(), from, guid.bytes.size());
  return guid;
}
void StoreGuid(uint8_t* to, const Guid& guid) {
  std::memcpy(to, guid.bytes.data(), guid.bytes.size());
}

}  // namespace

absl::Status CheckFileIdentifier(std::span<const uint8_t> bytes) {
  if (bytes.size() < sizeof kFileSignature ||
      std::memcmp(bytes.data(), kFileSignature, sizeof kFileSignature) != 0) {
    return Damaged(kFileIdentifierOffset, "Signature", "not a VHDX file");
  }
  return absl::OkStatus();
}

void BuildFileIdentifier(std::string_view creator, std::span<uint8_t, kFileIdentifierBytes> out) {
  CHECK(creator.size() <= 255);
  std::ranges::fill(out, 0);
  std::memcpy(out.data(), kFileSignature, sizeof kFileSignature);
  for (size_t i = 0; i < creator.size(); ++i) {
    StoreLe<uint16_t>(out.data() + sizeof kFileSignature + 2 * i, static_cast<uint8_t>(creator[i]));
  }
}

absl::StatusOr<Header> ParseHeader(std::span<const uint8_t, kHeaderBytes> bytes, uint64_t offset) {
  const uint8_t* at = bytes.data();
  if (LoadLe<uint32_t>(at + kSignature) != kHeaderSignature) {
    return Damaged(offset + kSignature, "Header.Signature", "not that of a header");
  }
  if (LoadLe<uint32_t>(at + kChecksum) != Crc32cWithoutField(bytes, kChecksum)) {
    return Damaged(offset + kChecksum, "Header.Checksum", "doesn't match the contents");
  }
  return Header{
      .sequence_number = LoadLe<uint64_t>(at + kSequenceNumber),
      .file_write_guid = LoadGuid(at + kFileWriteGuid),
      .data_write_guid = LoadGuid(at + kDataWriteGuid),
      .log_guid = LoadGuid(at + kLogGuid),
      .log_version = LoadLe<uint16_t>(at + kLogVersion),
      .version = LoadLe<uint16_t>(at + kVersion),
      .log_length = LoadLe<uint32_t>(at + kLogLength),
      .log_offset = LoadLe<uint64_t>(at + kLogOffset),
  };
}

void BuildHeader(const Header& header, std::span<uint8_t, kHeaderBytes> out) {
  std::ranges::fill(out, 0);
  uint8_t* at = out.data();
  StoreLe(at + kSignature, kHeaderSignature);
  StoreLe(at + kSequenceNumber, header.sequence_number);
  StoreGuid(at + kFileWriteGuid, header.file_write_guid);
  StoreGuid(at + kDataWriteGuid, header.data_write_guid);
  StoreGuid(at + kLogGuid, header.log_guid);
  StoreLe(at + kLogVersion, header.log_version);
  StoreLe(at + kVersion, header.version);
  StoreLe(at + kLogLength, header.log_length);
  StoreLe(at + kLogOffset, header.log_offset);
  StoreLe(at + kChecksum, Crc32cWithoutField(out, kChecksum));
}

absl::StatusOr<int> ChooseHeader(const absl::StatusOr<Header>& first,
                                 const absl::StatusOr<Header>& second) {
  if (!first.ok() && !second.ok()) return first.status();
  if (!second.ok()) return 0;
  if (!first.ok()) return 1;
  if (first->sequence_number == second->sequence_number && *first != *second) {
    return Damaged(kHeaderOffsets[0] + kSequenceNumber, "Header.SequenceNumber",
                   absl::StrCat("both headers, which differ, have ", first->sequence_number));
  }
  return second->sequence_number > first->sequence_number ? 1 : 0;
}

absl::Status CheckHeaderFields(const Header& header, uint64_t offset, uint64_t file_bytes) {
  if (header.version != 1) {
    return Unsupported(offset + kVersion, "Header.Version",
                       absl::StrCat(header.version, " isn't supported, only 1 is"));
  }
  if (header.log_version != 0 && !header.log_guid.is_zero()) {
    return Unsupported(offset + kLogVersion, "Header.LogVersion",
                       absl::StrCat(header.log_version, " isn't supported, only 0 is"));
  }
  if (header.log_length == 0 || header.log_length % kAlignment != 0) {
    return Damaged(offset + kLogLength, "Header.LogLength",
                   absl::StrCat(header.log_length, " isn't a multiple of 1 MiB above 0"));
  }
  if (header.log_length > kMaxLogBytes) {
    return Unsupported(offset + kLogLength, "Header.LogLength",
                       absl::StrCat(header.log_length, " is over ", kMaxLogBytes));
  }
  if (header.log_offset % kAlignment != 0 || header.log_offset < kHeaderSectionBytes) {
    return Damaged(offset + kLogOffset, "Header.LogOffset",
                   absl::StrCat(header.log_offset, " isn't a multiple of 1 MiB of at least 1 MiB"));
  }
  if (header.log_offset > file_bytes || header.log_length > file_bytes - header.log_offset) {
    return Damaged(offset + kLogOffset, "Header.LogOffset",
                   absl::StrCat("the log, ", header.log_length, " bytes at ", header.log_offset,
                                ", isn't within the file of ", file_bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace bothy::disk::vhdx
