#include "disk/testing/block_devices.h"

#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/testing/sparse_file.h"

namespace bothy::disk {
namespace {

// A node that comes with its kernel module.
absl::StatusOr<UniqueFd> OpenControl(const std::string& node, const std::string& module) {
  UniqueFd fd(::open(node.c_str(), O_RDWR | O_CLOEXEC));
  if (fd) return fd;
  std::string output;
  if (RunCommand("/sbin/modprobe " + module, output) != 0) return absl::UnavailableError(output);
  fd.Reset(::open(node.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, node);
  return fd;
}

// A device-mapper command on a device: the head, then targets with their parameters.
class MapperCommand {
 public:
  explicit MapperCommand(const std::string& name) : buffer_(sizeof(dm_ioctl)) {
    head().version[0] = DM_VERSION_MAJOR;
    std::snprintf(head().name, sizeof head().name, "%s", name.c_str());
  }
  void AddTarget(uint64_t begin, uint64_t end, const std::string& type,
                 const std::string& parameters) {
    if (begin == end) return;
    dm_target_spec target{};
    target.sector_start = begin / FaultyDevice::kSectorBytes;
    target.length = (end - begin) / FaultyDevice::kSectorBytes;
    std::snprintf(target.target_type, sizeof target.target_type, "%s", type.c_str());
    constexpr size_t kAlignment = 8;
    const size_t bytes =
        (sizeof target + parameters.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
    target.next = static_cast<uint32_t>(bytes);
    const size_t at = buffer_.size();
    buffer_.resize(at + bytes);
    std::memcpy(&buffer_[at], &target, sizeof target);
    std::memcpy(&buffer_[at + sizeof target], parameters.data(), parameters.size());
    ++head().target_count;
  }
  absl::Status Run(int control, unsigned long request, const char* what) {
    head().data_start = sizeof(dm_ioctl);
    head().data_size = static_cast<uint32_t>(buffer_.size());
    if (::ioctl(control, request, buffer_.data()) == 0) return absl::OkStatus();
    return ErrnoStatus(errno, what);
  }
  dm_ioctl& head() { return *reinterpret_cast<dm_ioctl*>(buffer_.data()); }

 private:
  std::vector<char> buffer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LoopDevice>> LoopDevice::Create(const Options& options) {
  const int mode = options.read_only ? O_RDONLY : O_RDWR;
  const UniqueFd file(::open(options.file.c_str(), mode | O_CLOEXEC));
  if (!file) return ErrnoStatus(errno, options.file);
  ASSIGN_OR_RETURN(const UniqueFd control, OpenControl("/dev/loop-control", "loop"));
  while (true) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return ErrnoStatus(errno, "a free loop device");
    const std::string path = absl::StrCat("/dev/loop", number);
    UniqueFd fd(::open(path.c_str(), mode | O_CLOEXEC));
    if (!fd) return ErrnoStatus(errno, path);
    loop_config config{};
    config.fd = static_cast<uint32_t>(file.get());
    config.block_size = options.sector_bytes;
    config.info.lo_flags = options.read_only ? LO_FLAGS_READ_ONLY : 0;
    if (::ioctl(fd.get(), LOOP_CONFIGURE, &config) == 0) {
      return std::unique_ptr<LoopDevice>(new LoopDevice(path, std::move(fd)));
    }
    // Somebody else took it.
    if (errno != EBUSY) return ErrnoStatus(errno, path);
  }
}

LoopDevice::~LoopDevice() { ::ioctl(fd_.get(), LOOP_CLR_FD, 0); }

absl::Status LoopDevice::Resize() {
  if (::ioctl(fd_.get(), LOOP_SET_CAPACITY, 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, path_);
}

absl::StatusOr<std::unique_ptr<FaultyDevice>> FaultyDevice::Create(const Options& options) {
  ASSIGN_OR_RETURN(UniqueFd control, OpenControl("/dev/mapper/control", "dm-mod"));
  MapperCommand create(options.name);
  RETURN_IF_ERROR(create.Run(control.get(), DM_DEV_CREATE, "DM_DEV_CREATE"));
  std::unique_ptr<FaultyDevice> device(new FaultyDevice(options.name, std::move(control)));
  device->path_ = absl::StrCat("/dev/dm-", minor(create.head().dev));
  MapperCommand load(options.name);
  const auto linear = [&](uint64_t begin, uint64_t end) {
    load.AddTarget(begin, end, "linear", absl::StrCat(options.device, " ", begin / kSectorBytes));
  };
  const uint64_t bad_end = options.bad_offset + options.bad_bytes;
  linear(0, options.bad_offset);
  load.AddTarget(options.bad_offset, bad_end, "error", "");
  linear(bad_end, options.bytes);
  RETURN_IF_ERROR(load.Run(device->control_.get(), DM_TABLE_LOAD, "DM_TABLE_LOAD"));
  MapperCommand resume(options.name);  // what it is without DM_SUSPEND_FLAG
  RETURN_IF_ERROR(resume.Run(device->control_.get(), DM_DEV_SUSPEND, "DM_DEV_SUSPEND"));
  return device;
}

FaultyDevice::~FaultyDevice() {
  MapperCommand remove(name_);
  static_cast<void>(remove.Run(control_.get(), DM_DEV_REMOVE, "DM_DEV_REMOVE"));
}

}  // namespace bothy::disk
