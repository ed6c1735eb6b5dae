// Channel for Python: the worker's end. serve() is native; next_task, reply and fail are for handlers in Python. Executor runs
// a model in a thread beside handlers in Python.
#include <pybind11/stl.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/process.hpp"
#include "base/tuning.hpp"
#include "bind/bind.hpp"
#include "bind/shm.hpp"
#include "bind/shm_arrays.hpp"
#include "shm/port.hpp"
#include "worker/executor.hpp"
#include "worker/handler.hpp"
#include "worker/serve.hpp"
#include "worker/session_handler.hpp"

namespace ais::bind {
namespace {

PyTypeObject* task_type() {
  static PyStructSequence_Field fields[] = {
      {"id", "names the task in reply and fail"},
      {"feeds", "read-only arrays over the slot, valid until the reply"},
      {"mode", "as submitted"},
      {"option", "as submitted"},
      {"kind", "TENSORS or OBJECT"},
      {nullptr, nullptr},
  };
  static PyStructSequence_Desc desc = {"ais_bench._native.Task", "One task for a worker.", fields, 5};
  static PyTypeObject* const type = PyStructSequence_NewType(&desc);
  if (type == nullptr) throw py::error_already_set();
  return type;
}

std::uint64_t id_of(const py::tuple& task) { return task[0].cast<std::uint64_t>(); }

// Marks that a thread waits for tasks: the port serves one at a time.
class OneTaker {
 public:
  explicit OneTaker(std::atomic<bool>* flag) : flag_(flag) {
    if (flag_->exchange(true)) {
      raise_if_error(Status(Code::kInvalidArgument, "another thread already takes tasks from this channel"));
    }
  }
  ~OneTaker() { flag_->store(false); }
  OneTaker(const OneTaker&) = delete;
  OneTaker& operator=(const OneTaker&) = delete;

 private:
  std::atomic<bool>* flag_;
};

class PyChannel {
 public:
  PyChannel(int arena_fd, int bell_fd) {
    shm::Fd arena(arena_fd);
    shm::Fd bell(bell_fd);
    const NoGil release;
    auto attached = shm::Port::attach(std::move(arena), std::move(bell));
    const Gil acquire;
    port_ = value_or_raise(std::move(attached));
    base_ = keep_alive(port_->region());
  }

  std::uint64_t serve(const std::shared_ptr<worker::Handler>& handler, const py::object& on_object) {
    const OneTaker waiting(&taking_);
    std::uint64_t served = 0;
    shm::PortTask task;
    while (true) {
      Result<worker::Stopped> stopped = [&] {
        const NoGil release;
        return worker::serve(port_.get(), handler.get(), &task, &served);
      }();
      raise_if_interrupted();
      switch (value_or_raise(std::move(stopped))) {
        case worker::Stopped::kClosed:
          return served;
        case worker::Stopped::kInterrupted:
          if (PyErr_CheckSignals() != 0) throw py::error_already_set();
          break;
        case worker::Stopped::kObject:
          if (on_object.is_none()) {
            raise_if_error(port_->fail(&task, Code::kUnsupported, "this worker takes arrays, not Python objects", 0, {}));
          } else {
            on_object(hand_out(std::exchange(task, shm::PortTask())));
          }
          ++served;
          break;
      }
    }
  }

  py::object next_task(const std::optional<double>& timeout) {
    const OneTaker waiting(&taking_);
    const std::int64_t deadline_ns = deadline_after(timeout);
    shm::PortTask task;
    while (true) {
      Result<shm::Next> next = [&] {
        const NoGil release;
        return port_->next(deadline_ns, &task);
      }();
      switch (value_or_raise(std::move(next))) {
        case shm::Next::kTask:
          return hand_out(std::move(task));
        case shm::Next::kTimeout:
          return py::none();
        case shm::Next::kInterrupted:
          if (PyErr_CheckSignals() != 0) throw py::error_already_set();
          break;
        case shm::Next::kClosed:
          PyErr_SetString(PyExc_EOFError, "the lane is closed");
          throw py::error_already_set();
      }
    }
  }

  void reply(const py::tuple& id, py::handle outputs, int kind, std::int64_t execute_ns, std::int64_t copy_in_ns,
             std::int64_t copy_out_ns, std::int64_t preprocess_ns, std::int64_t postprocess_ns) {
    const FeedArrays arrays(outputs, nullptr);
    shm::PortTask task = take_back(id);
    if (execute_ns == 0) execute_ns = monotonic_ns() - task.picked_ns;
    const bool filled = [&] {
      if (arrays.copied_bytes() < tuning::kLargeBytes) return arrays.write(&task.writer, *port_->region(), true);
      const NoGil release;
      return arrays.write(&task.writer, *port_->region(), true);
    }();
    const shm::StageTimes times{copy_in_ns, execute_ns, copy_out_ns, preprocess_ns, postprocess_ns, 0};
    raise_if_error([&] {
      const Status refused = task.writer.refused();  // a copy, because the writer writes the failure
      if (!refused.ok()) return port_->fail(&task, refused.code(), refused.message(), 0, times);
      Status finished = filled ? port_->finish(&task, static_cast<shm::Kind>(kind), times) : Status();
      return task.writer.full() ? port_->too_large(&task, task.writer.needed()) : finished;
    }());
  }

  void fail(const py::tuple& id, int code, const std::string& message, std::int64_t vendor_code) {
    shm::PortTask task = take_back(id);
    const shm::StageTimes times{0, monotonic_ns() - task.picked_ns};
    raise_if_error(port_->fail(&task, static_cast<Code>(code), message, vendor_code, times));
  }

  void close() { port_->close(); }

  // Takes back a task that next_task has returned.
  shm::PortTask take_back(const py::tuple& id) {
    auto task = tasks_.extract(id_of(id));
    if (task.empty()) raise_if_error(Status(Code::kInvalidArgument, "this task has been answered already"));
    return std::move(task.mapped());
  }
  void put_back(shm::PortTask task) { tasks_.emplace(task.seq, std::move(task)); }

  shm::Port* port() { return port_.get(); }

 private:
  py::object hand_out(shm::PortTask task) {
    PyObject* tuple = PyStructSequence_New(task_type());
    if (tuple == nullptr) throw py::error_already_set();
    py::object result = py::reinterpret_steal<py::object>(tuple);
    py::list feeds;
    for (const TensorView& view : task.feeds) {
      feeds.append(view_tensor(view, base_, false));
    }
    PyStructSequence_SetItem(tuple, 0, PyLong_FromUnsignedLongLong(task.seq));
    PyStructSequence_SetItem(tuple, 1, feeds.release().ptr());
    PyStructSequence_SetItem(tuple, 2, PyLong_FromLong(task.mode));
    PyStructSequence_SetItem(tuple, 3, PyLong_FromUnsignedLongLong(task.option));
    PyStructSequence_SetItem(tuple, 4, PyLong_FromLong(static_cast<long>(task.kind)));
    tasks_.emplace(task.seq, std::move(task));
    return result;
  }

  std::unique_ptr<shm::Port> port_;
  py::object base_;                                         // keeps the mapping alive for arrays over it
  std::unordered_map<std::uint64_t, shm::PortTask> tasks_;  // returned by next_task and not answered; guarded by the GIL
  std::atomic<bool> taking_{false};
};

// The executor for Python: feeds and outputs are arrays, and are freed with the GIL held.
class PyExecutor {
 public:
  PyExecutor(py::object channel, std::shared_ptr<session::Session> session)
      : owner_(std::move(channel)),
        channel_(&owner_.cast<PyChannel&>()),
        session_(std::move(session)),
        executor_(session_, channel_->port()) {}

  // Submits the feeds of a task of the channel. `carry` None: the executor answers; otherwise `next_done` returns the task.
  void submit(const py::tuple& task, const py::object& given, py::object carry, std::int64_t preprocess_ns) {
    auto job = std::make_unique<PyJob>();
    job->keep = to_feeds(given, &session_->info());
    job->feeds = std::move(job->keep.feeds);
    if (!carry.is_none()) {
      job->outputs.emplace(session_->info());
      job->sink = &*job->outputs;
      job->id = task;
      job->carry = std::move(carry);
    }
    job->times.preprocess_ns = preprocess_ns;
    job->task = channel_->take_back(task);
    std::vector<worker::Executor::JobPtr> spent;
    {
      const NoGil release;
      executor_.submit(std::move(job));
      spent = executor_.take_spent();
    }
  }

  void end() { executor_.end(); }
  void cancel(std::uint64_t seq) { executor_.cancel(seq); }

  void run() {
    Status status;
    {
      const NoGil release;
      status = executor_.run([this] {
        std::vector<worker::Executor::JobPtr> spent = executor_.take_spent();
        if (spent.empty()) return;
        const Gil gil;
        spent.clear();
      });
    }
    executor_.take_spent();
    raise_if_error(status);
  }

  py::object next_done() {
    worker::Executor::JobPtr next;
    {
      const NoGil release;
      next = executor_.next_done();
    }
    if (next == nullptr) return py::none();
    PyJob& job = static_cast<PyJob&>(*next);
    channel_->put_back(std::move(job.task));
    const shm::StageTimes& times = job.times;
    return py::make_tuple(std::move(job.id), job.outputs->take(), std::move(job.carry),
                          py::make_tuple(times.copy_in_ns, times.execute_ns, times.copy_out_ns, times.preprocess_ns));
  }

 private:
  struct PyJob : worker::Executor::Job {
    Feeds keep;
    std::optional<NumpySink> outputs;
    py::object id;
    py::object carry;
  };

  const py::object owner_;
  PyChannel* const channel_;
  const std::shared_ptr<session::Session> session_;
  worker::Executor executor_;
};

// `tell` is called in the serving thread. Its errors are printed, because no task causes them.
void when_slots_are_refused(worker::SessionHandler& self, py::object tell) {
  const auto keep = std::shared_ptr<py::object>(new py::object(std::move(tell)), [](py::object* object) {
    const Gil gil;
    delete object;
  });
  self.when_slots_are_refused([keep] {
    const Gil gil;
    try {
      in_python([&] { return (*keep)(); });
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("when_slots_are_refused");
    }
  });
}

}  // namespace

void register_shm_channel(py::module_& module) {
  py::class_<worker::Handler, std::shared_ptr<worker::Handler>>(module, "NativeHandler")
      .def("cancel", &worker::Handler::cancel, py::arg("task_id"), py::call_guard<py::gil_scoped_release>());
  py::class_<worker::EchoHandler, worker::Handler, std::shared_ptr<worker::EchoHandler>>(module, "EchoHandler").def(py::init());
  py::class_<worker::SessionHandler, worker::Handler, std::shared_ptr<worker::SessionHandler>>(module, "SessionHandler")
      .def(py::init<std::shared_ptr<session::Session>>(), py::arg("session"))
      .def("when_slots_are_refused", &when_slots_are_refused, py::arg("tell"));
  py::class_<PyChannel>(module, "Channel")
      .def(py::init<int, int>(), py::arg("arena_fd"), py::arg("doorbell_fd"))
      .def("serve", &PyChannel::serve, py::arg("handler"), py::arg("on_object") = py::none())
      .def("next_task", &PyChannel::next_task, py::arg("timeout") = py::none())
      .def("reply", &PyChannel::reply, py::arg("task"), py::arg("outputs"), py::kw_only(), py::arg("kind") = 0,
           py::arg("execute_ns") = 0, py::arg("copy_in_ns") = 0, py::arg("copy_out_ns") = 0, py::arg("preprocess_ns") = 0,
           py::arg("postprocess_ns") = 0)
      .def("fail", &PyChannel::fail, py::arg("task"), py::arg("code"), py::arg("message"), py::arg("vendor_code") = 0)
      .def("close", &PyChannel::close);
  py::class_<PyExecutor>(module, "Executor")
      .def(py::init<py::object, std::shared_ptr<session::Session>>(), py::arg("channel"), py::arg("session"))
      .def("submit", &PyExecutor::submit, py::arg("task"), py::arg("feeds"), py::arg("carry"), py::arg("preprocess_ns"))
      .def("end", &PyExecutor::end)
      .def("cancel", &PyExecutor::cancel, py::arg("task_id"), py::call_guard<py::gil_scoped_release>())
      .def("run", &PyExecutor::run)
      .def("next_done", &PyExecutor::next_done);
  module.attr("Task") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(task_type()));
}

}  // namespace ais::bind
