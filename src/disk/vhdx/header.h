// The file type identifier and the two headers ([MS-VHDX] 2.2.1, 2.2.2): parsing, building and
// telling which header is the current one. header_store.h reads and writes them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "disk/vhdx/format.h"
#include "support/guid.h"
#include "support/status.h"

namespace bothy::disk::vhdx {

struct Header {
  uint64_t sequence_number = 0;
  Guid file_write_guid;
  Guid data_write_guid;
  Guid log_guid;  // zero: the log is empty
  uint16_t log_version = 0;
  uint16_t version = 1;
  uint32_t log_length = 0;  // bytes
  uint64_t log_offset = 0;  // bytes, in the file
  bool operator==(const Header&) const = default;
};

// DataLoss unless `bytes`, the beginning of the file, hold the signature of a VHDX.
absl::Status CheckFileIdentifier(std::span<const uint8_t> bytes);
// The identifier with `creator` (UTF-16 in the file, here ASCII), at most 255 characters.
void BuildFileIdentifier(std::string_view creator, std::span<uint8_t, kFileIdentifierBytes> out);

using HeaderBytes = std::array<uint8_t, kHeaderBytes>;

// The header at `offset`; DataLoss when signature or checksum say that there is none.
absl::StatusOr<Header> ParseHeader(std::span<const uint8_t, kHeaderBytes> bytes, uint64_t offset);
void BuildHeader(const Header& header, std::span<uint8_t, kHeaderBytes> out);

// Which of the two is current: 0 or 1. DataLoss when neither is.
absl::StatusOr<int> ChooseHeader(const absl::StatusOr<Header>& first,
                                 const absl::StatusOr<Header>& second);

// Whether what a valid, current header says can be worked with: versions, place of the log within a
// file of `file_bytes`.
absl::Status CheckHeaderFields(const Header& header, uint64_t offset, uint64_t file_bytes);

}  // namespace bothy::disk::vhdx
