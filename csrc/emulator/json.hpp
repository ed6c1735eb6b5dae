// A small JSON parser, for the aclInit configuration and the description in a container.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.hpp"

namespace ais::emulator {

struct Json {
  enum class Type { kNull, kBool, kNumber, kString, kArray, kObject };
  Type type = Type::kNull;
  bool boolean = false;
  double number = 0;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  bool is(Type wanted) const { return type == wanted; }
  // Returns the member, or nullptr.
  const Json* find(const std::string& key) const {
    const auto found = members.find(key);
    return found == members.end() ? nullptr : &found->second;
  }
  const Json& at(const std::string& key) const {  // a null value if there is no such member
    static const Json kNothing;
    const Json* member = find(key);
    return member == nullptr ? kNothing : *member;
  }
  // Returns 0 for a number that an int64 cannot represent.
  std::int64_t integer() const { return number > -9.2e18 && number < 9.2e18 ? static_cast<std::int64_t>(number) : 0; }
  std::vector<std::int64_t> integers() const {
    std::vector<std::int64_t> values;
    for (const Json& item : items) values.push_back(item.integer());
    return values;
  }
};

// Parses all of `text`. Arrays and objects may be nested `max_depth` deep. An error contains the offset.
Result<Json> parse_json(std::string_view text, int max_depth);

}  // namespace ais::emulator
