// Running a task of disk/tools/ from a verb: a loop on this thread, signals, progress, the exit
// status.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "cmd/bothyctl/disk_progress.h"
#include "support/io_loop.h"
#include "support/task.h"

namespace bothy::bothyctl {

struct DiskTaskContext {
  IoLoop& loop;
  DiskProgress& progress;
  std::stop_token stop;
};

// What a signal that asks to end does.
enum class OnSignal {
  kDie,
  // The task, which cleans up after itself, hears of the first one and ends soon; the second one
  // kills.
  kStop,
  // The task changes an image in ways that mustn't be left half done: it hears of it, and ends soon
  // when it has changed nothing yet, else as it would have. Who interrupts it is told so.
  kFinish,
};

struct DiskVerb {
  std::string name;  // "convert"
  OnSignal on_signal = OnSignal::kDie;
  // What the command line calls ImageSpec::size_bytes.
  std::string size_name = "SIZE";
};

// Runs `task` and tells of its failure as "disk NAME: Status: message"; the exit status, 128 + n
// when signal n ended it. InvalidArgument about a field of an ImageSpec names the flag instead and
// is a wrong command line.
int RunDiskTask(const DiskVerb& verb,
                const std::function<Task<absl::Status>(DiskTaskContext&)>& task);

}  // namespace bothy::bothyctl
