#include "vmservice/modify_request.h"

#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "vmservice/device_requests.h"
#include "vmservice/field_checks.h"
#include "vmservice/modify_type.h"
#include "vmservice/nic_requests.h"
#include "vmservice/unknown_fields.h"

namespace bothy::vmservice {
namespace {

using machine::Change;
using machine::Machine;
using ::vmservice::ModifyResourceRequest;
using Resource = ModifyResourceRequest::ResourceCase;

// contract.md, "ModifyResource": which changes a resource allows, and whether this build makes
// them.
struct Allowed {
  Resource resource;
  const char* field;
  bool add;
  bool remove;
  bool update;
  const char* missing;  // null: this build changes it
};
constexpr std::array<Allowed, 7> kAllowed = {{
    {ModifyResourceRequest::kProcessor, "processor", true, true, false, "processor hot-plug"},
    {ModifyResourceRequest::kProcessorConfig, "processor_config", false, false, true,
     "CPU weights and limits"},
    {ModifyResourceRequest::kMemory, "memory", true, true, true, "memory hot-plug"},
    {ModifyResourceRequest::kScsiDisk, "scsi_disk", true, true, true, nullptr},
    {ModifyResourceRequest::kVpmemDisk, "vpmem_disk", true, true, false, nullptr},
    {ModifyResourceRequest::kNicConfig, "nic_config", true, true, true, nullptr},
    {ModifyResourceRequest::kWindowsDevice, "windows_device", true, true, false, "host devices"},
}};

std::string Words(const Allowed& allowed) {
  if (!allowed.add) return "UPDATE";
  return allowed.update ? "ADD, REMOVE and UPDATE" : "ADD and REMOVE";
}

absl::StatusOr<Change> TranslateType(const ModifyResourceRequest& request, const Allowed& allowed) {
  ASSIGN_OR_RETURN(const Change change, TranslateModifyType(request.type()));
  const bool allows = change == Change::kAdd      ? allowed.add
                      : change == Change::kRemove ? allowed.remove
                                                  : allowed.update;
  if (allows) return change;
  return Invalid("type", absl::StrCat(::vmservice::ModifyType_Name(request.type()), " isn't for ",
                                      allowed.field, ", which allows ", Words(allowed)));
}

}  // namespace

absl::StatusOr<ResourceChange> TranslateModifyRequest(const ModifyResourceRequest& request) {
  RETURN_IF_ERROR(RefuseUnknownFields(request));
  const Allowed* allowed = nullptr;
  for (const Allowed& one : kAllowed) {
    if (one.resource == request.resource_case()) allowed = &one;
  }
  if (allowed == nullptr) {
    return absl::InvalidArgumentError("resource: nothing to change; set one of its fields");
  }
  ASSIGN_OR_RETURN(const Change change, TranslateType(request, *allowed));
  if (allowed->missing != nullptr) return NotInThisBuild(allowed->field, allowed->missing);

  if (request.has_scsi_disk()) {
    ASSIGN_OR_RETURN(
        machine::ScsiDiskConfig disk,
        TranslateScsiDisk(request.scsi_disk(), allowed->field,
                          change == Change::kRemove ? DiskPurpose::kRemove : DiskPurpose::kUse));
    return ResourceChange{
        .resource = absl::StrCat(allowed->field, " ", disk.controller, ":", disk.lun),
        .change = change,
        .apply = [disk = std::move(disk)](Machine& machine, Change now, std::stop_token stop,
                                          machine::ChangeDone done) {
          machine.ModifyScsiDisk(now, disk, std::move(stop), std::move(done));
        }};
  }
  if (request.has_nic_config()) {
    const NicPurpose purpose = change == Change::kAdd      ? NicPurpose::kAdd
                               : change == Change::kUpdate ? NicPurpose::kUpdate
                                                           : NicPurpose::kRemove;
    ASSIGN_OR_RETURN(machine::NicConfig nic,
                     TranslateNic(request.nic_config(), allowed->field, purpose));
    return ResourceChange{
        .resource = absl::StrCat(allowed->field, " ", nic.id.ToString()),
        .change = change,
        .apply = [nic = std::move(nic)](Machine& machine, Change now, std::stop_token stop,
                                        machine::ChangeDone done) {
          machine.ModifyNic(now, nic, std::move(stop), std::move(done));
        }};
  }
  ASSIGN_OR_RETURN(machine::PmemDiskConfig disk,
                   TranslatePmemDisk(request.vpmem_disk(), allowed->field));
  return ResourceChange{
      .resource = absl::StrCat(allowed->field, " ", disk.image.path),
      .change = change,
      .apply = [disk = std::move(disk)](Machine& machine, Change now, std::stop_token stop,
                                        machine::ChangeDone done) {
        machine.ModifyPmemDisk(now, disk, std::move(stop), std::move(done));
      }};
}

}  // namespace bothy::vmservice
