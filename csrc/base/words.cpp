// Finds the nearest name by edit distance.
#include "base/words.hpp"

#include <algorithm>

namespace ais {
namespace {

// Returns the Levenshtein distance of two words.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest(std::string_view name, const std::vector<std::string>& known) {
  constexpr std::size_t kLongest = 100;  // a longer text is not a misspelt name
  const std::string* best = nullptr;
  std::size_t least = name.size() / 3 + 1;
  if (name.size() > kLongest) return "";
  for (const std::string& other : known) {
    const std::size_t far = distance(name, other);
    if (far >= least) continue;
    least = far;
    best = &other;
  }
  return best == nullptr ? "" : "; did you mean '" + *best + "'?";
}

std::string quoted_list(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "'" : ", '") + name + "'";
  return text;
}

std::string device_range(int count) {
  if (count <= 0) return "no devices";
  if (count == 1) return "device 0";
  return std::string("devices 0 ") + (count == 2 ? "and " : "to ") + std::to_string(count - 1);
}

}  // namespace ais
