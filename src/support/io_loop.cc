#include "support/io_loop.h"

#include <future>
#include <system_error>

#include "support/event_loop.h"
#include "support/io_engine.h"

namespace bothy {

absl::StatusOr<std::unique_ptr<IoLoop>> IoLoop::Create(const Options& options) {
  if (options.engine != Engine::kThreadPool) {
    absl::StatusOr<std::unique_ptr<IoLoop>> uring = CreateUringLoop(options);
    if (uring.ok() || options.engine == Engine::kUring) return uring;
  }
  return CreateThreadPoolLoop(options);
}

void IoLoop::PostAndWait(const std::function<void()>& task) {
  std::promise<void> done;
  Post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

absl::StatusOr<std::unique_ptr<IoThread>> IoThread::Create(const std::string& name,
                                                           const IoLoop::Options& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<IoLoop> loop, IoLoop::Create(options));
  auto thread = std::unique_ptr<IoThread>(new IoThread(std::move(loop)));
  try {
    thread->thread_ = std::thread([raw = thread->loop_.get(), name] {
      SetThreadName(name);
      raw->Run();
    });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError("starting thread " + name + ": " + error.what());
  }
  return thread;
}

IoThread::~IoThread() {
  if (!thread_.joinable()) return;
  loop_->Stop();
  thread_.join();
}

}  // namespace bothy
