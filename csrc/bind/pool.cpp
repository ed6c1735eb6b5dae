// The Python classes of the exchange, its tasks, workers and streams.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "base/process.hpp"
#include "bind/exchange.hpp"
#include "bind/stream.hpp"

namespace ais::bind {
namespace {

py::object made_error(PoolTask& task) {
  if (!task.error) return py::none();
  if (!task.error_made) {
    task.error_made = true;  // before code runs that may call this again
    py::object error = task.error(py::cast(task.shared_from_this()));
    task.error = std::move(error);
  }
  return task.error;
}

template <typename T>
py::object or_none(const T& value) {
  return value ? py::object(value) : py::object(py::none());
}

py::tuple details(const PoolTask& task) {
  const shm::TaskTimes& times = task.times;
  return py::make_tuple(task.picked_ns, task.done_ns, times.queued, times.copy_in, times.execute, times.copy_out,
                        times.end_to_end, times.preprocess, times.postprocess);
}

std::shared_ptr<PoolTask> make_task(py::object feeds, int mode, int kind, std::uint64_t option, std::optional<int> device,
                                    std::optional<std::int64_t> index, py::object key, py::object kept,
                                    std::pair<int, int> failed_before) {
  auto task = std::make_shared<PoolTask>();
  task->feeds = std::move(feeds);
  task->mode = mode;
  task->payload = static_cast<shm::Kind>(kind);
  task->option = option;
  task->device = device.value_or(pool::kAnyDevice);
  task->index = index;
  if (!key.is_none()) task->key = std::move(key);
  if (!kept.is_none()) task->kept = std::move(kept);
  std::tie(task->faults, task->lost_before) = failed_before;
  return task;
}

// Returns the outputs, or the object that the handler returned; raises the task's error.
py::object result(PoolTask& task) {
  if (!task.error && task.answer == shm::Kind::kTensors) return or_none(task.outputs);
  return py::module_::import("ais_bench.pool.task").attr("answer_of")(py::cast(task.shared_from_this()));
}

// A task holds Python objects that may refer to it: an error's traceback has frames in which the task is a variable. If only
// Python has references to the task, the garbage collector may traverse and clear it. Returns such a task, otherwise null.
PoolTask* owned_by_python(PyObject* self) {
  if (!py::detail::is_holder_constructed(self)) return nullptr;
  const auto task = py::cast<std::shared_ptr<PoolTask>>(py::handle(self));
  return task.use_count() == 2 ? task.get() : nullptr;  // this reference and Python's
}

void collect_garbage(PyHeapTypeObject* heap_type) {
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (PoolTask* task = owned_by_python(self)) {
      for (const py::object* one : {&task->feeds, &task->key, &task->kept, &task->future, &task->outputs, &task->error}) {
        Py_VISIT(one->ptr());
      }
    }
    return 0;
  };
  type->tp_clear = [](PyObject* self) {
    if (PoolTask* task = owned_by_python(self)) {
      for (py::object* one : {&task->feeds, &task->key, &task->kept, &task->future, &task->outputs, &task->error}) {
        const py::object dropped = std::move(*one);
      }
    }
    return 0;
  };
}

void register_task(py::module_& module) {
  py::class_<PoolTask, std::shared_ptr<PoolTask>>(module, "PoolTask", py::custom_type_setup(&collect_garbage))
      .def(py::init(&make_task), py::arg("feeds"), py::arg("mode") = 0, py::arg("kind") = 0, py::arg("option") = 0,
           py::arg("device") = py::none(), py::arg("index") = py::none(), py::arg("key") = py::none(),
           py::arg("kept") = py::none(), py::arg("failed_before") = std::pair(0, 0))
      .def_static(
          "failed",
          [](py::object error, std::optional<std::int64_t> index, std::optional<int> device, py::object key,
             std::pair<int, int> failed_before) {
            auto task = make_task(py::tuple(), 0, 0, 0, device, index, std::move(key), py::none(), failed_before);
            task->error = std::move(error);
            task->done = true;
            task->outcome = Outcome::kFailed;
            return task;
          },
          py::arg("error"), py::arg("index") = py::none(), py::arg("device") = py::none(), py::arg("key") = py::none(),
          py::arg("failed_before") = std::pair(0, 0))
      .def_property_readonly("index", [](const PoolTask& task) { return task.index; })
      .def_property_readonly("key", [](const PoolTask& task) { return or_none(task.key); })
      .def_property_readonly("device",
                             [](const PoolTask& task) -> std::optional<int> {
                               return task.device == pool::kAnyDevice ? std::nullopt : std::optional<int>(task.device);
                             })
      .def_property_readonly("done", [](const PoolTask& task) { return task.done; })
      .def_property_readonly("outputs", [](const PoolTask& task) { return or_none(task.outputs); })
      .def_property_readonly("error", [](PoolTask& task) { return made_error(task); })
      .def_property_readonly("answer_kind", [](const PoolTask& task) { return static_cast<int>(task.answer); })
      .def_property_readonly("ran_on",
                             [](const PoolTask& task) -> std::optional<int> {
                               return task.ran_on == pool::kAnyDevice ? std::nullopt : std::optional<int>(task.ran_on);
                             })
      .def_property_readonly("at_device",
                             [](const PoolTask& task) -> std::optional<int> {
                               if (task.worker != nullptr) return task.worker->device;
                               return task.device == pool::kAnyDevice ? std::nullopt : std::optional<int>(task.device);
                             })
      .def_property_readonly("crashes", [](const PoolTask& task) { return task.crashes; })
      .def_property_readonly("faults", [](const PoolTask& task) { return task.faults; })
      .def_property_readonly("lost_before", [](const PoolTask& task) { return task.lost_before; })
      .def_property_readonly("moved", [](const PoolTask& task) { return task.moved; })
      .def_property_readonly("started", [](const PoolTask& task) { return task.picked_ns > 0; })
      .def_property_readonly("end_to_end_ns", [](const PoolTask& task) { return task.times.end_to_end; })
      .def_property_readonly("outcome",
                             [](const PoolTask& task) { return kOutcomeNames[static_cast<std::size_t>(task.outcome)]; })
      .def_property(
          "future", [](const PoolTask& task) { return or_none(task.future); },
          [](PoolTask& task, py::object future) { task.future = future.is_none() ? py::object() : std::move(future); })
      .def("result", &result)
      .def("details", &details);
}

void register_worker(py::module_& module) {
  py::class_<PoolWorker, std::shared_ptr<PoolWorker>>(module, "PoolWorker")
      .def(py::init([](int device, std::shared_ptr<PyLane> lane, std::optional<int> only_cpu, bool several) {
             auto worker = std::make_shared<PoolWorker>();
             worker->device = device;
             worker->lane = std::move(lane);
             worker->only_cpu = only_cpu.value_or(pool::kNoCpu);
             worker->several = several;
             return worker;
           }),
           py::arg("device"), py::arg("lane"), py::arg("only_cpu") = py::none(), py::arg("several") = false)
      .def_property_readonly("device", [](const PoolWorker& worker) { return worker.device; })
      .def_property_readonly("lane", [](const PoolWorker& worker) { return worker.lane; })
      .def_property_readonly("answered", [](const PoolWorker& worker) { return worker.answered; })
      .def_property_readonly("in_hand", [](const PoolWorker& worker) { return worker.hand.size(); })
      .def_property_readonly("kill_reason", [](const PoolWorker& worker) { return or_none(worker.kill_reason); });
}

std::shared_ptr<Exchange> make_exchange(std::shared_ptr<shm::Bell> bell, int wake_fd, int cores, double spin_us,
                                        std::optional<double> task_timeout, int in_flight, int fewest, int max_attempts,
                                        std::uint64_t random, double hedge) {
  ExchangeOptions options;
  options.scheduler = {in_flight, fewest, max_attempts, hedge, random};
  options.cores = cores;
  options.spin_us = spin_us;
  options.task_timeout_s = task_timeout.value_or(0);
  options.wake_fd = wake_fd;
  return std::make_shared<Exchange>(std::move(bell), options);
}

// Runs feeds that need no note and no conversion, and makes its time the only one in `times`. Returns the outputs; the task, if
// it failed or was answered with an object; None: the feeds need a note or a conversion, or are invalid, and the caller uses
// the general way.
py::object run_plain(Exchange& exchange, const FeedRule& rule, const py::dict& times, py::object feeds) {
  if (!exchange.accepts() || !PyList_CheckExact(feeds.ptr()) || !rule.plain(feeds.ptr())) return py::none();
  const auto task = std::make_shared<PoolTask>();
  task->feeds = std::move(feeds);
  exchange.run(task);
  PyDict_Clear(times.ptr());
  if (task->ran_on != pool::kAnyDevice) {
    py::list one(1);
    one[0] = py::float_(static_cast<double>(task->times.end_to_end) / 1e6);
    if (PyDict_SetItem(times.ptr(), py::int_(task->ran_on).ptr(), one.ptr()) != 0) throw py::error_already_set();
  }
  if (!task->error && task->outputs && task->answer == shm::Kind::kTensors) return task->outputs;
  return py::cast(task);
}

using ExchangeClass = py::class_<Exchange, std::shared_ptr<Exchange>>;

void register_calls(ExchangeClass& exchange) {
  exchange
      .def(
          "start",
          [](Exchange& self, const std::shared_ptr<PoolTask>& task, std::optional<double> timeout) {
            self.start(task, timeout);
          },
          py::arg("task"), py::arg("timeout") = py::none())
      .def("run", &Exchange::run, py::arg("task"))
      .def("run_all", &Exchange::run_all, py::arg("tasks"))
      .def("run_plain", &run_plain, py::arg("rule"), py::arg("times"), py::arg("feeds"))
      .def(
          "cancel", [](Exchange& self, const std::vector<std::shared_ptr<PoolTask>>& tasks) { self.cancel(tasks); },
          py::arg("tasks"))
      .def(
          "fail",
          [](Exchange& self, const std::shared_ptr<PoolTask>& task, py::object error, bool timed_out) {
            self.end(task.get(), timed_out ? Outcome::kTimedOut : Outcome::kFailed, std::move(error), true, true);
          },
          py::arg("task"), py::arg("error"), py::arg("timed_out") = false)
      .def("progress", &Exchange::progress)
      .def("wait", &Exchange::wait_for_change, py::arg("timeout"))
      .def_property_readonly("futures", &Exchange::futures)
      .def_property_readonly("unresolved", &Exchange::unresolved)
      .def("wait_until_idle", &Exchange::wait_until_idle, py::arg("timeout"))
      .def("next_resolved", &Exchange::next_resolved)
      .def("stop_resolving", &Exchange::stop_resolving)
      .def("name_feeds", &Exchange::name_feeds, py::arg("names"))
      .def("new_feeds", &Exchange::new_feeds, py::arg("specs"))
      .def_property_readonly("unfinished", &Exchange::unfinished)
      .def_property_readonly("at_rest", &Exchange::at_rest)
      .def("counts", &Exchange::counts)
      .def("wall_s", &Exchange::wall_s)
      .def("reset_times", &Exchange::reset_times);
}

// Registers the functions for the supervisor.
void register_workers(ExchangeClass& exchange) {
  exchange.def("ring", &Exchange::ring)
      .def("silence", &Exchange::silence)
      .def("add_worker", &Exchange::add_worker, py::arg("worker"))
      .def("retire", &Exchange::retire, py::arg("device"))
      .def("kill_because", &Exchange::kill_because, py::arg("worker"), py::arg("reason"))
      .def("take_to_kill", &Exchange::take_to_kill)
      .def("remove_worker", &Exchange::remove_worker, py::arg("worker"), py::arg("died"))
      .def("overdue", &Exchange::overdue)
      .def("block", &Exchange::block, py::arg("device"), py::arg("make_error"))
      .def("unblock", &Exchange::unblock, py::arg("device"))
      .def("stop_accepting", &Exchange::stop_accepting, py::arg("make_error"))
      .def("set_weight", &Exchange::set_weight, py::arg("device"), py::arg("weight"))
      .def("detach_supervisor", &Exchange::detach_supervisor)
      .def_readwrite("wake_when_idle", &Exchange::wake_when_idle)
      .def("check", [](Exchange& self) { return self.scheduler().check(); });
}

void register_exchange(py::module_& module) {
  ExchangeClass exchange(module, "Exchange");
  exchange.def(py::init(&make_exchange), py::arg("doorbell"), py::kw_only(), py::arg("wake_fd") = -1, py::arg("cores") = 1,
               py::arg("spin_us") = -1.0, py::arg("task_timeout") = py::none(), py::arg("in_flight") = 0, py::arg("fewest") = 2,
               py::arg("max_attempts") = 2, py::arg("random") = 0, py::arg("hedge") = 0.0);
  register_calls(exchange);
  register_workers(exchange);
}

void register_stream(py::module_& module) {
  py::class_<Stream>(module, "Stream")
      .def(py::init([](std::shared_ptr<Exchange> exchange, const py::object& items, py::object make, bool ordered,
                       std::size_t window_items, std::uint64_t window_bytes, std::optional<int> lists,
                       std::shared_ptr<FeedRule> rule) {
             return std::make_unique<Stream>(
                 std::move(exchange), items, std::move(make),
                 StreamOptions{ordered, window_items, window_bytes, lists.value_or(0), lists.has_value(), std::move(rule)});
           }),
           py::arg("exchange"), py::arg("items"), py::arg("make"), py::kw_only(), py::arg("ordered") = true,
           py::arg("window_items") = 4096, py::arg("window_bytes") = std::uint64_t{1} << 30, py::arg("lists") = py::none(),
           py::arg("rule") = py::none())
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__",
           [](Stream& stream) {
             std::shared_ptr<PoolTask> task = stream.next();
             if (task == nullptr) throw py::stop_iteration();
             return task;
           })
      .def("close", &Stream::close);
}

// What a loop calls. pybind11's way costs more than half as much as the rest of a small item's Python.
PyObject* next_result(PyObject* self) {
  try {
    return reinterpret_cast<py::detail::instance*>(self)->get_value_and_holder().value_ptr<Results>()->next();
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    py::detail::try_translate_exceptions();
    return nullptr;
  }
}

void register_results(py::module_& module) {
  py::class_<Results> type(module, "Results", py::is_final());
  type.def(py::init([](py::object stream, py::object answer, std::optional<py::dict> times, Py_ssize_t kept, bool indexed) {
             return std::make_unique<Results>(std::move(stream), std::move(answer),
                                              ResultsOptions{times ? py::object(*times) : py::object(), kept, indexed});
           }),
           py::arg("stream"), py::arg("answer"), py::kw_only(), py::arg("times") = py::none(), py::arg("kept") = 1,
           py::arg("indexed") = false)
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__",
           [](Results& results) {
             PyObject* const result = results.next();
             if (result == nullptr) throw py::stop_iteration();
             return py::reinterpret_steal<py::object>(result);
           })
      .def("close", &Results::close);
  reinterpret_cast<PyTypeObject*>(type.ptr())->tp_iternext = &next_result;  // `__next__` has set another function
}

}  // namespace

void register_pool(py::module_& module) {
  register_task(module);
  register_worker(module);
  register_exchange(module);
  register_stream(module);
  register_results(module);
}

}  // namespace ais::bind
