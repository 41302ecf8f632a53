// Our side of the disk benchmark: makes images, loads them, opens them.
//
//   bench_disk [OPTION VALUE]... create PATH [PARENT]
//     --type raw|vhd1|vhdx  --size BYTES  --block-size BYTES; with a parent a differencing image
//   bench_disk [OPTION VALUE]... load PATH
//     --type  --op read|write  --bs BYTES  --depth N  --span BYTES  --stride BYTES (default:
//     random)
//     --count N | --seconds S  --engine auto|uring|pool
//   bench_disk [OPTION VALUE]... open PATH
//     --type  --touch N: what opening takes, then reading N places spread over the disk
//
// Each prints one line of JSON.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/arguments.h"
#include "bench/disk/disk_load.h"
#include "bench/process.h"
#include "disk/host_storage.h"
#include "disk/open_image.h"
#include "disk/vhd1/vhd1.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::bench {
namespace {

using disk::Disk;
using disk::ImageType;
using disk::Storage;

struct Settings {
  ImageType type = ImageType::kRaw;
  uint64_t size_bytes = uint64_t{1} << 30;
  uint32_t block_size_bytes = 0;
  uint64_t touch = 0;
  IoLoop::Options loop;
  DiskLoad::Options load;
};

void Require(const absl::Status& status) {
  if (!status.ok()) Fail(std::string(status.message()));
}

template <typename T>
T RunTask(IoLoop& loop, Task<T> task) {
  std::optional<T> result;
  Start(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
  loop.RunUntil([&result] { return result.has_value(); });
  return *std::move(result);
}

std::unique_ptr<IoLoop> MakeLoop(const Settings& settings) {
  return bench::Require(IoLoop::Create(settings.loop), "IoLoop::Create");
}

std::unique_ptr<Disk> Open(IoLoop& loop, const std::string& path, const Settings& settings,
                           bool read_only) {
  disk::OpenImageOptions options;
  options.read_only = read_only;
  return bench::Require(RunTask(loop, disk::OpenImage(loop, path, settings.type, options)), path);
}

// What a child of `parent` has to say of it.
template <typename CreateOptions>
void DiffersFrom(const std::string& parent, const Disk& disk, CreateOptions& options) {
  options.size_bytes = disk.geometry().size_bytes;
  options.parent.absolute_path = parent;
  options.parent.linkage = disk.linkage().value();
}

void Create(const std::vector<std::string>& words, const Settings& settings) {
  if (words.empty()) Fail("create: which path?");
  const std::unique_ptr<IoLoop> loop = MakeLoop(settings);
  std::unique_ptr<Disk> parent;
  if (words.size() > 1) parent = Open(*loop, words[1], settings, true);
  std::unique_ptr<Storage> storage =
      bench::Require(RunTask(*loop, disk::CreateHostStorage(*loop, words[0])), words[0]);
  switch (settings.type) {
    case ImageType::kRaw:
      Require(RunTask(*loop, storage->Resize(settings.size_bytes)));
      break;
    case ImageType::kVhd1: {
      disk::vhd1::CreateOptions options;
      options.size_bytes = settings.size_bytes;
      options.block_size_bytes = settings.block_size_bytes;
      if (parent != nullptr) {
        options.type = disk::vhd1::Type::kDifferencing;
        DiffersFrom(words[1], *parent, options);
      }
      Require(RunTask(*loop, disk::vhd1::Create(*storage, options)));
      break;
    }
    case ImageType::kVhdx: {
      disk::vhdx::CreateOptions options;
      options.size_bytes = settings.size_bytes;
      options.block_size_bytes = settings.block_size_bytes;
      if (parent != nullptr) {
        options.type = disk::vhdx::Type::kDifferencing;
        options.disk_id = parent->identity().value();
        DiffersFrom(words[1], *parent, options);
      }
      Require(RunTask(*loop, disk::vhdx::Create(*storage, options)));
      break;
    }
  }
  if (parent != nullptr) Require(RunTask(*loop, parent->Close()));
  std::printf("{}\n");
}

void Load(const std::vector<std::string>& words, const Settings& settings) {
  if (words.empty()) Fail("load: which path?");
  const std::unique_ptr<IoLoop> loop = MakeLoop(settings);
  const bool read_only = settings.load.operation == disk::Operation::kRead;
  const std::unique_ptr<Disk> disk = Open(*loop, words[0], settings, read_only);
  DiskLoad load(*loop, *disk, settings.load);
  const DiskLoad::Result result = load.Run();
  Require(RunTask(*loop, disk->Close()));
  std::printf(
      "{\"requests\": %llu, \"seconds\": %.6f, \"per_second\": %.1f, \"cpu_seconds\": %.6f}\n",
      static_cast<unsigned long long>(result.requests), result.seconds,
      static_cast<double>(result.requests) / result.seconds, result.cpu_seconds);
}

// Anonymous memory of this process, in bytes.
uint64_t PrivateBytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  uint64_t kilobytes = 0;
  for (std::string word; rollup >> word;) {
    if (word == "Anonymous:") rollup >> kilobytes;
  }
  return kilobytes * 1024;
}

void MeasureOpen(const std::vector<std::string>& words, const Settings& settings) {
  if (words.empty()) Fail("open: which path?");
  const std::unique_ptr<IoLoop> loop = MakeLoop(settings);
  // So that the loop's own first use isn't counted.
  Require(RunTask(*loop, disk::DetectImageType(*loop, words[0])).status());
  const uint64_t before = PrivateBytes();
  const Time start = Clock::now();
  const std::unique_ptr<Disk> disk = Open(*loop, words[0], settings, false);
  const int64_t nanoseconds = Nanoseconds(Clock::now() - start);
  const uint64_t opened = PrivateBytes();
  uint64_t touched = opened;
  if (settings.touch != 0) {
    DiskLoad::Options load = settings.load;
    load.count = settings.touch;
    load.order = DiskLoad::Order::kStride;
    load.stride_bytes =
        disk->geometry().size_bytes / settings.touch / load.block_bytes * load.block_bytes;
    DiskLoad(*loop, *disk, load).Run();
    touched = PrivateBytes();
  }
  Require(RunTask(*loop, disk->Close()));
  std::printf("{\"open_ns\": %lld, \"open_bytes\": %llu, \"touched_bytes\": %llu}\n",
              static_cast<long long>(nanoseconds), static_cast<unsigned long long>(opened - before),
              static_cast<unsigned long long>(touched - before));
}

template <typename T>
T OneOf(const std::string& word, std::initializer_list<std::pair<std::string_view, T>> choices) {
  for (const auto& [name, value] : choices) {
    if (name == word) return value;
  }
  Fail("not one of the choices: " + word);
}

int Main(int count, char** words) {
  Settings settings;
  const auto number = [](auto& into) {
    return [&into](const std::string& word) {
      into = static_cast<std::remove_reference_t<decltype(into)>>(std::stod(word));
    };
  };
  const Options options = {
      {"--type",
       [&](const std::string& word) {
         settings.type = OneOf<ImageType>(
             word,
             {{"raw", ImageType::kRaw}, {"vhd1", ImageType::kVhd1}, {"vhdx", ImageType::kVhdx}});
       }},
      {"--engine",
       [&](const std::string& word) {
         settings.loop.engine =
             OneOf<IoLoop::Engine>(word, {{"auto", IoLoop::Engine::kAuto},
                                          {"uring", IoLoop::Engine::kUring},
                                          {"pool", IoLoop::Engine::kThreadPool}});
       }},
      {"--op",
       [&](const std::string& word) {
         settings.load.operation = OneOf<disk::Operation>(
             word, {{"read", disk::Operation::kRead}, {"write", disk::Operation::kWrite}});
       }},
      {"--stride",
       [&](const std::string& word) {
         settings.load.order = DiskLoad::Order::kStride;
         settings.load.stride_bytes = std::stoull(word);
       }},
      {"--size", number(settings.size_bytes)},
      {"--block-size", number(settings.block_size_bytes)},
      {"--touch", number(settings.touch)},
      {"--bs", number(settings.load.block_bytes)},
      {"--depth", number(settings.load.depth)},
      {"--span", number(settings.load.span_bytes)},
      {"--start", number(settings.load.start_bytes)},
      {"--count", number(settings.load.count)},
      {"--seconds", number(settings.load.seconds)},
  };
  const Arguments arguments =
      TakeOptions(std::vector<std::string>(words + 1, words + count), options);
  if (arguments.mode == "create") {
    Create(arguments.words, settings);
  } else if (arguments.mode == "load") {
    Load(arguments.words, settings);
  } else if (arguments.mode == "open") {
    MeasureOpen(arguments.words, settings);
  } else {
    Fail("create, load or open?");
  }
  return 0;
}

}  // namespace
}  // namespace bothy::bench

int main(int count, char** words) { return bothy::bench::Main(count, words); }
