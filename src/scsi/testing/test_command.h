// TestCommand: a command whose buffers, each with guard bytes around it, belong to it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "scsi/command.h"
#include "support/check.h"

namespace bothy::scsi {

class TestCommand final : public Command {
 public:
  struct Shape {
    uint16_t lun = 0;
    uint64_t tag = 0;
    TaskAttribute attribute = TaskAttribute::kSimple;
    std::vector<uint8_t> cdb = {};
    std::vector<uint8_t> data_out = {};
    uint64_t data_in_bytes = 0;
    size_t buffer_bytes = 1000;  // of each buffer but the last: cut where no sector ends
  };

  // The command may be begun again when it has ended.
  void Prepare(const Shape& shape) {
    CHECK(!under_way_);
    under_way_ = true;
    cdb_ = shape.cdb;
    out_ = Guarded(shape.data_out.size(), shape.buffer_bytes);
    in_ = Guarded(shape.data_in_bytes, shape.buffer_bytes);
    out_.Fill(shape.data_out);
    out_as_given_ = out_.memory;
    Begin({.lun = shape.lun,
           .tag = shape.tag,
           .attribute = shape.attribute,
           .cdb = cdb_,
           .data_out = out_.buffers,
           .data_out_bytes = shape.data_out.size(),
           .data_in = in_.buffers,
           .data_in_bytes = shape.data_in_bytes});
  }

  [[nodiscard]] bool done() const { return !under_way_; }
  // What data_in holds of what the command says it has written.
  [[nodiscard]] std::vector<uint8_t> data_in() const {
    std::vector<uint8_t> data = in_.Contents();
    data.resize(data_in_written);
    return data;
  }
  std::function<void()> on_complete;

 private:
  static constexpr uint8_t kGuard = 0xE7;
  static constexpr size_t kGuardBytes = 16;

  struct Guarded {
    Guarded() = default;
    Guarded(uint64_t bytes, size_t buffer_bytes) {
      const size_t count = (bytes + buffer_bytes - 1) / buffer_bytes;
      memory.assign(bytes + (count + 1) * kGuardBytes, kGuard);
      size_t at = kGuardBytes;
      for (uint64_t left = bytes; left > 0;) {
        const size_t part = std::min<uint64_t>(left, buffer_bytes);
        buffers.push_back({.iov_base = &memory[at], .iov_len = part});
        at += part + kGuardBytes;
        left -= part;
      }
    }
    void Fill(std::span<const uint8_t> data) {
      for (const iovec& buffer : buffers) {
        std::copy_n(data.begin(), buffer.iov_len, static_cast<uint8_t*>(buffer.iov_base));
        data = data.subspan(buffer.iov_len);
      }
    }
    [[nodiscard]] std::vector<uint8_t> Contents() const {
      std::vector<uint8_t> data;
      for (const iovec& buffer : buffers) {
        const auto* bytes = static_cast<const uint8_t*>(buffer.iov_base);
        data.insert(data.end(), bytes, bytes + buffer.iov_len);
      }
      return data;
    }
    void CheckGuards() const {
      size_t at = 0;
      const auto check = [&] {
        for (size_t i = 0; i < kGuardBytes; ++i) CHECK(memory[at++] == kGuard);
      };
      for (const iovec& buffer : buffers) {
        check();
        at += buffer.iov_len;
      }
      check();
      CHECK(at == memory.size());
    }
    std::vector<uint8_t> memory;
    std::vector<iovec> buffers;
  };

  void Complete() override {
    CHECK(under_way_);  // once
    under_way_ = false;
    in_.CheckGuards();
    CHECK(out_.memory == out_as_given_);
    CHECK(data_in_written <= in_.Contents().size());
    CHECK(residual <= in_.Contents().size() + out_.Contents().size());
    CHECK((status == Status::kCheckCondition) == !sense().empty());
    CHECK(outcome == Outcome::kOk || status == Status::kGood);
    if (on_complete) on_complete();
  }

  std::vector<uint8_t> cdb_;
  Guarded out_;
  Guarded in_;
  std::vector<uint8_t> out_as_given_;
  bool under_way_ = false;
};

}  // namespace bothy::scsi
