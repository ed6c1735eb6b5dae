// Memory for arrays that come in numbers and are dropped soon: kept when one goes, and used for the next.
//
// The C library gives the top of its heap back to the kernel as soon as 128 KiB of it are free. A caller who reads small
// outputs in a stream frees that much every few dozen, so the kernel would take the same pages away and clear them again all
// the time. numpy knows whose memory an array has (its data handler, NEP 49), so such an array owns its data as any other.
#pragma once

#include <pybind11/pybind11.h>

namespace ais::bind {

namespace py = pybind11;

// While it lives, arrays that numpy makes in this thread have such memory. Needs the GIL.
class Recycling {
 public:
  // Looks up numpy's part in it, which runs Python code: in time, where an interrupt or a waiting thread does no harm.
  static void prepare();

  Recycling();
  ~Recycling();
  Recycling(const Recycling&) = delete;
  Recycling& operator=(const Recycling&) = delete;

 private:
  py::object before_;
};

}  // namespace ais::bind
