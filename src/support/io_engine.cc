#include "support/io_engine.h"

#include <unistd.h>

#include <array>
#include <utility>

#include "support/check.h"

namespace bothy {
namespace {

// Direct transfers between two looks at everything else.
constexpr int kDirectAtOnce = 16;

}  // namespace

IoEngine::~IoEngine() { CHECK(in_flight_ == 0 && direct_.empty()); }

void IoEngine::Read(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) {
  Start({.kind = FileCall::Kind::kRead, .fd = fd, .buffers = buffers, .offset = offset, .op = &op});
}
void IoEngine::Write(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) {
  Start(
      {.kind = FileCall::Kind::kWrite, .fd = fd, .buffers = buffers, .offset = offset, .op = &op});
}
void IoEngine::Fsync(int fd, Sync what, Operation& op) {
  Start({.kind = what == Sync::kData ? FileCall::Kind::kDataSync : FileCall::Kind::kSync,
         .fd = fd,
         .op = &op});
}
void IoEngine::Fallocate(int fd, int mode, uint64_t offset, uint64_t length, Operation& op) {
  Start({.kind = FileCall::Kind::kAllocate,
         .fd = fd,
         .mode = mode,
         .offset = offset,
         .length = length,
         .op = &op});
}

void IoEngine::Start(FileCall call) {
  if (direct_.Take(call)) return;
  ++in_flight_;
  if (call.elsewhere) return BeginOnPool(call);
  begun_ = true;
  Begin(call);
}

void IoEngine::BeginOnPool(const FileCall& call) {
  pool_.Run([this, call] {
    const int64_t result = call.Make();
    Post([this, op = call.op, result] { Finish(*op, result); });
  });
}

bool IoEngine::DrainEvents(int fd) {
  // An eventfd is empty after one read; of inotify's events as many are read as there is room for.
  alignas(uint64_t) std::array<uint8_t, 4096> events;
  ssize_t count = ::read(fd, events.data(), events.size());
  if (count <= 0) return false;
  while (count > static_cast<ssize_t>(sizeof(uint64_t))) {
    count = ::read(fd, events.data(), events.size());
  }
  return true;
}

void IoEngine::RunBlocking(std::function<int64_t()> call, Operation& op) {
  ++in_flight_;
  pool_.Run([this, call = std::move(call), &op] {
    const int64_t result = call();
    Post([this, &op, result] { Finish(op, result); });
  });
}

void IoEngine::Stop() {
  stopped_.store(true, std::memory_order_release);
  posted_.Post([] {});
}

void IoEngine::Run() {
  RunUntil([this] { return stopped_.load(std::memory_order_acquire); });
}

void IoEngine::RunDirect() {
  if (std::exchange(begun_, false)) HandOver();
  FileCall left;
  if (direct_.RunOne(left)) return;
  ++in_flight_;
  begun_ = true;
  Begin(left);
}

void IoEngine::RunUntil(const std::function<bool()>& done) {
  if (!std::exchange(turned_, true)) BeforeFirstTurn();
  while (!done()) {
    const bool busy = posted_.RunAll();
    if (busy && done()) return;
    for (int i = 0; i < kDirectAtOnce && !direct_.empty(); ++i) {
      const bool large = direct_.next_is_large();
      RunDirect();
      if (done()) return;
      if (large) break;
    }
    Turn(/*sleep=*/direct_.empty() && posted_.MaySleep());
  }
}

}  // namespace bothy
