// Checks feeds in a process that has a model's description, but not the model.
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
  // `inputs`, `overridable`: as Session.inputs and Session.overridable.
  FeedRule(const py::list& inputs, const py::list& overridable);

  // Returns whether these feeds, a list, need no note: each is an array of the model's type and rank. If it returns false, call
  // `notes`.
  bool plain(PyObject* given) const;

  // Returns the notes that a session would make about a set of feeds: a list in the model's order, followed by the values of
  // constants, if any. Each note is returned once. Raises FeedError for a wrong number of inputs, or a value that cannot be an
  // input. Feeds that do not fit the model have no note: the process with the model reports the error.
  std::vector<std::string> notes(const py::object& given);

  // As Session::tell_again.
  void tell_again() { noted_.clear(); }

 private:
  device::ModelInfo info_;
  std::set<session::NoteKey> noted_;
};

}  // namespace ais::bind
