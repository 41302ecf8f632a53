// The order in which people expect names with numbers.
#pragma once

#include <string>

namespace bothy::bothyctl {

// Digits compare as the number they make: "vp-2" before "vp-10".
bool NaturallyLess(const std::string& a, const std::string& b);

}  // namespace bothy::bothyctl
