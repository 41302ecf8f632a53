// The AML of the DSDT: devices that can't be found by probing, and the sleep state for power-off.
#pragma once

#include "acpi/aml.h"
#include "acpi/tables.h"

namespace bothy::acpi {

[[nodiscard]] aml::Code BuildDsdt(const TablesConfig& config);

}  // namespace bothy::acpi
