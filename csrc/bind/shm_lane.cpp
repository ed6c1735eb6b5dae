// Lane for Python, for tests and benchmarks of the transport. The pool uses PyLane directly (exchange.cpp).
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bind/bind.hpp"
#include "bind/py_lane.hpp"
#include "bind/shm.hpp"

namespace ais::bind {
namespace {

PyTypeObject* reply_type() {
  static PyStructSequence_Field fields[] = {
      {"task", "what try_submit was given"},
      {"outputs", "list of arrays, None for kind ERROR"},
      {"error", "the exception, for kind ERROR"},
      {"kind", "TENSORS, OBJECT, RAISED or ERROR"},
      {"queued_ns", "published until the worker took it"},
      {"copy_in_ns", "into the slot, and to the device"},
      {"execute_ns", "on the device"},
      {"copy_out_ns", "from the device, and out of the slot"},
      {"end_to_end_ns", "begin of try_submit to end of poll"},
      {"done_ns", "CLOCK_MONOTONIC when the worker published"},
      {nullptr, nullptr},
  };
  static PyStructSequence_Desc desc = {"ais_bench._native.Reply", "One reply of a worker.", fields, 10};
  static PyTypeObject* const type = PyStructSequence_NewType(&desc);
  if (type == nullptr) throw py::error_already_set();
  return type;
}

bool try_submit(PyLane& lane, py::handle feeds, int mode, py::handle task, int kind, std::uint64_t option) {
  const FeedArrays arrays(feeds, lane.lane().region().get());
  lane.owns_tasks = true;
  py::object held = py::reinterpret_borrow<py::object>(task);
  std::int64_t now = monotonic_ns();
  if (!lane.send(arrays, mode, static_cast<shm::Kind>(kind), option, task.ptr(), nullptr, &now)) return false;
  held.release();
  return true;
}

py::object to_tuple(PyLane::PyReply answer) {
  PyObject* tuple = PyStructSequence_New(reply_type());
  if (tuple == nullptr) throw py::error_already_set();
  py::object result = py::reinterpret_steal<py::object>(tuple);
  PyStructSequence_SetItem(tuple, 0, static_cast<PyObject*>(answer.task));
  PyStructSequence_SetItem(tuple, 1, answer.outputs.release().ptr());
  PyStructSequence_SetItem(tuple, 2, answer.error.release().ptr());
  PyStructSequence_SetItem(tuple, 3, PyLong_FromLong(static_cast<long>(answer.kind)));
  const std::int64_t numbers[] = {answer.times.queued,   answer.times.copy_in,    answer.times.execute,
                                  answer.times.copy_out, answer.times.end_to_end, answer.done_ns};
  Py_ssize_t field = 4;
  for (const std::int64_t number : numbers) PyStructSequence_SetItem(tuple, field++, PyLong_FromLongLong(number));
  return result;
}

py::object poll(PyLane& lane) {
  PyLane::PyReply answer;
  if (!lane.take(&answer)) return py::none();
  lane.stats().record(answer.times, answer.kind == shm::Kind::kRaised || answer.kind == shm::Kind::kError);
  return to_tuple(std::move(answer));
}

py::list abandon(PyLane& lane) {
  py::list tasks;
  for (PyLane::Left& left : lane.abandon()) {
    tasks.append(py::make_tuple(py::reinterpret_steal<py::object>(static_cast<PyObject*>(left.task)),
                                left.feeds ? std::move(left.feeds) : py::none(), static_cast<int>(left.kind), left.taken));
  }
  return tasks;
}

py::object oldest(PyLane& lane) {
  const auto oldest = value_or_raise(lane.lane().oldest());
  if (!oldest) return py::none();
  return py::make_tuple(py::reinterpret_borrow<py::object>(static_cast<PyObject*>(oldest->task)), oldest->since_ns);
}

}  // namespace

py::list PyLane::new_feeds(const std::vector<std::pair<Shape, py::object>>& specs) {
  std::vector<TensorView> views;
  const std::size_t room = lane_->region()->size();
  std::size_t bytes = 0;
  for (const auto& [shape, spec] : specs) {
    TensorView view;
    Feeds keep;
    view.dtype = to_feed(py::array(py::dtype::from_args(spec), 0), "an array of new_feeds", nullptr, &keep).view.dtype;
    view.shape = shape;
    std::size_t elements = 0;
    if (!count_elements(shape, &elements)) {
      raise_if_error(Status(Code::kFeedMismatch, "feeds need a whole shape, this is " + shape_text(shape)));
    }
    view.bytes = packed_bytes(view.dtype, elements);
    bytes = shm::aligned(bytes, shm::kPayloadAlignment);
    if (view.bytes > room || bytes > room - view.bytes) {  // so that the sum cannot overflow
      raise_if_error(Status(Code::kOutOfMemory, "feeds of shape " + shape_text(shape) + " and those before it need more than " +
                                                    std::to_string(room) + " bytes, the size of the shared memory"));
    }
    bytes += view.bytes;
    views.push_back(std::move(view));
  }
  shm::Lease lease = value_or_raise(lane_->lease_feeds(std::max<std::size_t>(bytes, 1)));
  if (!lease) {
    raise_if_error(Status(Code::kOutOfMemory, "no " + std::to_string(bytes) + " bytes are left for feeds in shared memory of " +
                                                  std::to_string(lane_->region()->size()) + " bytes"));
  }
  std::uint8_t* next = lane_->region()->data() + lease.span().offset;
  const py::capsule base = keep_alive(std::move(lease));
  py::list arrays;
  for (TensorView& view : views) {
    view.data = next;
    next += shm::aligned(view.bytes, shm::kPayloadAlignment);
    arrays.append(view_tensor(view, base, true));
  }
  return arrays;
}

void register_shm_lane(py::module_& module) {
  py::class_<PyLane, std::shared_ptr<PyLane>>(module, "Lane")
      .def(py::init([](std::shared_ptr<shm::Bell> bell, std::uint64_t epoch, std::size_t arena_bytes, std::size_t result_bytes,
                       std::shared_ptr<shm::Stats> stats) {
             if (stats == nullptr) stats = std::make_shared<shm::Stats>();
             return std::make_shared<PyLane>(std::move(bell), shm::LaneOptions{epoch, arena_bytes, result_bytes},
                                             std::move(stats));
           }),
           py::arg("doorbell"), py::kw_only(), py::arg("epoch") = 0, py::arg("arena_bytes") = 0, py::arg("result_bytes") = 0,
           py::arg("stats") = py::none())
      .def_property_readonly("fd", &PyLane::fd)
      .def("release_fd", &PyLane::release_fd)
      .def_property_readonly_static("capacity", [](const py::object&) { return shm::kMostInFlight; })
      .def_property_readonly("in_flight", [](PyLane& self) { return self.lane().in_flight(); })
      .def_property_readonly("closed", [](PyLane& self) { return self.lane().closed(); })
      .def_property(
          "nap_us", [](PyLane& self) { return self.lane().nap_ns() / 1000.0; },
          [](PyLane& self, double us) { self.lane().set_nap_ns(static_cast<std::uint32_t>(std::clamp(us, 0.0, 1e6) * 1000)); })
      .def_property(
          "spin_us", [](PyLane& self) { return self.lane().spin_ns() / 1000.0; },
          [](PyLane& self, double us) { self.lane().set_spin_ns(static_cast<std::uint32_t>(std::clamp(us, 0.0, 1e6) * 1000)); })
      .def("try_submit", &try_submit, py::arg("feeds"), py::arg("mode"), py::arg("task"), py::arg("kind") = 0,
           py::arg("option") = 0)
      .def("poll", &poll)
      .def("abandon", &abandon)
      .def("oldest", &oldest)
      .def("new_feeds", &PyLane::new_feeds, py::arg("specs"))
      .def("owns", &PyLane::owns, py::arg("array"))
      .def("offset_of", &PyLane::offset_of, py::arg("array"))
      .def(
          "warm",
          [](PyLane& self, std::size_t feed_bytes, std::size_t result_bytes, std::size_t tasks) {
            Status status;
            {
              const NoGil release;
              status = self.lane().warm(feed_bytes, result_bytes, tasks);
            }
            raise_if_error(status);
          },
          py::arg("feed_bytes"), py::arg("result_bytes"), py::arg("tasks"))
      .def(
          "trim", [](PyLane& self, std::uint64_t keep) { self.lane().trim(keep); }, py::arg("keep") = 0)
      .def("close", [](PyLane& self) { self.lane().close(); });
  module.def(
      "take", [](py::handle feeds, const FeedNames& names) { return FeedArrays(feeds, nullptr, &names).copy(); },
      py::arg("feeds"), py::arg("names") = FeedNames());
  module.attr("Reply") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(reply_type()));
}

}  // namespace ais::bind
