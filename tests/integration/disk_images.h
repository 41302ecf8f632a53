// Images for tests of disks: made and read by the disk library, as `bothyctl disk` does, and looked
// at by other people's tools.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "disk/tools/image_format.h"
#include "support/io_loop.h"
#include "support/testing/test_folder.h"
#include "tests/integration/program.h"
#include "tests/integration/server_test.h"

namespace bothy::integration {

// Format, variant and sector size.
struct ImageKind {
  std::string name;  // of the file: "vhdx-dynamic-4096.vhdx"
  disk::ImageType type = disk::ImageType::kRaw;
  disk::tools::Variant variant = disk::tools::Variant::kDynamic;
  uint32_t sector_bytes = 512;
};

// All that there are.
[[nodiscard]] const std::vector<ImageKind>& ImageKinds();
[[nodiscard]] const ImageKind& KindOf(const std::string& name);

struct TestImage {
  std::string path;
  ImageKind kind;

  [[nodiscard]] wire::DiskType wire_type() const;
};

// Everything ends as a failure of the test that asked for it.
class Images {
 public:
  Images();

  // An image in `folder` that reads as zero, or as `contents` (a flat file) where there are some; a
  // differencing one has them in its parent.
  [[nodiscard]] TestImage Make(const TestFolder& folder, const ImageKind& kind, uint64_t size_bytes,
                               const std::string& contents = "");

  // As a server that starts and ends does: replays what an unclean end left.
  void OpenAndClose(const TestImage& image);

  // Nothing is wrong with it, not even what repair would tidy up, by our own check and by that of
  // whoever else reads such images.
  void ExpectClean(const TestImage& image);

  // What a disk holds, as a sparse flat file in `folder`. Another implementation reads the same,
  // where there is one.
  [[nodiscard]] std::string Flatten(const TestFolder& folder, const TestImage& image);

 private:
  // Runs a task on the loop's thread to its end.
  template <typename Result>
  Result Run(Task<Result> task);

  std::unique_ptr<IoThread> io_;
};

// A new sparse flat file.
[[nodiscard]] std::string MakeFlat(const TestFolder& folder, const std::string& name,
                                   uint64_t size_bytes);

// A script in a shell of the host, which ends at the first command that fails.
[[nodiscard]] ProgramResult RunShell(const std::string& script);

// Of an ext4 file system at the beginning of a flat file, whose root has a file SUMS with the MD5
// sums of all others: checks both, and returns the sum of SUMS as md5sum prints it.
[[nodiscard]] std::string SumsOfTree(const std::string& flat);

}  // namespace bothy::integration
