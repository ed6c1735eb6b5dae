// Reuses the memory of arrays that are made in large numbers and dropped soon.
//
// The C library returns the top of its heap to the kernel as soon as 128 KiB of it are free. A caller that reads a stream of
// small outputs frees this much every few dozen outputs, so the kernel would take the same pages away and clear them again each
// time. An array has a data handler in numpy (NEP 49), so an array with recycled memory owns its data like any other.
#pragma once

#include <pybind11/pybind11.h>

namespace ais::bind {

namespace py = pybind11;

// While this object lives, arrays that numpy makes in this thread use recycled memory. Needs the GIL.
class Recycling {
 public:
  // Imports numpy's functions, which runs Python code. Call it early, at a place where interrupts and thread switches are
  // harmless.
  static void prepare();

  Recycling();
  ~Recycling();
  Recycling(const Recycling&) = delete;
  Recycling& operator=(const Recycling&) = delete;

 private:
  py::object before_;
};

}  // namespace ais::bind
