// The scheduler of csrc/pool for Python code that distributes work: ais_bench.ray, whose workers are nodes.
#include "pool/scheduler.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bind/bind.hpp"

namespace ais::bind {
namespace {

struct ScheduledTask : pool::Task {
  explicit ScheduledTask(py::object content) : value(std::move(content)) {}
  py::object value;  // the caller's object
};

struct ScheduledWorker : pool::Worker {};

// Owns a task until its end, and a worker until it is removed. The GIL is its lock.
class PyScheduler {
 public:
  explicit PyScheduler(const pool::Options& options) : scheduler_(options) { scheduler_.add(&source_); }
  ~PyScheduler() {
    for (const auto& [worker, kept] : workers_) scheduler_.remove(worker);
    scheduler_.take_queued(pool::kAnyDevice);
  }
  PyScheduler(const PyScheduler&) = delete;
  PyScheduler& operator=(const PyScheduler&) = delete;

  std::shared_ptr<ScheduledWorker> add_worker(int device, double weight) {
    auto worker = std::make_shared<ScheduledWorker>();
    worker->device = device;
    worker->weight = weight;
    worker->several = true;
    scheduler_.add(worker.get());
    workers_.emplace(worker.get(), worker);
    return worker;
  }

  std::vector<std::shared_ptr<ScheduledTask>> remove_worker(const std::shared_ptr<ScheduledWorker>& worker) {
    if (workers_.erase(worker.get()) == 0) return {};
    std::vector<std::shared_ptr<ScheduledTask>> orphans;
    for (pool::Task* task : scheduler_.remove(worker.get())) orphans.push_back(tasks_.at(task));
    return orphans;
  }

  void close_worker(const std::shared_ptr<ScheduledWorker>& worker) {
    if (workers_.count(worker.get()) != 0) scheduler_.close(worker.get());
  }

  void add(const std::shared_ptr<ScheduledTask>& task, std::uint32_t kind, int device) {
    if (tasks_.count(task.get()) != 0) raise_if_error(Status(Code::kInvalidArgument, "this task was added before"));
    task->kind = kind;
    task->device = device;
    task->source = &source_;
    tasks_.emplace(task.get(), task);
    scheduler_.add(task.get());
  }

  std::optional<std::pair<std::shared_ptr<ScheduledTask>, std::shared_ptr<ScheduledWorker>>> next(std::int64_t now) {
    pool::Task* task = scheduler_.next(now);
    if (task == nullptr) return std::nullopt;
    scheduler_.sent(task, now);
    return std::pair(tasks_.at(task), workers_.at(task->worker));
  }

  void answered(const std::shared_ptr<ScheduledTask>& task, std::int64_t began, std::int64_t done) {
    check_in_hand(*task);
    scheduler_.answered(task.get(), began, done);
    tasks_.erase(task.get());
  }

  bool lose(const std::shared_ptr<ScheduledTask>& task, bool begun, bool certain) {
    if (tasks_.count(task.get()) == 0 || task->state != pool::TaskState::kOut) {
      raise_if_error(Status(Code::kInvalidArgument, "this task was not lost with a worker"));
    }
    const bool again = scheduler_.lose(task.get(), begun, certain, true);
    if (!again) tasks_.erase(task.get());
    return again;
  }

  void drop(const std::shared_ptr<ScheduledTask>& task) {
    if (tasks_.count(task.get()) == 0) return;
    const bool queued = task->state == pool::TaskState::kQueued;
    scheduler_.drop(task.get());
    if (queued) tasks_.erase(task.get());
  }

  void expect(std::int64_t to_come) { source_.to_come = to_come; }
  std::size_t waiting() const { return scheduler_.waiting(); }
  std::int64_t look_again() const { return scheduler_.look_again(); }
  std::string check() const { return scheduler_.check(); }

 private:
  static void check_in_hand(const ScheduledTask& task) {
    if (task.state != pool::TaskState::kSent) raise_if_error(Status(Code::kInvalidArgument, "no worker has this task"));
  }

  pool::Scheduler scheduler_;
  pool::Source source_;
  std::unordered_map<pool::Worker*, std::shared_ptr<ScheduledWorker>> workers_;
  std::unordered_map<pool::Task*, std::shared_ptr<ScheduledTask>> tasks_;
};

std::size_t in_hand(const ScheduledWorker& worker) { return worker.hand.size(); }

}  // namespace

void register_scheduler(py::module_& module) {
  py::class_<ScheduledTask, std::shared_ptr<ScheduledTask>>(module, "ScheduledTask")
      .def(py::init<py::object>(), py::arg("value"))
      .def_readonly("value", &ScheduledTask::value)
      .def_readonly("crashes", &ScheduledTask::crashes);
  py::class_<ScheduledWorker, std::shared_ptr<ScheduledWorker>>(module, "ScheduledWorker")
      .def_readonly("device", &ScheduledWorker::device)
      .def_property_readonly("in_hand", &in_hand);
  py::class_<PyScheduler>(module, "Scheduler")
      .def(py::init([](int in_flight, int fewest, int max_attempts, std::uint64_t random) {
             pool::Options options;
             options.in_flight = in_flight;
             options.fewest = fewest;
             options.max_attempts = max_attempts;
             options.random = random;
             return std::make_unique<PyScheduler>(options);
           }),
           py::kw_only(), py::arg("in_flight") = 0, py::arg("fewest") = 2, py::arg("max_attempts") = 2, py::arg("random") = 0)
      .def("add_worker", &PyScheduler::add_worker, py::arg("device"), py::arg("weight") = 1.0)
      .def("remove_worker", &PyScheduler::remove_worker, py::arg("worker"))
      .def("close_worker", &PyScheduler::close_worker, py::arg("worker"))
      .def("add", &PyScheduler::add, py::arg("task"), py::arg("kind") = 0, py::arg("device") = pool::kAnyDevice)
      .def("next", &PyScheduler::next, py::arg("now_ns"))
      .def("answered", &PyScheduler::answered, py::arg("task"), py::arg("began_ns"), py::arg("done_ns"))
      .def("lose", &PyScheduler::lose, py::arg("task"), py::arg("begun"), py::arg("certain"))
      .def("drop", &PyScheduler::drop, py::arg("task"))
      .def("expect", &PyScheduler::expect, py::arg("to_come"))
      .def_property_readonly("waiting", &PyScheduler::waiting)
      .def_property_readonly("look_again_ns", &PyScheduler::look_again)
      .def("check", &PyScheduler::check);
}

}  // namespace ais::bind
