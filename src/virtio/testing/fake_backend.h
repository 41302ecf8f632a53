// FakeBackend: a network whose frames a test puts in and takes out.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/backend.h"

namespace bothy::virtio::testing {

class FakeFrameQueue final : public net::FrameQueue {
 public:
  using Bytes = std::vector<uint8_t>;  // header and frame

  Sent Send(std::span<const iovec> frame) override {
    if (room == 0) {
      writable_wanted = true;
      return Sent::kLater;
    }
    --room;
    if (drops) return Sent::kDropped;
    Bytes& bytes = sent.emplace_back();
    for (const iovec& part : frame) {
      const auto* const at = static_cast<const uint8_t*>(part.iov_base);
      bytes.insert(bytes.end(), at, at + part.iov_len);
    }
    return Sent::kYes;
  }
  absl::StatusOr<size_t> Receive(std::span<const iovec> into) override {
    size_t room_there = 0;
    for (const iovec& part : into) room_there += part.iov_len;
    while (!incoming.empty() && incoming.front().size() > room_there) {
      incoming.pop_front();
      ++too_long;
    }
    if (incoming.empty()) {
      readable_wanted = true;
      return size_t{0};
    }
    const Bytes bytes = std::move(incoming.front());
    incoming.pop_front();
    size_t done = 0;
    for (const iovec& part : into) {
      const size_t size = std::min(part.iov_len, bytes.size() - done);
      if (size != 0) std::memcpy(part.iov_base, &bytes[done], size);
      done += size;
    }
    return bytes.size();
  }
  void SetCallbacks(std::function<void()> on_readable, std::function<void()> on_writable) override {
    on_readable_ = std::move(on_readable);
    on_writable_ = std::move(on_writable);
  }
  [[nodiscard]] int tap_fd() const override { return -1; }

  // Puts a frame in; tells of it if that is wanted.
  void Arrive(Bytes bytes) {
    incoming.push_back(std::move(bytes));
    if (std::exchange(readable_wanted, false) && on_readable_) on_readable_();
  }
  void MakeRoom(size_t frames) {
    room = frames;
    if (std::exchange(writable_wanted, false) && on_writable_) on_writable_();
  }

  size_t room = SIZE_MAX;
  bool drops = false;
  std::vector<Bytes> sent;
  std::deque<Bytes> incoming;
  size_t too_long = 0;
  bool readable_wanted = false;
  bool writable_wanted = false;

 private:
  std::function<void()> on_readable_;
  std::function<void()> on_writable_;
};

class FakeBackend final : public net::Backend {
 public:
  static constexpr net::Offloads kAll = {
      .checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .uso = true};

  using Bytes = FakeFrameQueue::Bytes;

  explicit FakeBackend(uint16_t pairs, const net::Offloads& offloads = kAll)
      : offloads_(offloads), queues_(pairs) {}

  [[nodiscard]] uint16_t queue_pairs() const override {
    return static_cast<uint16_t>(queues_.size());
  }
  [[nodiscard]] FakeFrameQueue& queue(uint16_t pair) override { return queues_.at(pair); }
  absl::Status UseQueuePairs(uint16_t pairs) override {
    used_pairs = pairs;
    return absl::OkStatus();
  }
  [[nodiscard]] net::Offloads offloads() const override { return offloads_; }
  absl::Status SetReceiveOffloads(const net::Offloads& offloads) override {
    receive_offloads = offloads;
    return absl::OkStatus();
  }
  [[nodiscard]] uint16_t mtu() const override { return frame_mtu; }
  [[nodiscard]] bool link_up() const override { return up_; }
  void SetLinkCallback(std::function<void()> on_change) override {
    on_link_ = std::move(on_change);
  }
  [[nodiscard]] std::string description() const override { return "fake"; }
  void Inspect(inspect::Node&) const override {}

  void SetLink(bool up) {
    up_ = up;
    if (on_link_) on_link_();
  }

  uint16_t frame_mtu = 1500;
  uint16_t used_pairs = 0;
  net::Offloads receive_offloads;

 private:
  const net::Offloads offloads_;
  std::vector<FakeFrameQueue> queues_;
  bool up_ = true;
  std::function<void()> on_link_;
};

}  // namespace bothy::virtio::testing
