// Lane for Python: convert, release the GIL where a copy or a wait is long, delegate, convert back.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "bind/bind.hpp"
#include "bind/records.hpp"
#include "bind/recycling.hpp"
#include "bind/shm.hpp"
#include "bind/shm_arrays.hpp"
#include "device/fault.hpp"
#include "shm/lane.hpp"

namespace ais::bind {
namespace {

// How many results of one lane may be lent to the caller at a time; the next are copied. A lent slot is a slot whose pages the
// worker has to touch for the first time somewhere else, which costs more than a copy.
constexpr int kLoans = 8;

using Loans = std::shared_ptr<std::atomic<int>>;

// The base of arrays over a result slot.
struct Loan {
  Loan(shm::Lease taken, Loans counter) : lease(std::move(taken)), loans(std::move(counter)) { loans->fetch_add(1); }
  Loan(Loan&&) = default;
  ~Loan() {
    if (loans != nullptr) loans->fetch_sub(1);
  }
  shm::Lease lease;
  Loans loans;
};

// The base of feeds that come back: their slot, and the arrays that were named in place.
struct FeedsLeft {
  shm::Lease lease;
  py::object kept;
};

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

// The exception that a status stands for, as an object.
py::object to_exception(const Status& status) {
  try {
    raise_if_error(status);
  } catch (py::error_already_set& error) {
    return error.value();
  }
  return py::none();
}

// A MemoryError, which CPython has in store.
py::object memory_error() {
  PyErr_NoMemory();
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return py::reinterpret_steal<py::object>(value);
}

// The worker's kError frame as a status; what it holds is not trusted either.
Status reported_error(const std::vector<TensorView>& tensors) {
  if (tensors.size() != 2 || tensors[0].dtype != DType::kUInt8 || tensors[1].dtype != DType::kInt64 ||
      tensors[1].bytes != 2 * sizeof(std::int64_t)) {
    return Status(Code::kCorrupt, "the worker reported an error in a form that cannot be read");
  }
  std::int64_t codes[2];
  std::memcpy(codes, tensors[1].data, sizeof codes);
  std::string text(static_cast<const char*>(tensors[0].data), tensors[0].bytes);
  const bool known = codes[0] > 0 && codes[0] <= static_cast<std::int64_t>(Code::kSystem);
  return Status(known ? static_cast<Code>(codes[0]) : Code::kExecution, std::move(text), codes[1]);
}

py::list arrays_over(const std::vector<TensorView>& feeds, shm::Lease lease, py::object kept) {
  const py::capsule base = keep_alive(FeedsLeft{std::move(lease), std::move(kept)});
  py::list arrays;
  for (const TensorView& view : feeds) arrays.append(view_tensor(view, base, true));
  return arrays;
}

class PyLane {
 public:
  PyLane(std::shared_ptr<shm::Bell> bell, const shm::LaneOptions& options, std::shared_ptr<shm::Stats> stats)
      : lane_(value_or_raise(shm::Lane::create(std::move(bell), options))),
        stats_(std::move(stats)),
        loans_(std::make_shared<std::atomic<int>>(0)) {}
  PyLane(const PyLane&) = delete;
  PyLane& operator=(const PyLane&) = delete;
  ~PyLane() {
    for (shm::Token token; lane_->discard_one(&token);) drop(token);
  }

  bool try_submit(py::handle feeds, int mode, py::handle task, int kind, std::uint64_t option) {
    const std::int64_t begun_ns = monotonic_ns();
    const FeedArrays arrays(feeds, lane_->region().get());
    auto draft = value_or_raise(lane_->begin(arrays.frame_bytes()));
    if (!draft) return false;
    shm::FrameWriter& writer = spare_writer();
    writer.reset(lane_->region()->data(), draft->feeds());
    shm::Span table;
    const auto fill = [&] { return arrays.write(&writer, *lane_->region()) && writer.finish(&table); };
    bool filled = false;
    if (arrays.copied_bytes() >= kLarge) {
      const NoGil release;
      filled = fill();
    } else {
      filled = fill();
    }
    if (!filled) throw std::logic_error("feeds did not fit the slot that was made for them");
    py::object kept = arrays.kept();
    const shm::Token token{task.ptr(), kept.ptr()};
    raise_if_error(lane_->publish(std::move(*draft), table, writer.used(), static_cast<std::uint16_t>(mode),
                                  static_cast<shm::Kind>(kind), option, begun_ns, token));
    Py_INCREF(task.ptr());  // in time: whoever polls needs the GIL, too
    kept.release();
    return true;
  }

  // The same for one of the pool's tasks, which says so itself from then on. No Python code runs between the two, so an
  // interrupt cannot come between.
  bool send(const Records& records, py::handle feeds, py::handle task) {
    if (!try_submit(feeds, records.mode(task), task, records.kind(task), records.option(task))) return false;
    records.book_sent(task);
    return true;
  }

  py::object poll() {
    Answer answer;
    if (!take(&answer)) return py::none();
    record(answer);
    return to_tuple(std::move(answer));
  }

  // Takes every reply that is there into its task, and books it. Returns how many there were. No Python code runs between
  // taking a reply and having booked it, so an interrupt cannot come between.
  std::size_t deliver(const Records& records, py::handle worker, py::handle account, py::handle resolved, py::handle sleepers,
                      py::handle faulted) {
    std::size_t count = 0;
    std::optional<Recycling> recycling;
    for (Answer answer; take(&answer); ++count) {
      if (!recycling && lane_->in_flight() != 0) recycling.emplace();  // for the next ones; one alone gains nothing
      if (answer.feeds) {
        records.book_fault(answer.task, worker, std::move(answer.feeds), std::move(answer.error), faulted);
        continue;
      }
      record(answer);
      records.book_answer(worker, cost_of(answer.times), answer.lost ? answer.error : py::object());
      records.finish(answer.task, worker, account, std::move(answer.outputs), std::move(answer.error),
                     static_cast<int>(answer.kind), {answer.picked_ns, answer.done_ns, answer.times}, resolved, sleepers);
    }
    return count;
  }

  py::list abandon() {
    py::list tasks;
    for (shm::Lane::Unfinished& left : lane_->abandon()) {
      py::object task = py::reinterpret_steal<py::object>(static_cast<PyObject*>(left.token.task));
      py::object kept = py::reinterpret_steal<py::object>(static_cast<PyObject*>(left.token.keep));
      py::object feeds = py::none();
      try {
        if (left.readable.ok()) feeds = arrays_over(left.feeds, std::move(left.lease), std::move(kept));
      } catch (const std::exception&) {  // out of memory: as if they could not be read, but the task must not be lost
        PyErr_Clear();
        feeds = py::none();
      }
      tasks.append(py::make_tuple(std::move(task), std::move(feeds), static_cast<int>(left.kind), left.taken));
    }
    return tasks;
  }

  py::object oldest() {
    const auto oldest = value_or_raise(lane_->oldest());
    if (!oldest) return py::none();
    return py::make_tuple(py::reinterpret_borrow<py::object>(static_cast<PyObject*>(oldest->task)), oldest->since_ns);
  }

  py::list new_feeds(const std::vector<std::pair<Shape, py::object>>& specs);

  bool owns(const py::array& array) const { return lane_->region()->contains(array.data()); }

  // Where an array that this lane owns begins in the arena.
  std::int64_t offset_of(const py::array& array) const {
    return static_cast<const std::uint8_t*>(array.data()) - lane_->region()->data();
  }

  int fd() const { return lane_->region()->fd(); }
  void release_fd() { lane_->region()->close_fd(); }
  shm::Lane& lane() { return *lane_; }

 private:
  static void drop(const shm::Token& token) {
    Py_XDECREF(static_cast<PyObject*>(token.task));
    Py_XDECREF(static_cast<PyObject*>(token.keep));
  }

  static std::int64_t cost_of(const shm::TaskTimes& times) {
    return times.copy_in + times.preprocess + times.execute + times.postprocess + times.copy_out;
  }

  // A reply in Python's terms.
  struct Answer {
    py::object task;
    py::object outputs = py::none();
    py::object error = py::none();
    bool lost = false;  // the device is
    py::object feeds;   // of a task that failed for its device, for another try; else null
    shm::Kind kind = shm::Kind::kTensors;
    shm::TaskTimes times;
    std::int64_t picked_ns = 0;
    std::int64_t done_ns = 0;
  };

  // The next reply; false where there is none.
  bool take(Answer* answer) {
    shm::Lane::Reply reply = std::move(spare_);
    const bool taken = value_or_raise(lane_->take(&reply));
    if (taken) fill(&reply, answer);
    spare_ = std::move(reply);
    return taken;
  }

  void fill(shm::Lane::Reply* reply, Answer* answer) {
    const std::int64_t taken_ns = monotonic_ns();
    *answer = Answer();
    answer->task = py::reinterpret_steal<py::object>(static_cast<PyObject*>(reply->token.task));
    py::object kept = py::reinterpret_steal<py::object>(static_cast<PyObject*>(reply->token.keep));
    try {
      fill_outcome(reply, std::move(kept), answer);
    } catch (py::error_already_set& failed) {  // out of memory: this task's failure, it must not be lost
      answer->error = failed.value();
    } catch (const std::bad_alloc&) {
      answer->error = memory_error();
    }
    if (!answer->error.is_none()) answer->kind = shm::Kind::kError;
    const std::int64_t now_ns = monotonic_ns();
    answer->times = reply->times;
    answer->times.copy_out += now_ns - taken_ns;
    answer->times.end_to_end = now_ns - reply->begun_ns;
    answer->picked_ns = reply->picked_ns;
    answer->done_ns = reply->done_ns;
    reply->result.release();
    reply->feeds_lease.release();
  }

  void fill_outcome(shm::Lane::Reply* reply, py::object kept, Answer* answer) {
    answer->kind = reply->kind;
    if (reply->kind != shm::Kind::kTooLarge && reply->kind != shm::Kind::kError) {
      answer->outputs = to_arrays(reply);
      return;
    }
    const Status status = reply->kind == shm::Kind::kTooLarge ? reply->error : reported_error(reply->tensors);
    answer->error = to_exception(status);
    answer->lost = status.code() == Code::kDeviceLost;
    if (device::is_fault(status) && reply->feeds_lease) {
      answer->feeds = arrays_over(reply->feeds, std::move(reply->feeds_lease), std::move(kept));
    }
  }

  void record(const Answer& answer) {
    stats_->record(answer.times, answer.kind == shm::Kind::kRaised || answer.kind == shm::Kind::kError);
  }

  // Used between two calls of which neither runs Python code, so a thread can have only one use of it.
  static shm::FrameWriter& spare_writer() {
    static thread_local shm::FrameWriter writer;
    return writer;
  }

  // Small outputs are copied. Large ones are lent, or copied where the caller already holds many.
  py::list to_arrays(shm::Lane::Reply* reply) {
    const bool lend = reply->used > kLarge && loans_->load() < kLoans;
    py::object base;
    py::list arrays(reply->tensors.size());
    for (std::size_t i = 0; i < reply->tensors.size(); ++i) {
      const TensorView& tensor = reply->tensors[i];
      py::object array;
      if (lend && tensor.bytes >= kLarge && same_layout(tensor.dtype)) {
        if (!base) {
          reply->result.trim(reply->used);
          base = keep_alive(Loan(std::move(reply->result), loans_));
        }
        array = view_tensor(tensor, base, true);
      } else {
        array = copy_tensor(tensor);
      }
      PyList_SET_ITEM(arrays.ptr(), static_cast<Py_ssize_t>(i), array.release().ptr());
    }
    return arrays;
  }

  static py::object to_tuple(Answer answer) {
    PyObject* tuple = PyStructSequence_New(reply_type());
    if (tuple == nullptr) throw py::error_already_set();
    py::object result = py::reinterpret_steal<py::object>(tuple);
    PyStructSequence_SetItem(tuple, 0, answer.task.release().ptr());
    PyStructSequence_SetItem(tuple, 1, answer.outputs.release().ptr());
    PyStructSequence_SetItem(tuple, 2, answer.error.release().ptr());
    PyStructSequence_SetItem(tuple, 3, PyLong_FromLong(static_cast<long>(answer.kind)));
    const std::int64_t numbers[] = {answer.times.queued,   answer.times.copy_in,    answer.times.execute,
                                    answer.times.copy_out, answer.times.end_to_end, answer.done_ns};
    Py_ssize_t field = 4;
    for (const std::int64_t number : numbers) PyStructSequence_SetItem(tuple, field++, PyLong_FromLongLong(number));
    return result;
  }

  std::unique_ptr<shm::Lane> lane_;
  std::shared_ptr<shm::Stats> stats_;
  Loans loans_;
  shm::Lane::Reply spare_;  // keeps its vectors' memory between polls
};

py::list PyLane::new_feeds(const std::vector<std::pair<Shape, py::object>>& specs) {
  std::vector<TensorView> views;
  const std::size_t room = lane_->region()->size();
  std::size_t bytes = 0;
  for (const auto& [shape, spec] : specs) {
    TensorView view;
    Feeds keep;
    view.dtype = to_feed(py::array(py::dtype::from_args(spec), 0), 0, &keep).view.dtype;
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
    raise_if_error(Status(Code::kSystem, "no " + std::to_string(bytes) + " bytes are left for feeds in shared memory of " +
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

}  // namespace

void register_shm_lane(py::module_& module) {
  py::class_<PyLane>(module, "Lane")
      .def(py::init([](std::shared_ptr<shm::Bell> bell, std::uint64_t epoch, std::size_t arena_bytes, std::size_t result_bytes,
                       std::shared_ptr<shm::Stats> stats) {
             if (stats == nullptr) stats = std::make_shared<shm::Stats>();
             return std::make_unique<PyLane>(std::move(bell), shm::LaneOptions{epoch, arena_bytes, result_bytes},
                                             std::move(stats));
           }),
           py::arg("doorbell"), py::kw_only(), py::arg("epoch") = 0, py::arg("arena_bytes") = 0, py::arg("result_bytes") = 0,
           py::arg("stats") = py::none())
      .def_property_readonly("fd", &PyLane::fd)
      .def("release_fd", &PyLane::release_fd)
      .def_property_readonly_static("capacity", [](const py::object&) { return shm::kRingSlots; })
      .def_property_readonly("in_flight", [](PyLane& self) { return self.lane().in_flight(); })
      .def_property_readonly("closed", [](PyLane& self) { return self.lane().closed(); })
      .def_property(
          "nap_us", [](PyLane& self) { return self.lane().nap_ns() / 1000.0; },
          [](PyLane& self, double us) { self.lane().set_nap_ns(static_cast<std::uint32_t>(std::clamp(us, 0.0, 1e6) * 1000)); })
      .def_property(
          "spin_us", [](PyLane& self) { return self.lane().spin_ns() / 1000.0; },
          [](PyLane& self, double us) { self.lane().set_spin_ns(static_cast<std::uint32_t>(std::clamp(us, 0.0, 1e6) * 1000)); })
      .def("try_submit", &PyLane::try_submit, py::arg("feeds"), py::arg("mode"), py::arg("task"), py::arg("kind") = 0,
           py::arg("option") = 0)
      .def("send", &PyLane::send, py::arg("records"), py::arg("feeds"), py::arg("task"))
      .def("poll", &PyLane::poll)
      .def("deliver", &PyLane::deliver, py::arg("records"), py::arg("worker"), py::arg("account"), py::arg("resolved"),
           py::arg("sleepers"), py::arg("faulted"))
      .def("abandon", &PyLane::abandon)
      .def("oldest", &PyLane::oldest)
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
  module.def("take", [](py::handle feeds) { return FeedArrays(feeds, nullptr).copy(); }, py::arg("feeds"));
  module.attr("Reply") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(reply_type()));
}

}  // namespace ais::bind
