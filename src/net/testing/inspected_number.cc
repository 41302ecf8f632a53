#include "net/testing/inspected_number.h"

#include <variant>

#include "inspect/inspection.h"
#include "support/check.h"

namespace bothy::net {

uint64_t InspectedNumber(const Backend& backend, const std::string& path) {
  const absl::StatusOr<inspect::Query> query = inspect::Query::Parse(path, 0);
  CHECK(query.ok());
  uint64_t number = 0;
  inspect::Inspection::Start(
      *query, [&backend](inspect::Node& node) { backend.Inspect(node); },
      [&number](const absl::StatusOr<inspect::Value>& value) {
        if (value.ok()) number = std::get<uint64_t>(value->AsVariant());
      });
  return number;
}

}  // namespace bothy::net
