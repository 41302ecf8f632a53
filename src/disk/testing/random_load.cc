#include "disk/testing/random_load.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bothy::disk {
namespace {

constexpr uint64_t kSectorBytes = SectorHistory::kSectorBytes;
constexpr size_t kVerifyBytes = 256 << 10;

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  uint64_t number = 0;
  return text != nullptr && absl::SimpleAtoi(text, &number) ? number : fallback;
}

}  // namespace

uint64_t OperationsOr(uint64_t fallback) {
  return FromEnvironment("BOTHY_DISK_OPERATIONS", fallback);
}

uint64_t SeedFrom(uint64_t seed) {
  return seed + 1'000'000 * FromEnvironment("BOTHY_DISK_SEED", 0);
}

struct RandomLoad::Running final : Request {
  explicit Running(RandomLoad& owner) : load(owner) {}
  void Complete(absl::Status status) override { load.End(*this, status); }
  RandomLoad& load;
  uint64_t sector = 0;
  uint64_t sectors = 0;
  std::vector<uint8_t> bytes;
  std::vector<iovec> iovecs;
  std::vector<uint32_t> done;
  bool ended = false;
};

RandomLoad::RandomLoad(Disk& disk, SectorHistory& history, std::vector<MemoryStorage*> storages,
                       Options options)
    : disk_(disk),
      history_(history),
      storages_(std::move(storages)),
      options_(options),
      random_(SeedFrom(options.seed)),
      busy_(history.sectors()),
      changing_(history.sectors()) {}

RandomLoad::~RandomLoad() = default;

bool RandomLoad::Pump() {
  bool progress = false;
  for (MemoryStorage* storage : storages_) progress |= storage->Pump();
  return progress;
}

void RandomLoad::Begin() {
  running_.push_back(std::make_unique<Running>(*this));
  Running& running = *running_.back();
  const uint64_t kind = random_() % 100;
  running.operation = kind < 45   ? Operation::kWrite
                      : kind < 85 ? Operation::kRead
                      : kind < 91 ? Operation::kWriteZeroes
                      : kind < 97 ? Operation::kDiscard
                                  : Operation::kFlush;
  if (running.operation == Operation::kDiscard && !options_.discard) {
    running.operation = Operation::kRead;
  }
  if (running.operation == Operation::kFlush) {
    running.done = history_.Done(changing_);
    disk_.Submit(running);
    return;
  }
  const uint64_t unit = disk_.geometry().logical_sector_bytes / kSectorBytes;
  const uint64_t most = random_() % 16 == 0 ? options_.large_sectors : options_.max_sectors;
  const uint64_t all = history_.sectors() / unit;
  running.sector = random_() % all * unit;
  running.sectors =
      std::min((random_() % (most / unit) + 1) * unit, history_.sectors() - running.sector);
  const auto begin = busy_.begin() + static_cast<ptrdiff_t>(running.sector);
  const auto clash = std::find(begin, begin + static_cast<ptrdiff_t>(running.sectors), true);
  running.sectors = static_cast<uint64_t>(clash - begin) / unit * unit;
  if (running.sectors == 0) {
    running.ended = true;
    return;
  }
  std::fill(begin, begin + static_cast<ptrdiff_t>(running.sectors), true);
  running.offset = running.sector * kSectorBytes;
  running.length = running.sectors * kSectorBytes;
  running.may_deallocate = random_() % 4 != 0;
  if (running.operation != Operation::kRead) {
    std::fill_n(changing_.begin() + static_cast<ptrdiff_t>(running.sector), running.sectors, true);
  }
  if (running.operation == Operation::kWriteZeroes) {
    history_.Zero(running.sector, running.sectors);
  } else if (running.operation == Operation::kDiscard) {
    history_.Discard(running.sector, running.sectors);
  } else {
    running.bytes.resize(running.length);
    if (running.operation == Operation::kWrite) {
      const uint64_t number = next_number_++;
      for (uint64_t i = 0; i < running.sectors; ++i) {
        SectorHistory::Fill(running.sector + i, number,
                            std::span(running.bytes).subspan(i * kSectorBytes, kSectorBytes));
      }
      history_.Write(running.sector, running.sectors, number);
    }
    // In pieces of any size, as guests give them.
    for (size_t at = 0; at < running.bytes.size();) {
      const size_t part = std::min<size_t>(random_() % 20000 + 1, running.bytes.size() - at);
      running.iovecs.push_back({.iov_base = running.bytes.data() + at, .iov_len = part});
      at += part;
    }
    running.buffers = running.iovecs;
  }
  disk_.Submit(running);
}

void RandomLoad::End(Running& running, const absl::Status& status) {
  running.ended = true;
  if (!status.ok()) {
    ++errors_;
    if (!options_.allow_errors && wrong_.empty()) wrong_ = status.ToString();
  }
  if (running.operation == Operation::kFlush) {
    if (status.ok()) flushed_.push_back({.done = running.done, .position = position()});
    return;
  }
  const auto first = static_cast<ptrdiff_t>(running.sector);
  std::fill_n(busy_.begin() + first, running.sectors, false);
  if (running.operation != Operation::kRead) {
    std::fill_n(changing_.begin() + first, running.sectors, false);
    // Neither the old nor the new is certain.
    if (!status.ok()) history_.Discard(running.sector, running.sectors);
    return;
  }
  for (uint64_t i = 0; status.ok() && i < running.sectors && wrong_.empty(); ++i) {
    wrong_ = history_.CheckLast(
        running.sector + i,
        std::span<const uint8_t>(running.bytes).subspan(i * kSectorBytes, kSectorBytes));
  }
}

std::string RandomLoad::Run(uint64_t operations) {
  for (uint64_t i = 0; (i < operations && wrong_.empty()) || !running_.empty();) {
    if (i < operations && wrong_.empty() && running_.size() < options_.max_in_flight &&
        random_() % 3 != 0) {
      Begin();
      ++i;
    } else if (!Pump() && running_.size() >= options_.max_in_flight) {
      bool any = false;
      for (const auto& running : running_) any |= running->ended;
      CHECK(any);
    }
    std::erase_if(running_, [](const auto& running) { return running->ended; });
  }
  while (Pump()) {
  }
  return wrong_;
}

std::string RandomLoad::Verify() {
  std::vector<uint8_t> bytes(kVerifyBytes);
  const uint64_t size = history_.sectors() * kSectorBytes;
  for (uint64_t at = 0; at < size; at += bytes.size()) {
    const auto part = std::span(bytes).first(std::min<uint64_t>(bytes.size(), size - at));
    const absl::Status status = Await(ReadAt(disk_, at, part), storages_);
    if (!status.ok()) return status.ToString();
    for (uint64_t i = 0; i < part.size(); i += kSectorBytes) {
      std::string wrong =
          history_.CheckLast((at + i) / kSectorBytes, part.subspan(i, kSectorBytes));
      if (!wrong.empty()) return wrong;
    }
  }
  return "";
}

}  // namespace bothy::disk
