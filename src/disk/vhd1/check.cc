#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhd1/block_table.h"
#include "disk/vhd1/examine.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

// Behind the last block there may be less than this, to align what follows.
constexpr uint64_t kAlignmentBytes = 8192;

Problem Repairable(Severity severity, uint64_t offset, std::string field, std::string message) {
  return {.severity = severity,
          .offset = offset,
          .field = std::move(field),
          .message = std::move(message),
          .repairable = true};
}

// What is said of a footer that is missing or wrong while the other one is good.
Problem FooterProblem(const absl::Status& status, uint64_t offset, std::string field) {
  if (absl::IsNotFound(status)) {
    return Repairable(Severity::kWarning, offset, std::move(field), "there is none");
  }
  Problem problem = ToProblem(status, Severity::kWarning);
  problem.field = std::move(field);
  problem.repairable = true;
  return problem;
}

void ReportFooters(Examination& found) {
  const FooterCopies& copies = found.footers;
  CheckReport& report = found.report;
  if (!copies.last.ok() && !copies.first.ok()) {
    const absl::Status& status =
        absl::IsNotFound(copies.last.status()) ? copies.first.status() : copies.last.status();
    Problem problem = ToProblem(status);
    if (problem.field.empty()) problem.field = "Footer";
    report.Add(std::move(problem));
    return;
  }
  found.footer = copies.last.ok() ? *copies.last : *copies.first;
  if (found.footer->type == DiskType::kFixed) return;
  if (!copies.last.ok()) {
    report.Add(FooterProblem(copies.last.status(), copies.last_offset, "Footer"));
  } else if (!copies.first.ok()) {
    report.Add(FooterProblem(copies.first.status(), 0, "FooterCopy"));
  } else if (*copies.last != *copies.first) {
    report.Add(Repairable(Severity::kWarning, 0, "FooterCopy", "differs from the footer"));
  }
}

Task<absl::Status> ReadHeader(Storage& storage, Examination& found) {
  const uint64_t at = found.footer->data_offset;
  if (storage.size() < kDynamicHeaderBytes || at > storage.size() - kDynamicHeaderBytes) {
    found.report.Add({.severity = Severity::kError,
                      .offset = 16,
                      .field = "Footer.DataOffset",
                      .message = absl::StrCat(at, " isn't within the file"),
                      .repairable = false});
    co_return absl::OkStatus();
  }
  std::array<uint8_t, kDynamicHeaderBytes> bytes{};
  const std::span<uint8_t> target(bytes);
  absl::Status status = co_await ReadAt(storage, at, target);
  CO_RETURN_IF_ERROR(status);
  Image image;
  image.footer = *found.footer;
  image.footer_offset = found.footers.last_offset;
  image.last_footer_good = found.footers.last.ok();
  image.first_footer_good = found.footers.first.ok();
  absl::StatusOr<DynamicHeader> header = DecodeDynamicHeader(bytes, at, false);
  if (header.ok()) image.header = *header;
  absl::Status layout = header.ok() ? CheckLayout(image, storage.size()) : header.status();
  if (!layout.ok()) {
    found.report.Add(ToProblem(layout));
    co_return absl::OkStatus();
  }
  // All that it says makes sense, so only the sum is wrong.
  if (absl::StatusOr<DynamicHeader> strict = DecodeDynamicHeader(bytes, at); !strict.ok()) {
    Problem problem = ToProblem(strict.status(), Severity::kWarning);
    problem.repairable = true;
    found.report.Add(std::move(problem));
    found.header_checksum_wrong = true;
  }
  found.image = std::move(image);
  co_return absl::OkStatus();
}

// Looks for blocks that share bytes, and for bytes that nothing refers to.
void ReportSpace(Storage& storage, const BlockTable& table, Examination& found) {
  const Image& image = *found.image;
  CheckReport& report = found.report;
  const uint64_t span = image.block_span();
  // What isn't a block: its parts may lie anywhere.
  std::vector<Leak> others = {{.offset = 0, .length = kFooterBytes},
                              {.offset = image.footer.data_offset, .length = kDynamicHeaderBytes},
                              {.offset = image.header->table_offset,
                               .length = image.table_end() - image.header->table_offset}};
  for (const LocatorEntry& entry : image.header->locators) {
    const bool there = entry.platform_code != 0 && entry.data_offset < storage.size();
    if (there) others.push_back({.offset = entry.data_offset, .length = entry.data_length});
  }
  std::ranges::sort(others, {}, &Leak::offset);
  auto other = others.begin();
  uint64_t end = 0;
  const auto pass_others = [&](uint64_t until) {
    for (; other != others.end() && other->offset < until; ++other) {
      if (other->offset > end && image.AlignBlock(end) + span <= other->offset) {
        found.leaks.push_back({.offset = end, .length = other->offset - end});
      }
      end = std::max(end, other->offset + other->length);
    }
  };
  uint64_t blocks_end = 0;
  for (const FoundBlock& block : found.blocks) {
    pass_others(block.offset);
    if (block.offset < blocks_end) {
      found.overlapping.push_back(block);
      report.Add(Repairable(Severity::kError, table.EntryOffset(block.block),
                            absl::StrCat("BAT[", block.block, "]"),
                            absl::StrCat("the block at ", block.offset,
                                         " lies on another one, which ends at ", blocks_end)));
    } else if (image.AlignBlock(end) + span <= block.offset) {
      // Room for a block: less than that can't be used anyway.
      found.leaks.push_back({.offset = end, .length = block.offset - end});
    }
    blocks_end = std::max(blocks_end, block.offset + span);
    end = std::max(end, blocks_end);
  }
  pass_others(UINT64_MAX);
  // Where blocks are cut off, this is where they would end.
  end = std::max(std::min(end, storage.size()), blocks_end);
  found.data_end = (end + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  const uint64_t footer_at = found.footers.last.ok() ? found.footers.last_offset : storage.size();
  if (footer_at > end && footer_at - end >= kAlignmentBytes) {
    found.leaks.push_back({.offset = end, .length = footer_at - end});
  } else if (found.footers.last.ok() && footer_at < end) {
    report.Add(Repairable(Severity::kWarning, footer_at, "Footer",
                          "lies within the last block, whose end it hides"));
  }
  for (const Leak& leak : found.leaks) {
    report.leaked_bytes += leak.length;
    report.Add(Repairable(Severity::kNote, leak.offset, "file",
                          absl::StrCat(leak.length, " bytes that nothing refers to")));
  }
}

Task<absl::Status> ReadTable(Storage& storage, const Progress& progress, Examination& found) {
  const Image& image = *found.image;
  CheckReport& report = found.report;
  const uint64_t span = image.block_span();
  BlockTable table(storage, image.header->table_offset, image.blocks());
  report.blocks_total = image.blocks();
  report.block_size_bytes = image.header->block_size;
  const uint64_t table_bytes = uint64_t{image.blocks()} * 4;
  const auto look = [&](uint32_t block, uint32_t location) {
    if (progress && block % 65536 == 0) progress(uint64_t{block} * 4, table_bytes);
    const uint64_t offset = location * kSectorBytes;
    std::string message;
    if (offset >= found.footers.last_offset) {
      message = absl::StrCat("the block at ", offset, " lies past the file's end, ",
                             found.footers.last_offset);
    } else if (image.OverlapsMetadata(offset, span)) {
      message = absl::StrCat("the block at ", offset, " lies on the header or the table");
    } else {
      found.blocks.push_back({.block = block, .offset = offset});
      if (offset + span <= storage.size()) return;
      report.Add(Repairable(
          Severity::kError, table.EntryOffset(block), absl::StrCat("BAT[", block, "]"),
          absl::StrCat("the block at ", offset, " ends past the file's end, ", storage.size())));
      return;
    }
    found.outside.push_back(block);
    report.Add(Repairable(Severity::kError, table.EntryOffset(block),
                          absl::StrCat("BAT[", block, "]"), std::move(message)));
  };
  absl::Status status = co_await table.ForEachInFile(look);
  CO_RETURN_IF_ERROR(status);
  std::ranges::sort(found.blocks, [](const FoundBlock& a, const FoundBlock& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.block < b.block;
  });
  report.blocks_allocated = found.blocks.size();
  report.allocated_bytes = found.blocks.size() * span;
  ReportSpace(storage, table, found);
  if (progress) progress(table_bytes, table_bytes);
  co_return absl::OkStatus();
}

// Entries past the disk's end, which a shrink that was interrupted leaves: once the disk grew they
// would be blocks, in room that others may have got meanwhile.
Task<absl::Status> ReadPastTheEnd(Storage& storage, Examination& found) {
  const Image& image = *found.image;
  const uint64_t first = image.header->table_offset + uint64_t{image.blocks()} * 4;
  // Where blocks lie on the table, it may be shorter than it says.
  if (!found.outside.empty() || first >= found.footers.last_offset) co_return absl::OkStatus();
  const uint64_t there = (found.footers.last_offset - first) / 4;
  const uint64_t entries = image.header->max_table_entries - image.blocks();
  const auto count = static_cast<uint32_t>(std::min<uint64_t>({entries, there, kMaxBlocks}));
  BlockTable table(storage, first, count);
  uint32_t used = 0;
  const auto look = [&](uint32_t entry, uint32_t /*location*/) {
    ++used;
    found.past_the_end = image.blocks() + entry + 1;
  };
  absl::Status status = co_await table.ForEachInFile(look);
  if (used != 0) {
    found.report.Add(Repairable(Severity::kNote, first, "BAT",
                                absl::StrCat(used, " entries past the disk's end are in use")));
  }
  co_return status;
}

}  // namespace

Task<absl::StatusOr<Examination>> Examine(Storage& storage, const Progress& progress) {
  Examination found;
  found.report.file_bytes = storage.size();
  absl::StatusOr<FooterCopies> footers = co_await ReadFooters(storage);
  CO_ASSIGN_OR_RETURN(found.footers, footers);
  ReportFooters(found);
  if (!found.footer.has_value()) co_return found;
  if (found.footer->type == DiskType::kFixed) {
    Image image;
    image.footer = *found.footer;
    image.footer_offset = found.footers.last_offset;
    image.last_footer_good = true;
    found.report.blocks_total = found.report.blocks_allocated = 1;
    found.report.block_size_bytes = found.report.allocated_bytes = image.disk_bytes();
    absl::Status layout = CheckLayout(image, storage.size());
    if (!layout.ok()) {
      found.report.Add(ToProblem(layout));
    } else if (image.footer_offset > image.disk_bytes()) {
      found.report.leaked_bytes = image.footer_offset - image.disk_bytes();
    }
    found.image = std::move(image);
    co_return found;
  }
  absl::Status status = co_await ReadHeader(storage, found);
  CO_RETURN_IF_ERROR(status);
  if (found.image.has_value()) {
    status = co_await ReadTable(storage, progress, found);
    if (status.ok()) status = co_await ReadPastTheEnd(storage, found);
    CO_RETURN_IF_ERROR(status);
  }
  co_return found;
}

Task<absl::StatusOr<CheckReport>> Check(Storage& storage, Progress progress) {
  absl::StatusOr<Examination> found = co_await Examine(storage, progress);
  if (!found.ok()) co_return WithContext(found.status(), storage.path());
  co_return std::move(found->report);
}

}  // namespace bothy::disk::vhd1
