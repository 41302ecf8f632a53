// Create: writes a new image.
//
// The layout: header section, log, metadata region, BAT, then blocks. The parts that say what the
// file is, the file identifier and the headers, are written last, so that a half-made file isn't
// an image.
#include <bit>

#include "absl/strings/str_cat.h"
#include "disk/vhdx/bat.h"
#include "disk/vhdx/header.h"
#include "disk/vhdx/header_store.h"
#include "disk/vhdx/metadata.h"
#include "disk/vhdx/parent_locator.h"
#include "disk/vhdx/region_table.h"
#include "disk/vhdx/vhdx.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr std::string_view kCreator = "bothy";
constexpr uint64_t kMetadataRegionBytes = kMiB;

// What is changed together fits into a third of the log. Sector bitmaps have a page for every 16
// MiB of the disk; a BAT has one for 512 blocks, and that of a fixed image never changes.
uint32_t LogBytes(Type type) {
  switch (type) {
    case Type::kFixed:
      return kMiB;
    case Type::kDynamic:
      return 2 * kMiB;
    case Type::kDifferencing:
      return 16 * kMiB;
  }
  return kMiB;
}

absl::Status CheckOptions(const CreateOptions& options, uint32_t block_bytes) {
  const auto bad = [](const char* field, uint64_t value, const char* allowed) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, " isn't ", allowed));
  };
  if (options.logical_sector_bytes != 512 && options.logical_sector_bytes != 4096) {
    return bad("logical_sector_bytes", options.logical_sector_bytes, "512 or 4096");
  }
  if (options.physical_sector_bytes != 512 && options.physical_sector_bytes != 4096) {
    return bad("physical_sector_bytes", options.physical_sector_bytes, "512 or 4096");
  }
  if (options.size_bytes == 0 || options.size_bytes > kMaxDiskBytes ||
      options.size_bytes % options.logical_sector_bytes != 0) {
    return bad("size_bytes", options.size_bytes, "whole sectors, at least one, at most 64 TiB");
  }
  if (!std::has_single_bit(block_bytes) || block_bytes < kMinBlockBytes ||
      block_bytes > kMaxBlockBytes) {
    return bad("block_size_bytes", block_bytes, "a power of two from 1 MiB to 256 MiB");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint8_t>> MakeLocator(const ParentSpelling& parent) {
  ParentLocator locator;
  if (parent.linkage.is_zero()) return absl::InvalidArgumentError("parent.linkage: missing");
  if (parent.relative_path.empty() && parent.absolute_path.empty()) {
    return absl::InvalidArgumentError("parent: neither a relative nor an absolute path");
  }
  locator.Set(kParentLinkage, SpellLinkage(parent.linkage));
  if (!parent.relative_path.empty()) {
    ASSIGN_OR_RETURN(const std::string path, SpellPath(parent.relative_path, false));
    locator.Set(kRelativePath, path);
  }
  if (!parent.absolute_path.empty()) {
    ASSIGN_OR_RETURN(const std::string path, SpellPath(parent.absolute_path, true));
    locator.Set(kAbsoluteWin32Path, path);
  }
  return BuildParentLocator(locator);
}

// The BAT of a fixed image: every block in its order, from `first` on.
Task<absl::Status> WriteFixedBat(Storage& storage, const BatLayout& bat, uint32_t block_bytes,
                                 uint64_t first) {
  constexpr uint64_t kEntriesAtOnce = uint64_t{32} * kBatEntriesPerPage;
  std::vector<uint8_t> bytes;
  for (uint64_t index = 0; index < bat.entries();) {
    const uint64_t begin = index;
    const uint64_t end = std::min(bat.entries(), begin + kEntriesAtOnce);
    bytes.assign((end - begin) * kBatEntryBytes, 0);
    for (; index < end; ++index) {
      if (bat.IsBitmapIndex(index)) continue;
      const BatEntry entry(BlockState::kFullyPresent, first + bat.BlockOf(index) * block_bytes);
      StoreLe(bytes.data() + (index - begin) * kBatEntryBytes, entry.bits());
    }
    absl::Status status =
        co_await WriteAt(storage, bat.EntryOffset(begin), std::span<const uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> Create(Storage& storage, const CreateOptions& options) {
  DiskParameters parameters;
  parameters.block_bytes =
      options.block_size_bytes == 0 ? kDefaultBlockBytes : options.block_size_bytes;
  CO_RETURN_IF_ERROR(CheckOptions(options, parameters.block_bytes));
  parameters.leave_block_allocated = options.type == Type::kFixed;
  parameters.has_parent = options.type == Type::kDifferencing;
  parameters.size_bytes = options.size_bytes;
  parameters.disk_id = options.disk_id.is_zero() ? Guid::Random() : options.disk_id;
  parameters.logical_sector_bytes = options.logical_sector_bytes;
  parameters.physical_sector_bytes = options.physical_sector_bytes;
  std::vector<uint8_t> locator;
  if (parameters.has_parent) {
    absl::StatusOr<std::vector<uint8_t>> made = MakeLocator(options.parent);
    CO_ASSIGN_OR_RETURN(locator, made);
  }

  Header header;
  header.file_write_guid = Guid::Random();
  header.data_write_guid = Guid::Random();
  header.log_offset = kHeaderSectionBytes;
  header.log_length = LogBytes(options.type);
  const uint64_t metadata_offset = header.log_offset + header.log_length;
  const uint64_t bat_offset = metadata_offset + kMetadataRegionBytes;
  const BatLayout bat(bat_offset, parameters);
  const uint64_t bat_bytes = RoundUp(bat.bytes(), kAlignment);
  const uint64_t blocks_offset = bat_offset + bat_bytes;
  const bool fixed = options.type == Type::kFixed;
  const uint64_t file_bytes =
      blocks_offset + (fixed ? bat.payload_blocks() * parameters.block_bytes : 0);

  // Whatever the storage held reads as zero now.
  absl::Status status = co_await storage.Resize(0);
  CO_RETURN_IF_ERROR(status);
  status = co_await storage.Resize(file_bytes);
  CO_RETURN_IF_ERROR(status);
  // The log takes its room at once: a full host must not keep metadata from becoming durable.
  status = co_await SubmitAwaiter<Storage>(storage, Operation::kWriteZeroes, header.log_offset,
                                           header.log_length, std::span<const iovec>(), false);
  CO_RETURN_IF_ERROR(status);
  if (fixed) {
    status = co_await WriteFixedBat(storage, bat, parameters.block_bytes, blocks_offset);
    CO_RETURN_IF_ERROR(status);
    status =
        co_await SubmitAwaiter<Storage>(storage, Operation::kWriteZeroes, blocks_offset,
                                        file_bytes - blocks_offset, std::span<const iovec>(), true);
    CO_RETURN_IF_ERROR(status);
  }
  const std::vector<uint8_t> metadata = BuildMetadataRegion(parameters, locator);
  status = co_await WriteAt(storage, metadata_offset, std::span<const uint8_t>(metadata));
  CO_RETURN_IF_ERROR(status);
  RegionTable regions;
  regions.regions.push_back({.id = kBatRegion,
                             .offset = bat_offset,
                             .length = static_cast<uint32_t>(bat_bytes),
                             .required = true});
  regions.regions.push_back({.id = kMetadataRegion,
                             .offset = metadata_offset,
                             .length = static_cast<uint32_t>(kMetadataRegionBytes),
                             .required = true});
  std::vector<uint8_t> table(kRegionTableBytes);
  BuildRegionTable(regions, std::span(table).first<kRegionTableBytes>());
  for (const uint64_t offset : kRegionTableOffsets) {
    status = co_await WriteAt(storage, offset, std::span<const uint8_t>(table));
    CO_RETURN_IF_ERROR(status);
  }
  status = co_await Flush(storage);
  CO_RETURN_IF_ERROR(status);

  for (const uint64_t offset : kHeaderOffsets) {
    ++header.sequence_number;
    HeaderBytes bytes;
    BuildHeader(header, bytes);
    status = co_await WriteAt(storage, offset, std::span<const uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
  }
  std::vector<uint8_t> identifier(kFileIdentifierBytes);
  BuildFileIdentifier(kCreator, std::span(identifier).first<kFileIdentifierBytes>());
  status = co_await WriteAt(storage, kFileIdentifierOffset, std::span<const uint8_t>(identifier));
  CO_RETURN_IF_ERROR(status);
  co_return co_await Flush(storage);
}

Task<absl::StatusOr<bool>> Probe(Storage& storage) {
  std::vector<uint8_t> bytes(8);
  absl::Status status = co_await ReadAt(storage, kFileIdentifierOffset, std::span<uint8_t>(bytes));
  if (absl::IsOutOfRange(status)) co_return false;
  CO_RETURN_IF_ERROR(status);
  co_return CheckFileIdentifier(bytes).ok();
}

}  // namespace bothy::disk::vhdx
