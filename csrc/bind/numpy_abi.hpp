// The part of numpy's C interface that pybind11 does not declare: entries of its table, by number, and the layout of a data
// handler. numpy only appends to the table, and increases its version if an entry changes. So the version is checked once, when
// the table is imported. pybind11 checks its own part.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace ais::bind::numpy_abi {

namespace py = pybind11;

constexpr unsigned kOne = 0x01000009;      // of numpy 1
constexpr unsigned kTwo = 0x02000000;      // of numpy 2
constexpr unsigned kLeastFeatures = 0x0f;  // numpy 1.22, the first with data handlers
constexpr int kHandlerVersion = 1;

// PyDataMem_Handler, version 1.
struct DataHandler {
  char name[127];
  std::uint8_t version;
  void* context;
  void* (*malloc)(void*, std::size_t);
  void* (*calloc)(void*, std::size_t, std::size_t);
  void* (*realloc)(void*, void*, std::size_t);
  void (*free)(void*, void*, std::size_t);
};

struct Table {
  unsigned (*version)();                // PyArray_GetNDArrayCVersion
  unsigned (*features)();               // PyArray_GetNDArrayCFeatureVersion
  PyObject* (*set_handler)(PyObject*);  // PyDataMem_SetHandler
  PyObject* (*get_handler)();           // PyDataMem_GetHandler
};

inline Table look_up() {
  const py::object api = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
  void** const slots = static_cast<void**>(PyCapsule_GetPointer(api.ptr(), nullptr));
  if (slots == nullptr) throw py::error_already_set();
  return {reinterpret_cast<decltype(Table::version)>(slots[0]), reinterpret_cast<decltype(Table::features)>(slots[211]),
          reinterpret_cast<decltype(Table::set_handler)>(slots[304]),
          reinterpret_cast<decltype(Table::get_handler)>(slots[305])};
}

// Throws ImportError if numpy's interface has another version.
inline void check_versions(unsigned version, unsigned features, int handler) {
  std::string found;
  char number[16];
  std::snprintf(number, sizeof number, "0x%x", version);
  if (version != kOne && version != kTwo) {
    found = std::string("its version is ") + number;
  } else if (features < kLeastFeatures) {
    found = "it has no data handlers";
  } else if (handler != kHandlerVersion) {
    found = "its data handlers have version " + std::to_string(handler);
  } else {
    return;
  }
  const auto name = py::module_::import("numpy").attr("__version__").cast<std::string>();
  throw py::import_error("ais_bench works with the C interface of numpy 1.22 to 2.x; that of the installed numpy " + name +
                         " is another one (" + found + "); install one of those, or a newer ais_bench");
}

// Returns the checked table of the installed numpy. Needs the GIL; the first call runs Python code.
inline const Table& table() {
  static const Table found = [] {
    const Table made = look_up();
    const unsigned version = made.version();
    const unsigned features = version == kOne || version == kTwo ? made.features() : 0;
    int handler = kHandlerVersion;
    if (features >= kLeastFeatures) {
      const auto now = py::reinterpret_steal<py::object>(made.get_handler());
      if (!now) throw py::error_already_set();
      const auto* const its = static_cast<const DataHandler*>(PyCapsule_GetPointer(now.ptr(), "mem_handler"));
      if (its == nullptr) throw py::error_already_set();
      handler = its->version;
    }
    check_versions(version, features, handler);
    return made;
  }();
  return found;
}

}  // namespace ais::bind::numpy_abi
