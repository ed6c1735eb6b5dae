// The rule of feeds for a process that has a model's description and not the model.
#pragma once

#include <pybind11/pybind11.h>

#include <set>
#include <string>
#include <vector>

#include "device/device.hpp"
#include "session/feeds.hpp"

namespace ais::bind {

namespace py = pybind11;

// Needs the GIL.
class FeedRule {
 public:
  // `inputs` and the constants that may be overridden as Session.inputs and Session.overridable give them.
  FeedRule(const py::list& inputs, const py::list& overridable);

  // Whether nothing can be said of these feeds, a list: each is an array of the model's type and number of dimensions. False:
  // it takes `notes` to tell.
  bool plain(PyObject* given) const;

  // What a session would note of a set of feeds, a list in the model's order, the values of constants, if any, behind it; each
  // note comes once, as from a session. Raises FeedError for another number of inputs, and for what cannot be one. Of feeds
  // that do not fit there is none: whoever has the model says why.
  std::vector<std::string> notes(const py::object& given);

  // As Session::tell_again.
  void tell_again() { noted_.clear(); }

 private:
  device::ModelInfo info_;
  std::set<session::NoteKey> noted_;
};

}  // namespace ais::bind
