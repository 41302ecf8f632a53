// SectorHistory: what every sector of a disk under test may hold.
//
// Each write leaves its own number in every sector, so that a sector tells which write it is from
// and whether it lies where that write put it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace bothy::disk {

class SectorHistory {
 public:
  static constexpr uint64_t kSectorBytes = 512;
  // `initial` fills a sector with what it holds before all writes; zero by default.
  using Initial = std::function<void(uint64_t sector, std::span<uint8_t> bytes)>;
  explicit SectorHistory(uint64_t sectors, Initial initial = nullptr);

  [[nodiscard]] uint64_t sectors() const { return entries_.size(); }
  // What write `number` (above 0) leaves in the sector.
  static void Fill(uint64_t sector, uint64_t number, std::span<uint8_t> bytes);

  void Write(uint64_t sector, uint64_t count, uint64_t number);
  void Zero(uint64_t sector, uint64_t count);
  void Discard(uint64_t sector, uint64_t count);

  // How many changes each sector has had that are done: what a flush that begins now covers. `busy`
  // says of which sectors the last one is still under way.
  [[nodiscard]] std::vector<uint32_t> Done(const std::vector<bool>& busy) const;

  // Empty when `bytes` are what `sector` must hold after its last change; else what is wrong.
  [[nodiscard]] std::string CheckLast(uint64_t sector, std::span<const uint8_t> bytes) const;
  // The same for a crash after a flush that covered the first `done` changes.
  [[nodiscard]] std::string CheckCrashed(uint64_t sector, std::span<const uint8_t> bytes,
                                         uint32_t done) const;

 private:
  enum class Kind : uint8_t { kInitial, kWritten, kZero, kDiscarded };
  struct Entry {
    Kind kind = Kind::kInitial;
    uint64_t number = 0;
  };
  [[nodiscard]] bool Matches(uint64_t sector, const Entry& entry,
                             std::span<const uint8_t> bytes) const;
  [[nodiscard]] std::string CheckFrom(uint64_t sector, std::span<const uint8_t> bytes,
                                      size_t first) const;

  Initial initial_;
  std::vector<std::vector<Entry>> entries_;
};

}  // namespace bothy::disk
