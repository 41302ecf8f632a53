// OutputWriter: writes to a descriptor that may block, on a thread of its own.
//
// A terminal or pipe that takes nothing keeps that thread, not the one that reads the guest's
// output, watches the server and obeys signals. What comes while a write is under way goes out
// together in the next.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>

namespace bothy::bothyctl {

class OutputWriter {
 public:
  // `progress` is called when writing has failed, and when NotifyAt has asked for it; on any
  // thread. It must not call back. `fd` stays the caller's.
  OutputWriter(int fd, std::function<void()> progress);
  // Waits for a write that is under way only if nothing is left to be written after it; else the
  // rest is dropped, and the thread left to end with its write or with the process.
  ~OutputWriter();
  OutputWriter(const OutputWriter&) = delete;
  OutputWriter& operator=(const OutputWriter&) = delete;

  // Queues a copy.
  void Write(std::string_view bytes);
  // Bytes that haven't been written yet.
  [[nodiscard]] size_t backlog() const;
  // Calls `progress` once, as soon as the backlog is at most that.
  void NotifyAt(size_t backlog);
  // The errno of the write that failed, after which everything is dropped; 0: none has.
  [[nodiscard]] int error() const;

 private:
  struct State;
  static void Run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace bothy::bothyctl
