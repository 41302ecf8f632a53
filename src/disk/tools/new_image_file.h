// NewImageFile: a file that appears under its name when it is complete, and not before.
//
//   auto file = NewImageFile::Create("/images/a.vhdx", NewImageFile::Existing::kRefuse);
//   auto storage = co_await file->Open(loop);       // fill it, close the disk on it
//   absl::Status status = file->Publish();
//
// What is replaced is locked as by a writer until then, so that nobody has it open; the new file
// gets its mode, and its owner and group as far as that is permitted. A symbolic link stays, and
// what it points to is replaced.
//
// Until then it has no name where the host's file system can have such files; where it can't it is
// called ".a.vhdx.XXXXXX.partial" and the destructor removes it. Whatever happens, what had the
// name before stays as it was.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "disk/storage.h"
#include "support/io_loop.h"
#include "support/unique_fd.h"

namespace bothy::disk::tools {

class NewImageFile {
 public:
  enum class Existing : uint8_t { kRefuse, kReplace };

  // What a new file's mode is at most, less the umask.
  static constexpr mode_t kMode = 0644;
  // AlreadyExists at once when there is a file at `path` that isn't to be replaced,
  // FailedPrecondition when it is in use. `mode` is for a file that replaces none; the owner may
  // always read and write it. May block for two seconds (LockImage).
  static absl::StatusOr<std::unique_ptr<NewImageFile>> Create(std::string path, Existing existing,
                                                              mode_t mode = kMode);
  ~NewImageFile();
  NewImageFile(const NewImageFile&) = delete;
  NewImageFile& operator=(const NewImageFile&) = delete;

  // The name it will have: where a link is replaced, what that leads to.
  [[nodiscard]] const std::string& path() const { return path_; }
  // The file as a storage, which is to be gone before Publish.
  Task<absl::StatusOr<std::unique_ptr<Storage>>> Open(IoLoop& loop);
  // Makes the contents durable and gives them their name. Blocks.
  absl::Status Publish();
  // `status` with the name the file will have in place of the one it has now, once.
  [[nodiscard]] absl::Status Named(const absl::Status& status) const;

 private:
  NewImageFile(std::string path, Existing existing, UniqueFd replaced, UniqueFd fd,
               std::string partial_path);
  // Mode and owner of what is replaced, for the new file.
  absl::Status TakeOver();
  [[nodiscard]] absl::Status CheckReplaced() const;

  const std::string path_;
  const Existing existing_;
  const UniqueFd replaced_;  // locked; none when nothing has the name
  UniqueFd fd_;
  std::string partial_path_;  // empty while it has no name
};

}  // namespace bothy::disk::tools
