// The products, by the beginning of their SoCs' names; the first match counts.
#include "emulator/product.hpp"

#include <utility>

namespace ais::emulator {

const Product& product_of(const std::string& soc) {
  static const std::pair<const char*, Product> kProducts[] = {
      {"Ascend310P", {"Atlas inference (310P)", 1023, false, false}},
      {"Ascend310B", {"Atlas 200I/500 A2 (310B)", 65536, false, false}},
      {"Ascend310", {"Atlas 200/300 (310)", 1023, false, false}},
      {"Ascend910_93", {"Atlas A3", 65536, true, true}},
      {"Ascend910B", {"Atlas A2", 65536, true, true}},
      {"Ascend910", {"Atlas training (910)", 65535, false, false}},
      {"Ascend950", {"Ascend 950", 65536, true, true}},
  };
  static const Product kOther = {"a product that is not known", 65536, true, true};
  for (const auto& [prefix, product] : kProducts) {
    if (soc.rfind(prefix, 0) == 0) return product;
  }
  return kOther;
}

}  // namespace ais::emulator
