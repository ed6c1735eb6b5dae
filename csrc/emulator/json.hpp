// A small JSON reader: the aclInit configuration and the description in a container are JSON.
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
  // The member, or nullptr.
  const Json* find(const std::string& key) const {
    const auto found = members.find(key);
    return found == members.end() ? nullptr : &found->second;
  }
  const Json& at(const std::string& key) const {  // a null value where there is no such member
    static const Json kNothing;
    const Json* member = find(key);
    return member == nullptr ? kNothing : *member;
  }
  // 0 for what no int64 can hold.
  std::int64_t integer() const { return number > -9.2e18 && number < 9.2e18 ? static_cast<std::int64_t>(number) : 0; }
  std::vector<std::int64_t> integers() const {
    std::vector<std::int64_t> values;
    for (const Json& item : items) values.push_back(item.integer());
    return values;
  }
};

// Parses all of `text`. At most `max_depth` arrays and objects may be inside each other. The message has the offset.
Result<Json> parse_json(std::string_view text, int max_depth);

}  // namespace ais::emulator
