// The parent's end of a worker's arena for Python: takes feeds as arrays and returns outputs as arrays. Needs the GIL.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "base/tuning.hpp"
#include "bind/bind.hpp"
#include "bind/shm.hpp"
#include "bind/shm_arrays.hpp"
#include "device/fault.hpp"
#include "shm/lane.hpp"

namespace ais::bind {

// What a lane has lent to the caller. The caller may drop results on any thread, and after the lane.
struct Loans {
  std::atomic<std::size_t> results{0};
  std::atomic<std::size_t> bytes{0};
};

// The base of arrays over a result slot.
struct Loan {
  Loan(shm::Lease taken, std::shared_ptr<Loans> counts) : lease(std::move(taken)), loans(std::move(counts)) {
    loans->results.fetch_add(1);
    loans->bytes.fetch_add(lease.span().bytes);
  }
  Loan(Loan&&) = default;
  ~Loan() {
    if (loans == nullptr) return;
    loans->results.fetch_sub(1);
    loans->bytes.fetch_sub(lease.span().bytes);
  }
  shm::Lease lease;
  std::shared_ptr<Loans> loans;
};

// The base of returned feeds: their slot, and the arrays that were used in place.
struct FeedsLeft {
  shm::Lease lease;
  py::object kept;
};

// Returns the exception for a status, as an object.
inline py::object to_exception(const Status& status) {
  try {
    raise_if_error(status);
  } catch (py::error_already_set& error) {
    return error.value();
  }
  return py::none();
}

// Returns a MemoryError. CPython keeps some of them, so this needs no memory.
inline py::object memory_error() {
  PyErr_NoMemory();
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return py::reinterpret_steal<py::object>(value);
}

// Returns the worker's kError frame as a status. Its content is checked, too.
inline Status reported_error(const std::vector<TensorView>& tensors) {
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

inline py::list arrays_over(const std::vector<TensorView>& feeds, shm::Lease lease, py::object kept) {
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
        loans_(std::make_shared<Loans>()) {}
  PyLane(const PyLane&) = delete;
  PyLane& operator=(const PyLane&) = delete;
  ~PyLane() {
    for (shm::Token token; lane_->discard_one(&token);) {
      if (owns_tasks) Py_XDECREF(static_cast<PyObject*>(token.task));
      Py_XDECREF(static_cast<PyObject*>(token.keep));
    }
  }

  bool owns_tasks = false;  // the tasks are Python objects, and the lane holds references

  // Copies the feeds and publishes them. Returns false if there is no room now. `task`: the reply returns it. The GIL is
  // released for large copies, and held again before the task is published. `now`: when the copy began; then, if it was sent,
  // when it was published.
  bool send(const FeedArrays& arrays, int mode, shm::Kind kind, std::uint64_t option, void* task, std::uint64_t* number,
            std::int64_t* now) {
    const std::int64_t begun_ns = *now;
    auto draft = value_or_raise(lane_->begin(arrays.frame_bytes()));
    if (!draft) return false;
    shm::Span table;
    std::uint64_t used = 0;
    const auto fill = [&](shm::FrameWriter* writer) {
      writer->reset(lane_->region()->data(), draft->feeds());
      const bool filled = arrays.write(writer, *lane_->region()) && writer->finish(&table);
      used = writer->used();
      return filled;
    };
    bool filled = false;
    if (arrays.copied_bytes() >= tuning::kLargeBytes) {
      shm::FrameWriter writer;  // other threads may send meanwhile
      const NoGil release;
      filled = fill(&writer);
    } else {
      filled = fill(&spare_);
    }
    if (!filled) throw std::logic_error("feeds did not fit the slot that was made for them");
    py::object kept = arrays.kept();
    raise_if_error(lane_->publish(std::move(*draft), table, used, static_cast<std::uint16_t>(mode), kind, option, begun_ns,
                                  {task, kept.ptr()}, number, now));
    kept.release();
    return true;
  }

  // A task that did not run, with its feeds in shared memory.
  struct Left {
    void* task = nullptr;
    py::object feeds;  // null: they cannot be read
    shm::Kind kind = shm::Kind::kTensors;
    bool taken = false;  // the worker had claimed it
  };

  std::vector<Left> abandon() {
    std::vector<Left> tasks;
    for (shm::Lane::Unfinished& left : lane_->abandon()) tasks.push_back(to_left(std::move(left)));
    return tasks;
  }

  // See Lane::withdraw.
  std::optional<Left> withdraw(std::uint64_t number) {
    shm::Lane::Unfinished left;
    if (!value_or_raise(lane_->withdraw(number, &left))) return std::nullopt;
    return to_left(std::move(left));
  }

  // Returns copies of the feeds of a task that the worker has not answered; null: there is no such task.
  py::object copy_feeds(std::uint64_t number) {
    std::vector<TensorView> feeds;
    if (!value_or_raise(lane_->look_at_feeds(number, &feeds))) return py::object();
    py::list copies;
    for (const TensorView& view : feeds) copies.append(copy_tensor(view));
    return copies;
  }

  py::list new_feeds(const std::vector<std::pair<Shape, py::object>>& specs);

  bool owns(const py::array& array) const { return lane_->region()->contains(array.data()); }

  // Returns the offset in the arena of an array that this lane owns.
  std::int64_t offset_of(const py::array& array) const {
    return static_cast<const std::uint8_t*>(array.data()) - lane_->region()->data();
  }

  int fd() const { return lane_->region()->fd(); }
  void release_fd() { lane_->region()->close_fd(); }
  shm::Lane& lane() { return *lane_; }
  shm::Stats& stats() { return *stats_; }
  bool holds(const void* data) const { return lane_->region()->contains(data); }

  // A reply with Python objects.
  struct PyReply {
    void* task = nullptr;
    py::object outputs = py::none();
    py::object error = py::none();
    bool lost = false;     // the device is lost
    bool retry = false;    // a callable raised an error that another run may avoid
    bool stopped = false;  // its run was stopped, because of this task or another one, or memory was released for its outputs
    py::object feeds;      // set if the task may run again: its device failed, or `retry`
    shm::Kind kind = shm::Kind::kTensors;
    shm::TaskTimes times;
    std::int64_t begun_ns = 0;  // when the copy of its feeds began
    std::int64_t picked_ns = 0;
    std::int64_t done_ns = 0;
    std::int64_t taken_ns = 0;  // when the parent had taken the reply
    std::int64_t came_ns = 0;   // when the parent began to take it
  };

  // Takes the next reply. Returns false if there is none.
  bool take(PyReply* answer) {
    shm::Lane::Reply reply = std::move(spare_reply_);
    const bool taken = value_or_raise(lane_->take(&reply));
    if (taken) fill(&reply, answer);
    spare_reply_ = std::move(reply);
    return taken;
  }

 private:
  void fill(shm::Lane::Reply* reply, PyReply* answer) {
    const std::int64_t came_ns = reply->came_ns;
    *answer = PyReply();
    answer->task = reply->token.task;
    py::object kept = py::reinterpret_steal<py::object>(static_cast<PyObject*>(reply->token.keep));
    try {
      fill_outcome(reply, std::move(kept), answer);
    } catch (py::error_already_set& failed) {  // out of memory: the task fails, but must not be lost
      answer->error = failed.value();
    } catch (const std::bad_alloc&) {
      answer->error = memory_error();
    }
    if (!answer->error.is_none()) answer->kind = shm::Kind::kError;
    const std::int64_t now_ns = monotonic_ns();
    answer->times = reply->times;
    answer->times.copy_out += now_ns - came_ns;
    answer->times.end_to_end = now_ns - reply->begun_ns;
    answer->begun_ns = reply->begun_ns;
    answer->picked_ns = reply->picked_ns;
    answer->done_ns = reply->done_ns;
    answer->taken_ns = now_ns;
    answer->came_ns = came_ns;
    reply->result.release();
    reply->feeds_lease.release();
  }

  void fill_outcome(shm::Lane::Reply* reply, py::object kept, PyReply* answer) {
    answer->kind = reply->kind;
    if (reply->kind != shm::Kind::kTooLarge && reply->kind != shm::Kind::kError) {
      answer->outputs = to_arrays(reply);
      answer->retry = reply->kind == shm::Kind::kRetry;
      if (answer->retry) answer->kind = shm::Kind::kRaised;
      if (answer->retry && reply->feeds_lease) {
        answer->feeds = arrays_over(reply->feeds, std::move(reply->feeds_lease), std::move(kept));
      }
      return;
    }
    const Status status = reply->kind == shm::Kind::kTooLarge ? reply->error : reported_error(reply->tensors);
    answer->error = to_exception(status);
    answer->lost = status.code() == Code::kDeviceLost;
    // Outputs had no room. Free slots of all workers may have held the memory, and only this process can release it.
    const bool made_room = status.code() == Code::kNoRoom && shm::SlotPool::trim_all() != 0;
    answer->stopped = status.code() == Code::kCancelled || made_room;
    if ((answer->stopped || device::is_fault(status)) && reply->feeds_lease) {
      answer->feeds = arrays_over(reply->feeds, std::move(reply->feeds_lease), std::move(kept));
    }
  }

  bool may_lend(const shm::Lane::Reply& reply) const {
    return reply.used > tuning::kLargeBytes && loans_->results.load() < tuning::kLoans &&
           loans_->bytes.load() + reply.result.span().bytes <= lane_->region()->size() / tuning::kLentShare;
  }

  // Copies small outputs. Lends large outputs, or copies them if the caller already holds many.
  py::list to_arrays(shm::Lane::Reply* reply) {
    const bool lend = may_lend(*reply);
    py::object base;
    py::list arrays(reply->tensors.size());
    for (std::size_t i = 0; i < reply->tensors.size(); ++i) {
      const TensorView& tensor = reply->tensors[i];
      py::object array;
      if (lend && tensor.bytes >= tuning::kLargeBytes && same_layout(tensor.dtype)) {
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

  static Left to_left(shm::Lane::Unfinished unfinished) {
    Left left;
    left.task = unfinished.token.task;
    left.kind = unfinished.kind;
    left.taken = unfinished.taken;
    py::object kept = py::reinterpret_steal<py::object>(static_cast<PyObject*>(unfinished.token.keep));
    try {
      if (unfinished.readable.ok()) left.feeds = arrays_over(unfinished.feeds, std::move(unfinished.lease), std::move(kept));
    } catch (const std::exception&) {  // out of memory: the feeds are not returned, but the task must not be lost
      PyErr_Clear();
      left.feeds = py::object();
    }
    return left;
  }

  std::unique_ptr<shm::Lane> lane_;
  std::shared_ptr<shm::Stats> stats_;
  std::shared_ptr<Loans> loans_;
  shm::FrameWriter spare_;        // reused for its memory; used only while no other thread can run
  shm::Lane::Reply spare_reply_;  // the same
};

}  // namespace ais::bind
