#include <algorithm>
#include <bit>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/vhd1/dynamic_header.h"
#include "disk/vhd1/footer.h"
#include "disk/vhd1/image.h"
#include "disk/vhd1/parent_paths.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kTableChunkBytes = 64 << 10;

absl::Status CheckOptions(const CreateOptions& options) {
  if (options.size_bytes == 0 || options.size_bytes % kSectorBytes != 0 ||
      options.size_bytes > kMaxDiskBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("size_bytes: ", options.size_bytes, " bytes; VHD1 has whole sectors of ",
                     kSectorBytes, ", at most ", kMaxDiskBytes, " bytes (2040 GiB)"));
  }
  if (options.block_size_bytes != 0 &&
      (!std::has_single_bit(options.block_size_bytes) ||
       options.block_size_bytes < kMinBlockBytes || options.block_size_bytes > kMaxBlockBytes)) {
    return absl::InvalidArgumentError(absl::StrCat("block_size_bytes: ", options.block_size_bytes,
                                                   " isn't a power of two from ", kMinBlockBytes,
                                                   " to ", kMaxBlockBytes));
  }
  if (options.type == Type::kDifferencing && options.parent.linkage.is_zero()) {
    return absl::InvalidArgumentError("parent: has no identifier; only a VHD1 image can be one");
  }
  return absl::OkStatus();
}

Task<absl::Status> CreateFixed(Storage& storage, const CreateOptions& options) {
  absl::Status status = co_await storage.Resize(options.size_bytes + kFooterBytes);
  CO_RETURN_IF_ERROR(status);
  const Footer footer = MakeFooter(options.size_bytes, DiskType::kFixed, options.disk_id);
  const auto bytes = footer.Encode();
  const std::span<const uint8_t> data(bytes);
  status = co_await WriteAt(storage, options.size_bytes, data);
  CO_RETURN_IF_ERROR(status);
  co_return co_await Flush(storage);
}

Task<absl::Status> FillTable(Storage& storage, uint64_t begin, uint64_t end) {
  const std::vector<uint8_t> unused(std::min(kTableChunkBytes, end - begin), 0xFF);
  for (uint64_t at = begin; at < end; at += unused.size()) {
    const auto part =
        std::span<const uint8_t>(unused).first(std::min<uint64_t>(unused.size(), end - at));
    absl::Status status = co_await WriteAt(storage, at, part);
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> Create(Storage& storage, const CreateOptions& options) {
  absl::Status status = CheckOptions(options);
  CO_RETURN_IF_ERROR(status);
  status = co_await storage.Resize(0);
  CO_RETURN_IF_ERROR(status);
  if (options.type == Type::kFixed) co_return co_await CreateFixed(storage, options);

  const bool differencing = options.type == Type::kDifferencing;
  const Footer footer =
      MakeFooter(options.size_bytes, differencing ? DiskType::kDifferencing : DiskType::kDynamic,
                 options.disk_id);
  DynamicHeader header;
  header.block_size = options.block_size_bytes == 0 ? kDefaultBlockBytes : options.block_size_bytes;
  header.max_table_entries =
      static_cast<uint32_t>((options.size_bytes + header.block_size - 1) / header.block_size);
  if (header.max_table_entries > kMaxBlocks) {
    co_return absl::InvalidArgumentError(absl::StrCat("block_size_bytes: ", header.block_size,
                                                      " makes more than ", kMaxBlocks, " blocks"));
  }
  uint64_t end = kFooterBytes + kDynamicHeaderBytes;
  if (differencing) {
    header.parent_unique_id = options.parent.linkage;
    header.parent_time_stamp = ToTimeStamp(options.parent.modified_time);
    absl::StatusOr<std::string> name = ParentName(options.parent);
    CO_ASSIGN_OR_RETURN(header.parent_name, name);
    absl::StatusOr<std::vector<EncodedLocator>> locators = EncodeParentPaths(options.parent);
    if (!locators.ok()) co_return locators.status();
    for (size_t i = 0; i < locators->size(); ++i) {
      EncodedLocator& locator = (*locators)[i];
      locator.entry.data_offset = end;
      header.locators[i] = locator.entry;
      locator.bytes.resize(locator.entry.data_space);
      const std::span<const uint8_t> data(locator.bytes);
      status = co_await WriteAt(storage, end, data);
      CO_RETURN_IF_ERROR(status);
      end += locator.entry.data_space;
    }
  }
  header.table_offset = end;
  end += (uint64_t{header.max_table_entries} * 4 + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  status = co_await FillTable(storage, header.table_offset, end);
  CO_RETURN_IF_ERROR(status);

  const auto header_bytes = header.Encode();
  if (!header_bytes.ok()) co_return header_bytes.status();
  const std::span<const uint8_t> header_data(*header_bytes);
  status = co_await WriteAt(storage, footer.data_offset, header_data);
  CO_RETURN_IF_ERROR(status);
  const auto footer_bytes = footer.Encode();
  const std::span<const uint8_t> footer_data(footer_bytes);
  const uint64_t places[] = {0, end};
  for (const uint64_t at : places) {
    status = co_await WriteAt(storage, at, footer_data);
    CO_RETURN_IF_ERROR(status);
  }
  co_return co_await Flush(storage);
}

}  // namespace bothy::disk::vhd1
