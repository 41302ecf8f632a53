#include "disk/testing/sector_history.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "support/endian.h"

namespace bothy::disk {

SectorHistory::SectorHistory(uint64_t sectors, Initial initial)
    : initial_(std::move(initial)), entries_(sectors, std::vector<Entry>(1)) {}

void SectorHistory::Fill(uint64_t sector, uint64_t number, std::span<uint8_t> bytes) {
  StoreLe(bytes.data(), sector);
  StoreLe(bytes.data() + 8, number);
  const uint64_t mixed = (sector * 0x9E3779B97F4A7C15 ^ number) * 0xBF58476D1CE4E5B9;
  for (size_t at = 16; at < kSectorBytes; at += 8) StoreLe(bytes.data() + at, mixed + at);
}

void SectorHistory::Write(uint64_t sector, uint64_t count, uint64_t number) {
  for (uint64_t i = 0; i < count; ++i) {
    entries_[sector + i].push_back({.kind = Kind::kWritten, .number = number});
  }
}

void SectorHistory::Zero(uint64_t sector, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) entries_[sector + i].push_back({.kind = Kind::kZero});
}

void SectorHistory::Discard(uint64_t sector, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) entries_[sector + i].push_back({.kind = Kind::kDiscarded});
}

std::vector<uint32_t> SectorHistory::Done(const std::vector<bool>& busy) const {
  std::vector<uint32_t> done(entries_.size());
  for (size_t i = 0; i < done.size(); ++i) {
    done[i] = static_cast<uint32_t>(entries_[i].size() - (busy[i] ? 2 : 1));
  }
  return done;
}

bool SectorHistory::Matches(uint64_t sector, const Entry& entry,
                            std::span<const uint8_t> bytes) const {
  std::array<uint8_t, kSectorBytes> expected{};
  if (entry.kind == Kind::kWritten) Fill(sector, entry.number, expected);
  if (entry.kind == Kind::kInitial && initial_) initial_(sector, expected);
  return std::ranges::equal(expected, bytes);
}

std::string SectorHistory::CheckFrom(uint64_t sector, std::span<const uint8_t> bytes,
                                     size_t first) const {
  const std::vector<Entry>& entries = entries_[sector];
  for (size_t i = first; i < entries.size(); ++i) {
    if (entries[i].kind != Kind::kDiscarded) {
      if (Matches(sector, entries[i], bytes)) return "";
      continue;
    }
    // Anything that the sector ever held, or zero.
    for (const Entry& entry : entries) {
      if (Matches(sector, entry, bytes)) return "";
    }
    if (Matches(sector, {.kind = Kind::kZero}, bytes)) return "";
  }
  std::string message =
      absl::StrCat("sector ", sector, " holds write ", LoadLe<uint64_t>(bytes.data() + 8),
                   " of sector ", LoadLe<uint64_t>(bytes.data()), ", expected one of");
  for (size_t i = first; i < entries.size(); ++i) {
    absl::StrAppend(&message, entries[i].kind == Kind::kWritten
                                  ? absl::StrCat(" ", entries[i].number)
                                  : absl::StrCat(" kind ", static_cast<int>(entries[i].kind)));
  }
  return message;
}

std::string SectorHistory::CheckLast(uint64_t sector, std::span<const uint8_t> bytes) const {
  return CheckFrom(sector, bytes, entries_[sector].size() - 1);
}

std::string SectorHistory::CheckCrashed(uint64_t sector, std::span<const uint8_t> bytes,
                                        uint32_t done) const {
  return CheckFrom(sector, bytes, done);
}

}  // namespace bothy::disk
