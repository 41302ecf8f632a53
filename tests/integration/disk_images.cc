#include "tests/integration/disk_images.h"

#include <filesystem>
#include <fstream>
#include <future>
#include <utility>

#include "absl/strings/ascii.h"
#include "disk/tools/make_image.h"
#include "support/check.h"
#include "tests/integration/program.h"

namespace bothy::integration {
namespace {

using disk::ImageType;
using disk::tools::ConvertImage;
using disk::tools::CopyOptions;
using disk::tools::CreateImage;
using disk::tools::ImageSpec;
using disk::tools::NewImageFile;
using disk::tools::Variant;

constexpr char kQemuImg[] = "/usr/bin/qemu-img";
constexpr char kVhdiInfo[] = "/usr/bin/vhdiinfo";

void ExpectSuccess(std::vector<std::string> words) {
  const std::string command = words[0] + " " + words[1] + " ... " + words.back();
  const ProgramResult result = RunProgram(std::move(words));
  EXPECT_EQ(result.status, 0) << command << "\n" << result.output << result.error_output;
}

// QEMU's name of a format that it reads; "" for what it doesn't: children, and large sectors.
std::string QemuFormat(const ImageKind& kind) {
  if (kind.variant == Variant::kDifferencing || kind.sector_bytes != 512) return "";
  switch (kind.type) {
    case ImageType::kRaw:
      return "raw";
    case ImageType::kVhd1:
      return "vpc";
    case ImageType::kVhdx:
      return "vhdx";
  }
  return "";
}

}  // namespace

const std::vector<ImageKind>& ImageKinds() {
  static const std::vector<ImageKind> kinds = {
      {"raw.img", ImageType::kRaw, Variant::kFixed},
      {"fixed.vhd", ImageType::kVhd1, Variant::kFixed},
      {"dynamic.vhd", ImageType::kVhd1, Variant::kDynamic},
      {"differencing.vhd", ImageType::kVhd1, Variant::kDifferencing},
      {"fixed.vhdx", ImageType::kVhdx, Variant::kFixed},
      {"dynamic.vhdx", ImageType::kVhdx, Variant::kDynamic},
      {"differencing.vhdx", ImageType::kVhdx, Variant::kDifferencing},
      {"fixed-4096.vhdx", ImageType::kVhdx, Variant::kFixed, 4096},
      {"dynamic-4096.vhdx", ImageType::kVhdx, Variant::kDynamic, 4096},
      {"differencing-4096.vhdx", ImageType::kVhdx, Variant::kDifferencing, 4096},
  };
  return kinds;
}

const ImageKind& KindOf(const std::string& name) {
  for (const ImageKind& kind : ImageKinds()) {
    if (kind.name == name) return kind;
  }
  CHECK(false);
  std::abort();
}

wire::DiskType TestImage::wire_type() const {
  switch (kind.type) {
    case ImageType::kRaw:
      return wire::SCSI_DISK_TYPE_PHYSICAL;
    case ImageType::kVhd1:
      return wire::SCSI_DISK_TYPE_VHD1;
    case ImageType::kVhdx:
      return wire::SCSI_DISK_TYPE_VHDX;
  }
  return wire::SCSI_DISK_TYPE_PHYSICAL;
}

std::string MakeFlat(const TestFolder& folder, const std::string& name, uint64_t size_bytes) {
  std::string path = folder.WriteText(name, "");
  std::filesystem::resize_file(path, size_bytes);
  return path;
}

Images::Images() {
  auto io = IoThread::Create("images", {});
  CHECK_OK(io);
  io_ = *std::move(io);
}

template <typename Result>
Result Images::Run(Task<Result> task) {
  std::promise<Result> promise;
  io_->loop().Post([&] {
    Start(std::move(task), [&](Result result) { promise.set_value(std::move(result)); });
  });
  return promise.get_future().get();
}

TestImage Images::Make(const TestFolder& folder, const ImageKind& kind, uint64_t size_bytes,
                       const std::string& contents) {
  TestImage image{.path = folder / kind.name, .kind = kind};
  if (kind.type == ImageType::kRaw && contents.empty()) {
    (void)MakeFlat(folder, kind.name, size_bytes);
    return image;
  }
  ImageSpec spec;
  spec.type = kind.type;
  spec.variant = kind.variant;
  spec.size_bytes = size_bytes;
  spec.logical_sector_bytes = kind.sector_bytes;
  if (kind.variant == Variant::kDifferencing) {
    ImageKind parent = kind;
    parent.name = "parent-" + kind.name;
    parent.variant = Variant::kDynamic;
    spec.parent_path = Make(folder, parent, size_bytes, contents).path;
    spec.size_bytes = 0;
    spec.logical_sector_bytes = 0;
  }
  const absl::Status made =
      contents.empty() || kind.variant == Variant::kDifferencing
          ? Run(CreateImage(io_->loop(), image.path, spec, NewImageFile::Existing::kRefuse))
          : Run(ConvertImage(io_->loop(), {.path = contents, .type = ImageType::kRaw}, image.path,
                             spec, NewImageFile::Existing::kRefuse, CopyOptions{}));
  EXPECT_THAT(made, IsOk());
  return image;
}

void Images::OpenAndClose(const TestImage& image) {
  const auto both = [](IoLoop& loop, const TestImage& which) -> Task<absl::Status> {
    disk::OpenImageOptions options;
    absl::StatusOr<std::unique_ptr<disk::Disk>> opened =
        co_await disk::OpenImage(loop, which.path, which.kind.type, options);
    if (!opened.ok()) co_return opened.status();
    absl::Status closed = co_await (*opened)->Close();
    co_return closed;
  };
  EXPECT_THAT(Run(both(io_->loop(), image)), IsOk());
}

void Images::ExpectClean(const TestImage& image) {
  if (image.kind.type == ImageType::kRaw) return;
  const auto report =
      Run(disk::tools::CheckImage(io_->loop(), image.path, image.kind.type, nullptr));
  ASSERT_TRUE(report.ok()) << report.status();
  for (const disk::Problem& problem : report->problems) {
    // Room that nothing refers to is what an end at any moment may leave.
    if (problem.severity == disk::Severity::kNote) continue;
    ADD_FAILURE() << image.path << ": offset " << problem.offset << ": " << problem.field << ": "
                  << problem.message;
  }
  EXPECT_EQ(report->more_problems, 0U);
  // QEMU has no check for VHD1.
  if (QemuFormat(image.kind) == "vhdx")
    ExpectSuccess({kQemuImg, "check", "-f", "vhdx", image.path});
  ExpectSuccess({kVhdiInfo, image.path});
}

std::string Images::Flatten(const TestFolder& folder, const TestImage& image) {
  std::string flat = folder / (image.kind.name + ".flat");
  ImageSpec spec;
  spec.type = ImageType::kRaw;
  spec.variant = Variant::kDynamic;
  EXPECT_THAT(Run(ConvertImage(io_->loop(), {.path = image.path, .type = image.kind.type}, flat,
                               spec, NewImageFile::Existing::kReplace, CopyOptions{})),
              IsOk());
  if (const std::string format = QemuFormat(image.kind); !format.empty()) {
    ExpectSuccess({kQemuImg, "compare", "-f", format, "-F", "raw", image.path, flat});
  }
  return flat;
}

ProgramResult RunShell(const std::string& script) {
  return RunProgram({"/bin/sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin\n" + script});
}

std::string SumsOfTree(const std::string& flat) {
  const ProgramResult result = RunShell("flat='" + flat + R"('
    e2fsck -fn $flat >&2
    mkdir $flat.tree
    debugfs -R "rdump / $flat.tree" $flat >&2
    cd $flat.tree
    md5sum --quiet -c SUMS >&2
    md5sum <SUMS
    rm -rf $flat.tree)");
  EXPECT_EQ(result.status, 0) << result.error_output;
  return std::string(absl::StripTrailingAsciiWhitespace(result.output));
}

}  // namespace bothy::integration
