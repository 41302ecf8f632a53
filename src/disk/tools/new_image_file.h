// NewImageFile: a file that appears under its name when it is complete, and not before.
//
//   auto file = NewImageFile::Create("/images/a.vhdx", NewImageFile::Existing::kRefuse);
//   auto storage = co_await file->Open(loop);       // fill it, close the disk on it
//   absl::Status status = file->Publish();
//
// Until then it has no name where the host's file system can have such files; where it can't it is
// called ".a.vhdx.XXXXXX.partial" and the destructor removes it. Whatever happens, what had the
// name before stays as it was.
#pragma once

#include <memory>
#include <string>

#include "disk/storage.h"
#include "support/io_loop.h"
#include "support/unique_fd.h"

namespace bothy::disk::tools {

class NewImageFile {
 public:
  enum class Existing : uint8_t { kRefuse, kReplace };

  // AlreadyExists at once when there is a file at `path` that isn't to be replaced.
  static absl::StatusOr<std::unique_ptr<NewImageFile>> Create(std::string path, Existing existing);
  ~NewImageFile();
  NewImageFile(const NewImageFile&) = delete;
  NewImageFile& operator=(const NewImageFile&) = delete;

  // The file as a storage, which is to be gone before Publish.
  Task<absl::StatusOr<std::unique_ptr<Storage>>> Open(IoLoop& loop);
  // Makes the contents durable and gives them their name. Blocks.
  absl::Status Publish();
  // `status` with the name the file will have in place of the one it has now, once.
  [[nodiscard]] absl::Status Named(const absl::Status& status) const;

 private:
  NewImageFile(std::string path, Existing existing, UniqueFd fd, std::string partial_path);

  const std::string path_;
  const Existing existing_;
  UniqueFd fd_;
  std::string partial_path_;  // empty while it has no name
};

}  // namespace bothy::disk::tools
