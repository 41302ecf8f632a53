// Block devices of the host, for tests that run as root where Linux has loop devices and the device
// mapper: in the lab.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::disk {

// A file as a block device, until destroyed.
class LoopDevice {
 public:
  struct Options {
    std::string file;  // of whole sectors
    uint32_t sector_bytes = 512;
    bool read_only = false;
  };
  static absl::StatusOr<std::unique_ptr<LoopDevice>> Create(const Options& options);
  ~LoopDevice();
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  // Looks at the file's size again.
  absl::Status Resize();

 private:
  LoopDevice(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  const std::string path_;
  const UniqueFd fd_;
};

// A block device that is another one but for sectors with a medium's error, until destroyed, before
// which everybody has closed it. One at a time under a name.
class FaultyDevice {
 public:
  static constexpr uint64_t kSectorBytes = 512;
  struct Options {
    std::string name;
    std::string device;
    uint64_t bytes = 0;
    // Every access there is EIO.
    uint64_t bad_offset = 0;
    uint64_t bad_bytes = 0;
  };
  static absl::StatusOr<std::unique_ptr<FaultyDevice>> Create(const Options& options);
  ~FaultyDevice();
  FaultyDevice(const FaultyDevice&) = delete;
  FaultyDevice& operator=(const FaultyDevice&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  FaultyDevice(std::string name, UniqueFd control)
      : name_(std::move(name)), control_(std::move(control)) {}
  const std::string name_;
  const UniqueFd control_;
  std::string path_;
};

}  // namespace bothy::disk
