// The pool's state, see exchange.hpp.
#include "bind/exchange.hpp"

#include <pybind11/stl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "base/process.hpp"
#include "base/tuning.hpp"
#include "bind/recycling.hpp"
#include "bind/tensor.hpp"

namespace ais::bind {
namespace {

// `make` is a copy, because the code that it runs may replace the original.
[[noreturn]] void raise_made(py::object make) {
  const py::object error = make();
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

// Returns the bytes of the feeds that are plain arrays; other feeds count as 0.
std::uint64_t bytes_of(py::handle feeds) {
  if (!feeds || (!PyList_CheckExact(feeds.ptr()) && !PyTuple_CheckExact(feeds.ptr()))) return 0;
  std::uint64_t bytes = 0;
  PyObject** const items = PySequence_Fast_ITEMS(feeds.ptr());
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(feeds.ptr()); ++i) {
    if (!py::isinstance<py::array>(items[i])) continue;
    bytes += static_cast<std::uint64_t>(py::reinterpret_borrow<py::array>(items[i]).nbytes());
  }
  return bytes;
}

// Returns the feeds with everything that is not an array converted to one. This may run any code, so no place in a worker is
// reserved meanwhile. Arrays that a device cannot take directly stay: they are copied when there is a place for them.
py::object as_arrays(py::object feeds, const FeedNames* names) {
  const auto python = [](const char* name, const auto&... arguments) {
    return in_python([&] { return py::object(py::module_::import("ais_bench.one_device.feeds").attr(name)(arguments...)); });
  };
  if (!PyList_CheckExact(feeds.ptr()) && !PyTuple_CheckExact(feeds.ptr())) {
    feeds = python("to_sequence", feeds, py::list(), py::list());
  }
  const auto good = [](py::handle feed) { return py::isinstance<py::array>(feed) || py::isinstance<PyTensor>(feed); };
  PyObject** const items = PySequence_Fast_ITEMS(feeds.ptr());
  if (std::all_of(items, items + PySequence_Fast_GET_SIZE(feeds.ptr()), good)) return feeds;
  const py::list given(feeds);  // a copy of the list
  py::list arrays;
  for (std::size_t i = 0; i < given.size(); ++i)
    arrays.append(good(given[i]) ? py::object(given[i]) : python("to_array", given[i], feed_label(names, i)));
  return arrays;
}

std::uint32_t logarithm(std::uint64_t bytes) {
  return bytes == 0 ? 0 : 64 - static_cast<std::uint32_t>(__builtin_clzll(bytes));
}

// Returns the error of a task for which no slot can be made.
py::object does_not_fit(const PoolWorker& worker, const PoolTask& task) {
  const std::string text =
      "device " + std::to_string(worker.device) + ": feeds of " + std::to_string(task.bytes) +
      " bytes do not fit the shared memory of its worker, " + std::to_string(worker.lane->lane().region()->size()) +
      " bytes for feeds and outputs, although it is idle; use smaller feeds, drop outputs that are kept, or "
      "raise the limits of the process that made it small (ulimit -v, ulimit -f)";
  return to_exception(Status(Code::kOutOfMemory, text));
}

py::object pool_error(const char* name, const char* text) { return py::module_::import("ais_bench.errors").attr(name)(text); }

}  // namespace

Exchange::Exchange(std::shared_ptr<shm::Bell> bell, const ExchangeOptions& options)
    : options_(options),
      generation_(fork_generation()),
      bell_(std::move(bell)),
      scheduler_(options.scheduler),
      background_(std::make_shared<Waiter>()),
      wake_fd_(options.wake_fd),
      adaptive_(options.scheduler.in_flight == 0) {
  scheduler_.add(&callers_);
  Recycling::prepare();
  ended_call_ =
      py::cpp_function([](const py::object&) { return pool_error("PoolError", "the call that wanted this task has ended"); });
}

Exchange::~Exchange() {
  for (pool::Task* task : scheduler_.take_queued(pool::kAnyDevice)) release(static_cast<PoolTask*>(task));
  for (const std::shared_ptr<PoolWorker>& worker : workers_) {
    for (pool::Task* task : scheduler_.remove(worker.get())) release(static_cast<PoolTask*>(task));
  }
  emptying_ = true;  // the members' destructors drop the remaining objects
}

bool Exchange::forked() const { return fork_generation() != generation_; }

void Exchange::check_owner() const {
  if (forked()) {
    raise_if_error(
        Status(Code::kForkedChild, "this pool belongs to the process that this one was forked from; open a new one here"));
  }
}

// ---- counts ----

void Exchange::rest_if_done() {
  if (outstanding_ > 0) return;
  if (since_ns_ >= 0) {
    wall_ns_ += monotonic_ns() - since_ns_;
    since_ns_ = -1;
  }
  if (wake_when_idle) wake_supervisor();
}

double Exchange::wall_s() const {
  return static_cast<double>(wall_ns_ + (since_ns_ < 0 ? 0 : monotonic_ns() - since_ns_)) / 1e9;
}

void Exchange::reset_times() {
  wall_ns_ = 0;
  since_ns_ = outstanding_ > 0 ? monotonic_ns() : -1;
  retries_.clear();
  lost_.clear();
  accepted_ = outstanding_;  // each accepted task is counted once when it ends, also those in progress
  std::fill(std::begin(outcomes_), std::end(outcomes_), 0);
  taken_back_ = 0;
  hedged_ = hedges_won_ = 0;
}

bool Exchange::at_rest() const { return outstanding_ == 0 && scheduler_.busy() == 0 && streams_.empty(); }

py::dict Exchange::counts() const {
  py::dict counts;
  counts["accepted"] = accepted_;
  for (std::size_t i = 1; i < 6; ++i) counts[kOutcomeNames[i]] = outcomes_[i];
  counts["outstanding"] = outstanding_;
  counts["waiting"] = scheduler_.waiting();
  counts["taken_back"] = taken_back_;
  counts["hedged"] = hedged_;
  counts["hedges_won"] = hedges_won_;
  py::dict retries;
  for (const auto& [device, count] : retries_) retries[py::int_(device)] = count;
  py::dict lost;
  for (const auto& [device, count] : lost_) lost[py::int_(device)] = count;
  counts["retries"] = retries;
  counts["lost"] = lost;
  return counts;
}

void Exchange::wake_supervisor() {
  if (wake_fd_ < 0) return;
  const std::uint64_t one = 1;
  while (::write(wake_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

// ---- the end of a task ----

void Exchange::release(PoolTask* task) {
  if (task->self != nullptr) trash_tasks_.push_back(std::move(task->self));
}

// Call this last in a call that changed the state, because dropping an object may run any code.
void Exchange::empty_trash() {
  if (emptying_) return;
  emptying_ = true;
  while (!trash_.empty() || !trash_tasks_.empty()) {
    trash_.swap(going_);  // both vectors keep their memory
    trash_tasks_.swap(going_tasks_);
    going_.clear();
    going_tasks_.clear();
  }
  emptying_ = false;
}

void Exchange::finish(PoolTask* task, Outcome outcome, py::object outputs, py::object error, bool error_made) {
  if (task->done) {
    trash_.push_back(std::move(outputs));
    trash_.push_back(std::move(error));
    return;
  }
  task->done = true;
  if (task->first) {  // a second run whose answer is not needed
    trash_.push_back(std::move(outputs));
    trash_.push_back(std::move(error));
    if (task->feeds) trash_.push_back(std::move(task->feeds));
    return;
  }
  if (const std::shared_ptr<PoolTask> second = task->second.lock(); second != nullptr && !second->done) drop_run(second.get());
  task->outcome = outcome;
  task->outputs = std::move(outputs);
  task->error = std::move(error);
  task->error_made = error_made;
  if (task->feeds) trash_.push_back(std::move(task->feeds));
  if (task->kept) trash_.push_back(std::move(task->kept));
  ++outcomes_[static_cast<std::size_t>(outcome)];
  --outstanding_;
  if (task->future) {
    --futures_;
    resolved_.push_back(task->shared_from_this());
    if (background_->asleep) background_->gate.ring();
  }
  Waiter* waiter = task->waiter.get();
  ++waiter->finished;
  if (waiter->collects) {
    waiter->bytes -= std::min(waiter->bytes, task->held);
    task->held = task->outputs ? bytes_of(task->outputs) : 0;
    waiter->bytes += task->held;
    if (waiter->unordered) waiter->ready.push_back(task->shared_from_this());
  }
  if (waiter->asleep) waiter->gate.ring();
  rest_if_done();
}

void Exchange::drop_run(PoolTask* task) {
  task->dropped_ns = monotonic_ns();
  const bool queued = task->state == pool::TaskState::kQueued;
  scheduler_.drop(task);
  if (task->state == pool::TaskState::kSent && !take_back(task)) {
    stopping_.push_back({task->weak_from_this(), record_of(task->worker), task->dropped_ns});
    watch(task->dropped_ns + tuning::kEndsItselfNs);
  }
  if (queued) release(task);
  if (task->first) task->done = true;
}

void Exchange::end(PoolTask* task, Outcome outcome, py::object error, bool error_made, bool send_on) {
  const std::shared_ptr<PoolTask> held = task->shared_from_this();
  if (!task->done) {
    drop_run(task);
    if (task->accepted) {
      finish(task, outcome, py::object(), std::move(error), error_made);
    } else {
      task->done = true;
    }
  }
  if (!send_on) return;
  pump();
  empty_trash();
}

void Exchange::cancel(const std::vector<std::shared_ptr<PoolTask>>& tasks, bool send_on) {
  if (forked()) return;
  bool any = false;
  for (const std::shared_ptr<PoolTask>& task : tasks) {
    if (task->done) continue;
    any = true;
    end(task.get(), Outcome::kCancelled, ended_call_, false, false);
  }
  if (!any) return;
  if (send_on) {
    pump();
  } else {
    ring();  // a waiter sends the tasks for which there is room now
  }
  empty_trash();
}

// ---- tasks in ----

const py::object* Exchange::blocked(const PoolTask& task) const {
  const py::object* found = nullptr;
  for (const auto& [device, make] : blocks_) {
    if (!device) return &make;
    if (task.device == *device) found = &make;
  }
  return found;
}

void Exchange::accept(const std::shared_ptr<PoolTask>& task, std::int64_t now) {
  task->self = task;
  task->accepted = true;
  task->accepted_ns = now;
  if (since_ns_ < 0) since_ns_ = now;
  ++outstanding_;
  ++accepted_;
  if (task->future) {
    ++futures_;
    if (background_->asleep) background_->gate.ring();
  }
  if (task->waiter->collects) {
    task->held = task->bytes;
    task->waiter->bytes += task->held;
  }
}

void Exchange::watch(std::int64_t deadline_ns) {
  if (deadline_ns >= next_check_ns_) return;
  next_check_ns_ = 0;
  wake_supervisor();
}

void Exchange::start(const std::shared_ptr<PoolTask>& task, std::optional<double> timeout_s, std::int64_t now) {
  check_owner();
  if (task->accepted || task->done) raise_if_error(Status(Code::kInvalidArgument, "this task was started before"));
  if (const py::object* const refusal = refusal_of(*task)) raise_made(*refusal);
  py::object wrong;
  try {
    task->feeds = as_arrays(std::move(task->feeds), names_of(*task));
  } catch (py::error_already_set& raised) {
    if (!raised.matches(PyExc_Exception)) throw;
    wrong = raised.value();
  }
  if (task->done) return;  // cancelled by code that ran meanwhile
  if (task->accepted) raise_if_error(Status(Code::kInvalidArgument, "this task was started before"));
  if (task->waiter == nullptr) task->waiter = task->future ? background_ : std::make_shared<Waiter>();
  if (task->source == nullptr) task->source = &callers_;
  task->bytes = bytes_of(task->feeds);
  const auto shape = static_cast<std::uint32_t>(task->mode * 4 + static_cast<int>(task->payload)) * 64 + logarithm(task->bytes);
  task->kind = shape * 64 + task->source->salt % 64;
  if (prefer_home_) task->home = home_of(*task);
  accept(task, now != 0 ? now : monotonic_ns());
  if (const py::object* const refusal = refusal_of(*task); wrong || refusal != nullptr) {
    release(task.get());
    if (wrong) {
      finish(task.get(), Outcome::kFailed, py::object(), std::move(wrong));
    } else {
      finish(task.get(), Outcome::kRefused, py::object(), *refusal, false);
    }
    empty_trash();
    return;
  }
  scheduler_.add(task.get());
  if (timeout_s) set_deadline(task, *timeout_s);
  if (options_.task_timeout_s > 0 && next_check_ns_ == pool::kNever) watch(0);
  pump(task->accepted_ns);
  if (task->future && !task->done && !task->taken && task->feeds && task->state != pool::TaskState::kOut)
    keep_feeds(task.get());
  empty_trash();
}

void Exchange::set_deadline(const std::shared_ptr<PoolTask>& task, double timeout_s) {
  const std::int64_t at = monotonic_ns() + static_cast<std::int64_t>(std::min(timeout_s, 1e9) * 1e9);
  if (deadlines_.size() >= prune_at_) {  // most of these tasks are done before their deadlines
    const auto over = [](const Deadline& deadline) {
      const std::shared_ptr<PoolTask> waited = deadline.task.lock();
      return waited == nullptr || waited->done;
    };
    deadlines_.erase(std::remove_if(deadlines_.begin(), deadlines_.end(), over), deadlines_.end());
    std::make_heap(deadlines_.begin(), deadlines_.end(), std::greater<>());
    prune_at_ = 1000 + 2 * deadlines_.size();
  }
  deadlines_.push_back({at, ++order_, task, timeout_s});
  std::push_heap(deadlines_.begin(), deadlines_.end(), std::greater<>());
  watch(at);
}

// Copies the feeds of a queued task, because the caller of a future may reuse its buffers as soon as it has the future.
void Exchange::keep_feeds(PoolTask* task) {
  py::object copy;
  try {
    copy = FeedArrays(task->feeds, nullptr, names_of(*task)).copy();
  } catch (py::error_already_set& wrong) {
    if (!wrong.matches(PyExc_Exception)) throw;
    end(task, Outcome::kFailed, wrong.value(), true, false);
  }
  if (copy && !task->done && task->feeds) {
    trash_.push_back(std::move(task->feeds));
    task->feeds = std::move(copy);
    task->taken = true;
  }
}

// Returns the worker in whose memory the feeds are; null: none.
PoolWorker* Exchange::home_of(const PoolTask& task) const {
  if (!PyList_CheckExact(task.feeds.ptr()) || PyList_GET_SIZE(task.feeds.ptr()) == 0) return nullptr;
  const py::handle first = PyList_GET_ITEM(task.feeds.ptr(), 0);
  if (!py::isinstance<py::array>(first)) return nullptr;
  const auto* data = static_cast<const std::uint8_t*>(py::reinterpret_borrow<py::array>(first).data());
  const auto after = homes_.upper_bound(data);
  if (after == homes_.begin()) return nullptr;
  PoolWorker* const worker = std::prev(after)->second;
  return worker->lane->holds(data) ? worker : nullptr;
}

void Exchange::run(const std::shared_ptr<PoolTask>& task) {
  const std::uint32_t ticket = this->ticket();
  start(task, std::nullopt);
  try {
    std::optional<std::uint32_t> fresh;
    if (task->state == pool::TaskState::kSent) fresh = ticket;  // events before it was sent do not matter
    while (!task->done) {
      wait(task->waiter.get(), 0, shm::kNoDeadline, fresh);
      fresh.reset();
    }
  } catch (...) {
    cancel({task});
    throw;
  }
}

void Exchange::run_all(const std::vector<std::shared_ptr<PoolTask>>& tasks) {
  auto waiter = std::make_shared<Waiter>();
  pool::Source source;
  source.salt = static_cast<std::uint32_t>(++order_);
  stream_begins(&source);
  std::size_t wanted = 0;
  try {
    for (const std::shared_ptr<PoolTask>& task : tasks) {
      if (task->done) continue;
      task->waiter = waiter;
      task->source = &source;
      ++wanted;
      start(task, std::nullopt);
    }
    while (waiter->finished < wanted) wait(waiter.get(), waiter->finished, patience_ns(monotonic_ns()));
  } catch (...) {
    cancel(tasks);
    stream_ends(&source);
    throw;
  }
  stream_ends(&source);
}

py::list Exchange::new_feeds(const std::vector<std::pair<Shape, py::object>>& specs) {
  check_owner();
  prefer_home_ = true;
  std::shared_ptr<PoolWorker> best;
  ++feeds_made_;  // the workers take turns, because a set that another worker runs is copied to it
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    const std::shared_ptr<PoolWorker>& worker = workers_[(feeds_made_ + i) % workers_.size()];
    if (worker->open && (best == nullptr || worker->hand.size() < best->hand.size())) best = worker;
  }
  if (best != nullptr) return best->lane->new_feeds(specs);
  py::list arrays;  // all workers are being restarted; these arrays are copied later
  const py::object empty = py::module_::import("numpy").attr("empty");
  for (const auto& [shape, dtype] : specs) arrays.append(empty(shape, dtype));
  return arrays;
}

// ---- from queues to workers ----

std::shared_ptr<PoolWorker> Exchange::record_of(pool::Worker* worker) {
  return worker == nullptr ? nullptr : static_cast<PoolWorker*>(worker)->shared_from_this();
}

void Exchange::pump(std::int64_t now) {
  if (workers_.empty()) return;
  const int here = current_cpu();
  if (now == 0) now = monotonic_ns();
  const int skip = caller_core(now);
  bool crowded = false;
  for (std::size_t i = 0; scheduler_.full() > 0 && i < workers_.size(); ++i) {
    const std::shared_ptr<PoolWorker>& worker = workers_[i];
    if (!worker->full || !worker->hand.empty()) continue;
    crowded = worker->lane->lane().crowded();  // it makes no progress, and has not skipped the withdrawn tasks
    if (!crowded) scheduler_.set_full(worker.get(), false);
  }
  bool again = true;
  for (int moves = 0; again && moves < 64;) {
    again = false;
    while (pool::Task* next = scheduler_.next(now, skip, here)) {
      if (!send(static_cast<PoolTask*>(next), &now)) break;
    }
    if (pool::Task* task = scheduler_.take_back(now, skip, here)) {
      take_back(static_cast<PoolTask*>(task));
      again = true;
      ++moves;
    }
  }
  look_again_ = scheduler_.look_again();
  if (crowded) look_again_ = std::min(look_again_, now + tuning::kCrowdedNs);
  spread_spin();
}

// Copies the feeds to the task's place in the worker. False: not possible now, so the caller must not try again at once.
bool Exchange::send(PoolTask* task, std::int64_t* now) {
  const std::shared_ptr<PoolTask> held = task->shared_from_this();
  const std::shared_ptr<PoolWorker> worker = record_of(task->worker);
  bool sent = false, lost = false;
  py::object error;
  std::uint64_t number = 0;
  try {
    const py::object feeds = task->feeds ? task->feeds : py::reinterpret_borrow<py::object>(py::tuple());
    FeedArrays arrays(feeds, worker->lane->lane().region().get(), names_of(*task), std::exchange(spare_feeds_, Feeds()));
    if (task->state == pool::TaskState::kPlaced && task->worker == worker.get() && !task->unwanted) {
      sent = worker->lane->send(arrays, task->mode, task->payload, task->option, task, &number, now);
    }
    spare_feeds_ = arrays.take_memory();
  } catch (py::error_already_set& raised) {
    const py::module_ errors = py::module_::import("ais_bench.errors");
    if (raised.matches(errors.attr("TransportError")) || raised.matches(errors.attr("SessionClosed"))) {
      lost = true;
      kill_because(worker, raised.value());
    } else if (raised.matches(PyExc_Exception)) {
      error = raised.value();
    } else {  // an interrupt, in the code of an array-like object
      if (task->state == pool::TaskState::kPlaced && task->worker == worker.get()) {
        scheduler_.not_sent(task);
        if (task->state == pool::TaskState::kOut) release(task);
      }
      throw;
    }
  }
  if (task->state != pool::TaskState::kPlaced || task->worker != worker.get()) return true;  // the worker was removed meanwhile
  if (sent) {
    task->number = number;
    task->begun_seen_ns = 0;
    task->taken = true;
    trash_.push_back(std::move(task->feeds));
    scheduler_.sent(task, *now);
    if (task->unwanted) take_back(task);  // since the copy began
    return true;
  }
  const bool crowded = worker->lane->lane().crowded();
  if (!error && !lost && !crowded && !task->unwanted && worker->hand.size() == 1 && worker->lane->lane().in_flight() == 0) {
    error = does_not_fit(*worker, *task);
  }
  if (error) scheduler_.drop(task);
  scheduler_.not_sent(task);
  if (crowded) scheduler_.set_full(worker.get(), true);
  if (task->state == pool::TaskState::kOut) release(task);
  if (error) {
    finish(task, Outcome::kFailed, py::object(), std::move(error));
    return true;
  }
  if (!task->done && !task->unwanted) {
    const py::object* refusal = blocked(*task);
    if (refusal != nullptr) {  // its last worker was removed meanwhile, and no other one will start
      scheduler_.drop(task);
      release(task);
      finish(task, Outcome::kRefused, py::object(), *refusal, false);
    }
  }
  return true;
}

// Takes a sent task back from its worker, unless the worker has claimed it.
bool Exchange::take_back(PoolTask* task) {
  const std::shared_ptr<PoolWorker> worker = record_of(task->worker);
  std::optional<PyLane::Left> left;
  try {
    if (worker != nullptr) left = worker->lane->withdraw(task->number);
  } catch (py::error_already_set& raised) {
    kill_because(worker, raised.value());
  }
  if (!left || task->worker != worker.get()) {
    scheduler_.not_withdrawn(task);
    return false;
  }
  if (!task->unwanted) {
    ++taken_back_;
    ++task->moved;
    task->feeds = left->feeds;
  }
  trash_.push_back(std::move(left->feeds));
  scheduler_.withdrawn(task);
  if (task->state == pool::TaskState::kOut) release(task);
  return true;
}

// ---- replies ----

std::size_t Exchange::progress() {
  check_owner();
  const std::size_t count = drain();
  pump();
  empty_trash();
  return count;
}

std::size_t Exchange::drain() {
  std::size_t count = 0;
  drained_ticket_ = ticket();
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    if (workers_[i]->hand.empty() || !workers_[i]->lane->lane().may_take()) continue;
    const std::shared_ptr<PoolWorker> worker = workers_[i];
    drain_worker(worker, false, &count);
  }
  return count;
}

// `all`: also the replies of which `may_take` does not know yet, because the worker is dead and rings no more.
bool Exchange::drain_worker(const std::shared_ptr<PoolWorker>& worker, bool all, std::size_t* count) {
  try {
    std::optional<Recycling> recycling;
    PyLane::PyReply answer;
    while (worker->lane->take(&answer)) {
      if (!recycling && worker->lane->lane().in_flight() != 0) recycling.emplace();  // for the next replies
      book(worker, std::move(answer));
      ++*count;
      if (!all && !worker->lane->lane().may_take()) break;
    }
  } catch (py::error_already_set& raised) {
    kill_because(worker, raised.value());
    return false;
  }
  if (adaptive_ && worker->answered >= worker->adapt_at) adapt(worker.get());
  return true;
}

void Exchange::book(const std::shared_ptr<PoolWorker>& worker, PyLane::PyReply answer) {
  auto* task = static_cast<PoolTask*>(answer.task);
  const std::shared_ptr<PoolTask> held = task->self;
  const bool in_hand = task->state == pool::TaskState::kSent && task->worker == worker.get();
  if (task->first) {
    book_second(worker, task, std::move(answer));
    return;
  }
  complete_times(worker.get(), *task, task->accepted_ns, &answer);
  if (in_hand && answer.stopped && (task->unwanted || (answer.feeds && ++task->stops <= tuning::kMostStops))) {
    book_stopped(worker, task, std::move(answer));
    return;
  }
  if (in_hand && answer.feeds) {
    book_fault(worker, task, std::move(answer));
    return;
  }
  const bool failed = answer.kind == shm::Kind::kRaised || answer.kind == shm::Kind::kError;
  worker->cost_ns = answer.times.execute + answer.times.preprocess + answer.times.postprocess + answer.times.copy_out;
  if (!task->done) {
    worker->lane->stats().record(answer.times, failed);
    note(worker.get(), answer, task);
  } else {
    worker->lane->stats().add_busy(answer.times.busy);
  }
  if (in_hand) {
    scheduler_.answered(task, answer.picked_ns, answer.done_ns);
    release(task);
  }
  if (answer.lost) kill_because(worker, answer.error);
  if (failed && answer.kind == shm::Kind::kError) {
    finish(task, Outcome::kFailed, py::object(), std::move(answer.error));
  } else {
    finish(task, failed ? Outcome::kFailed : Outcome::kDone, std::move(answer.outputs), py::object());
  }
}

void Exchange::book_stopped(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::PyReply answer) {
  worker->lane->stats().add_busy(answer.times.busy);
  if (!task->unwanted) {
    trash_.push_back(std::move(task->feeds));
    task->feeds = std::move(answer.feeds);
  }
  trash_.push_back(std::move(answer.feeds));
  trash_.push_back(std::move(answer.error));
  scheduler_.stopped(task);
  if (task->state == pool::TaskState::kOut) release(task);
}

// Adds the times of an answer that only the exchange knows.
void Exchange::complete_times(PoolWorker* worker, const PoolTask& task, std::int64_t accepted_ns, PyLane::PyReply* answer) {
  occupy(worker, *answer);
  const std::int64_t until = task.dropped_ns > 0 ? std::min(task.dropped_ns, answer->done_ns) : answer->done_ns;
  answer->times.busy = busy_ns(worker, answer->picked_ns, std::max(until, answer->picked_ns));
  answer->times.queued += std::max<std::int64_t>(0, answer->begun_ns - accepted_ns);  // the time between is copying
  answer->times.end_to_end = std::max(answer->times.end_to_end, answer->taken_ns - accepted_ns);
}

// Records how the worker used its time for this answer, and before it while the worker had no other task.
void Exchange::occupy(PoolWorker* worker, const PyLane::PyReply& answer) {
  const shm::TaskTimes& times = answer.times;
  const std::int64_t submitted_ns = answer.picked_ns - times.queued;
  const std::int64_t free_ns = std::max(worker->last_done, since_ns_);
  const auto passed = [&](std::int64_t from, std::int64_t to) {
    return std::max<std::int64_t>(0, to - std::max(from, free_ns));
  };
  const std::int64_t queued = passed(submitted_ns, answer.picked_ns);
  const std::int64_t copied = passed(answer.begun_ns, submitted_ns);
  shm::Occupied occupied;
  occupied.queued = queued;
  occupied.copy_in = copied + times.copy_in - (submitted_ns - answer.begun_ns);
  occupied.callables = times.preprocess + times.postprocess;
  occupied.execute = times.execute;
  occupied.copy_out = times.copy_out - (answer.taken_ns - answer.came_ns);
  worker->lane->stats().occupy(occupied, queued + copied);
}

void Exchange::note(const PoolWorker* worker, const PyLane::PyReply& answer, PoolTask* task) {
  task->ran_on = worker->device;
  task->answer = answer.kind;
  task->times = answer.times;
  task->picked_ns = answer.picked_ns;
  task->done_ns = answer.done_ns;
}

// The first answer counts, unless it is an error of the second run: the first one may still succeed.
void Exchange::book_second(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::PyReply answer) {
  PoolTask* const first = task->first.get();
  const std::shared_ptr<PoolTask> held = task->first;
  complete_times(worker.get(), *task, first->accepted_ns, &answer);
  const bool failed = answer.kind == shm::Kind::kRaised || answer.kind == shm::Kind::kError;
  const bool won = !task->done && !first->done && !failed;
  if (task->state == pool::TaskState::kSent && task->worker == worker.get()) {
    if (answer.stopped) {
      scheduler_.drop(task);
      scheduler_.stopped(task);
    } else if (answer.feeds) {
      scheduler_.drop(task);
      scheduler_.faulted(task);
    } else {
      scheduler_.answered(task, answer.picked_ns, answer.done_ns);
    }
    release(task);
  }
  task->done = true;
  if (answer.lost) kill_because(worker, answer.error);
  trash_.push_back(std::move(answer.feeds));
  if (!won) {
    worker->lane->stats().add_busy(answer.times.busy);
    trash_.push_back(std::move(answer.outputs));
    trash_.push_back(std::move(answer.error));
    return;
  }
  worker->lane->stats().record(answer.times, false);
  ++hedges_won_;
  drop_run(first);
  note(worker.get(), answer, first);
  finish(first, Outcome::kDone, std::move(answer.outputs), py::object());
}

std::int64_t Exchange::hedge(PoolTask* task) {
  if (task->done || task->first || !task->second.expired() || task->state != pool::TaskState::kSent) return pool::kNever;
  const std::int64_t now = monotonic_ns();
  std::int64_t look_again = pool::kNever;
  if (!scheduler_.hedge(*task, now, &look_again, caller_core(now))) return look_again;
  const std::shared_ptr<PoolTask> held = task->shared_from_this();
  const std::shared_ptr<PoolWorker> worker = record_of(task->worker);
  auto second = std::make_shared<PoolTask>();
  try {
    second->feeds = worker->lane->copy_feeds(task->number);
  } catch (py::error_already_set& raised) {
    kill_because(worker, raised.value());
  }
  if (!second->feeds || task->done || task->state != pool::TaskState::kSent) return pool::kNever;
  second->mode = task->mode;
  second->payload = task->payload;
  second->option = task->option;
  second->index = task->index;
  second->kind = task->kind;
  second->bytes = task->bytes;
  second->source = task->source;
  second->avoid = worker->device;
  second->waiter = task->waiter;
  second->first = held;
  second->self = second;
  second->accepted = true;
  second->accepted_ns = now;
  task->second = second;
  ++hedged_;
  scheduler_.add(second.get());
  pump();
  empty_trash();
  return pool::kNever;
}

void Exchange::book_fault(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::PyReply answer) {
  const int device = worker->device;
  task->ran_on = device;
  if (!task->done) {
    trash_.push_back(std::move(task->feeds));
    task->feeds = std::move(answer.feeds);
  }
  const bool again = answer.retry ? scheduler_.raised(task, answer.picked_ns, answer.done_ns) : scheduler_.faulted(task);
  if (!answer.retry && scheduler_.others_work(device)) {
    for (const std::shared_ptr<PoolWorker>& one : workers_) {
      if (one->device == device && one->faults >= tuning::kFaultsInARow) kill_because(one, answer.error);
    }
  }
  if (again || task->done) worker->lane->stats().add_busy(answer.times.busy);
  if (again) {
    ++retries_[device];
    return;
  }
  release(task);
  if (!task->done) {
    worker->lane->stats().record(answer.times, true);
    note(worker.get(), answer, task);
  }
  if (answer.retry) {
    finish(task, Outcome::kFailed, std::move(answer.outputs), py::object());
  } else {
    finish(task, Outcome::kFailed, py::object(), std::move(answer.error));
  }
}

// Returns the part of an interval in which the worker was busy and that was not counted before.
std::int64_t Exchange::busy_ns(PoolWorker* worker, std::int64_t from, std::int64_t to) {
  auto& covered = worker->covered;
  if (covered.empty() || from > covered.back().second) {  // the usual case: one task at a time, in order
    if (covered.size() >= tuning::kCoveredKept) covered.erase(covered.begin());
    covered.emplace_back(from, to);
    return to - from;
  }
  std::int64_t fresh = to - from;
  std::pair<std::int64_t, std::int64_t> whole{from, to};
  for (std::size_t i = 0; i < covered.size();) {
    if (covered[i].second < from || covered[i].first > to) {
      ++i;
      continue;
    }
    fresh -= std::max<std::int64_t>(0, std::min(covered[i].second, to) - std::max(covered[i].first, from));
    whole = {std::min(whole.first, covered[i].first), std::max(whole.second, covered[i].second)};
    covered.erase(covered.begin() + static_cast<std::ptrdiff_t>(i));
  }
  covered.insert(std::upper_bound(covered.begin(), covered.end(), whole), whole);
  if (covered.size() > tuning::kCoveredKept) covered.erase(covered.begin());
  return std::max<std::int64_t>(0, fresh);
}

// ---- short tasks: naps and spinning ----

void Exchange::adapt(PoolWorker* worker) {
  worker->adapt_at = worker->answered + tuning::kAdaptEvery;
  const bool many = tuning::kWorkInHandNs / (worker->cost_ns + 1) >= tuning::kManyInHand - 2;
  const bool naps = !streams_.empty() && many;
  if (naps != worker->naps) let_nap(worker, naps);
}

void Exchange::let_nap(PoolWorker* worker, bool naps) {
  worker->naps = naps;
  worker->lane->lane().set_nap_ns(naps ? static_cast<std::uint32_t>(tuning::kNapNs) : 0);
}

bool Exchange::full_of_short_tasks() {
  const int skip = caller_core(monotonic_ns());
  for (const std::shared_ptr<PoolWorker>& worker : workers_) {
    if (worker->open && (skip == pool::kNoCpu || worker->only_cpu != skip) &&
        worker->hand.size() < static_cast<std::size_t>(tuning::kManyInHand)) {
      return false;
    }
  }
  return !workers_.empty();
}

// Returns the processor of a stream's caller, if the workers on other processors are as fast as the caller: a worker that is
// pinned to the caller's processor would only take time from the caller.
int Exchange::caller_core(std::int64_t now) {
  if (streams_.empty()) return pool::kNoCpu;
  if (now < look_around_ns_) return caller_core_;
  look_around_ns_ = now + tuning::kStayNs;
  const int here = current_cpu();
  const auto enough = tuning::kShortTaskNs * static_cast<std::int64_t>(workers_.size() - 1);
  bool quick = false;
  for (const std::shared_ptr<PoolWorker>& worker : workers_) {
    const bool at_work = worker->answered > worker->seen;
    worker->seen = worker->answered;
    quick = quick || (at_work && worker->open && worker->only_cpu != here && worker->cost_ns <= enough);
  }
  return caller_core_ = quick ? here : pool::kNoCpu;
}

std::int64_t Exchange::caller_spin_ns() const {
  if (options_.spin_us >= 0) return static_cast<std::int64_t>(options_.spin_us * 1000);
  if (scheduler_.busy() >= options_.cores) return 0;
  return scheduler_.busy_at(current_cpu()) > 0 ? 0 : tuning::kAutoSpinNs;
}

// Lets workers spin while a processor is free for it. One free moment of a busy machine does not switch it on again.
void Exchange::spread_spin() {
  const int busy = scheduler_.busy();
  const bool spins = busy < options_.cores - (spins_ ? 0 : std::max(0, options_.cores / 8 - 1));
  if (options_.spin_us >= 0 || spins == spins_) return;
  spins_ = spins;
  for (const std::shared_ptr<PoolWorker>& worker : workers_) {
    worker->lane->lane().set_spin_ns(spins ? static_cast<std::uint32_t>(tuning::kAutoSpinNs) : 0);
  }
}

void Exchange::stream_begins(pool::Source* source) {
  scheduler_.add(source);
  streams_.push_back(source);
}

void Exchange::stream_ends(pool::Source* source) {
  const auto found = std::find(streams_.begin(), streams_.end(), source);
  if (found == streams_.end()) return;
  streams_.erase(found);
  scheduler_.remove(source);
  if (!streams_.empty()) return;
  for (const std::shared_ptr<PoolWorker>& worker : workers_) {
    if (worker->naps) let_nap(worker.get(), false);
  }
}

// ---- waiting ----

void Exchange::promote() {
  if (leader_ == nullptr && !followers_.empty()) followers_.front()->gate.ring();
}

// A stream leads for as long as it can: it gathers replies, and a follower would be woken for each.
bool Exchange::has_led_enough(const Waiter& waiter) const {
  return led_ >= tuning::kLeadsInARow && led_by_ == std::this_thread::get_id() && !followers_.empty() && !waiter.collects &&
         !waiter.for_any_change;
}

void Exchange::wait(Waiter* waiter, std::uint64_t seen, std::int64_t deadline_ns, std::optional<std::uint32_t> ticket) {
  check_owner();
  if (waiter->finished != seen) return;
  if (leader_ == nullptr && !has_led_enough(*waiter)) {
    lead(waiter, seen, deadline_ns, ticket);
    return;
  }
  promote();
  if (leader_ == background_.get()) ring();
  const std::uint32_t gate = waiter->gate.ticket();
  waiter->asleep = true;
  followers_.push_back(waiter);
  shm::Wake wake;
  {
    const NoGil release;
    wake = waiter->gate.wait(gate, deadline_ns, 0);
  }
  followers_.erase(std::find(followers_.rbegin(), followers_.rend(), waiter).base() - 1);
  waiter->asleep = false;
  if (leader_ == nullptr) {
    // This waiter may have been promoted to leader. It leads, or promotes another waiter, because its caller may not wait
    // again. A waiter for any change always promotes another one, because the change may have happened.
    if (waiter->finished == seen && wake == shm::Wake::kRung && !waiter->for_any_change) {
      lead(waiter, seen, deadline_ns, std::nullopt);
      return;
    }
    promote();
  }
  if (wake == shm::Wake::kInterrupted && PyErr_CheckSignals() != 0) throw py::error_already_set();
}

void Exchange::lead(Waiter* waiter, std::uint64_t seen, std::int64_t deadline_ns, std::optional<std::uint32_t> ticket) {
  struct Lead {
    Lead(Exchange* exchange, Waiter* waiter) : exchange_(exchange) { exchange_->leader_ = waiter; }
    ~Lead() { end(); }
    void end() {
      if (exchange_ == nullptr) return;
      exchange_->leader_ = nullptr;
      exchange_->promote();
      exchange_ = nullptr;
    }
    Exchange* exchange_;
  } leading(this, waiter);
  const std::thread::id self = std::this_thread::get_id();
  led_ = led_by_ == self ? led_ + 1 : 1;
  led_by_ = self;
  if (!ticket) {
    ticket = this->ticket();
    if (drain() > 0 || waiter->finished != seen) {
      pump();
      leading.end();
      empty_trash();
      return;
    }
    pump();
  }
  if (look_again_ != pool::kNever) {
    deadline_ns = deadline_ns == shm::kNoDeadline ? std::max<std::int64_t>(1, look_again_)
                                                  : std::min(deadline_ns, std::max<std::int64_t>(1, look_again_));
  }
  const std::int64_t spin_ns = waiter == background_.get() ? 0 : caller_spin_ns();
  const std::shared_ptr<shm::Bell> bell = bell_;  // silence() may reset the member meanwhile
  shm::Wake wake = shm::Wake::kRung;
  {
    const NoGil release;
    if (bell != nullptr) wake = bell->doorbell().wait(*ticket, deadline_ns, spin_ns);
  }
  drain();
  pump();
  leading.end();
  empty_trash();
  if (wake == shm::Wake::kInterrupted && PyErr_CheckSignals() != 0) throw py::error_already_set();
}

void Exchange::ring() {
  if (bell_ != nullptr) bell_->doorbell().ring();
}

void Exchange::silence() { bell_.reset(); }

std::uint32_t Exchange::ticket() const { return bell_ == nullptr ? 0 : bell_->doorbell().ticket(); }

void Exchange::wait_for_change(double timeout_s) {
  const auto waiter = std::make_shared<Waiter>();
  waiter->for_any_change = true;
  wait(waiter.get(), 0, monotonic_ns() + static_cast<std::int64_t>(std::min(timeout_s, 1e9) * 1e9));
}

bool Exchange::wait_until_idle(double timeout_s) {
  const auto waiter = std::make_shared<Waiter>();
  waiter->for_any_change = true;
  const std::int64_t deadline = monotonic_ns() + static_cast<std::int64_t>(std::min(timeout_s, 1e9) * 1e9);
  while (outstanding_ > 0) {
    if (monotonic_ns() >= deadline) return false;
    wait(waiter.get(), 0, deadline);
  }
  return true;
}

std::shared_ptr<PoolTask> Exchange::next_resolved() {
  Waiter* waiter = background_.get();
  calling_ = false;
  while (true) {
    if (!resolved_.empty()) {
      std::shared_ptr<PoolTask> task = std::move(resolved_.front());
      resolved_.pop_front();
      calling_ = true;
      return task;
    }
    if (!resolving_) return nullptr;
    if (futures_ > 0 && leader_ == nullptr && followers_.empty()) {
      lead(waiter, waiter->finished, shm::kNoDeadline, std::nullopt);
      continue;
    }
    const std::uint32_t gate = waiter->gate.ticket();
    waiter->asleep = true;
    {
      const std::int64_t deadline = futures_ > 0 ? monotonic_ns() + tuning::kStandByNs : shm::kNoDeadline;
      const NoGil release;
      waiter->gate.wait(gate, deadline, 0);
    }
    waiter->asleep = false;
  }
}

void Exchange::stop_resolving() {
  resolving_ = false;
  background_->gate.ring();
  ring();
}

// ---- workers ----

void Exchange::add_worker(const std::shared_ptr<PoolWorker>& worker) {
  const auto weight = weights_.find(worker->device);
  if (weight != weights_.end()) worker->weight = weight->second;
  worker->lane->lane().set_spin_ns(options_.spin_us >= 0 ? static_cast<std::uint32_t>(options_.spin_us * 1000)
                                   : spins_              ? static_cast<std::uint32_t>(tuning::kAutoSpinNs)
                                                         : 0);
  workers_.push_back(worker);
  homes_.emplace(worker->lane->lane().region()->data(), worker.get());
  scheduler_.add(worker.get());
  unblock(worker->device);
  look_around_ns_ = 0;
  pump();
  ring();
  empty_trash();
}

void Exchange::retire(int device) {
  const std::vector<std::shared_ptr<PoolWorker>> workers = workers_;
  // Finish the tasks that were accepted for this device only, because no other device can take them.
  for (bool more = true; more;) {
    more = false;
    for (const std::shared_ptr<PoolWorker>& worker : workers) {
      if (worker->device != device || !worker->open) continue;
      pool::Task* task = scheduler_.next_for(worker.get());
      std::int64_t now = monotonic_ns();
      if (task != nullptr) more = send(static_cast<PoolTask*>(task), &now) || more;
    }
  }
  for (const std::shared_ptr<PoolWorker>& worker : workers) {
    if (worker->device == device && !worker->gone) scheduler_.close(worker.get());
  }
  empty_trash();
}

void Exchange::kill_because(const std::shared_ptr<PoolWorker>& worker, py::object reason) {
  if (worker->gone || (!worker->open && worker->kill_reason)) return;
  scheduler_.close(worker.get());
  worker->kill_reason = std::move(reason);
  to_kill_.push_back(worker);
  wake_supervisor();
}

std::vector<std::shared_ptr<PoolWorker>> Exchange::take_to_kill() { return std::exchange(to_kill_, {}); }

py::object Exchange::remove_worker(const std::shared_ptr<PoolWorker>& worker, const py::object& died) {
  std::size_t count = 0;
  drain_worker(worker, true, &count);
  std::vector<PyLane::Left> left = worker->lane->abandon();
  const std::vector<pool::Task*> orphans = scheduler_.remove(worker.get());
  worker->gone = true;
  homes_.erase(worker->lane->lane().region()->data());
  workers_.erase(std::find(workers_.begin(), workers_.end(), worker));
  caller_core_ = pool::kNoCpu;
  look_around_ns_ = 0;
  // The task that the worker ran: the first one, if any, because the others only waited; or any of those that it had claimed.
  const auto struck = [&](const PyLane::Left& one) { return one.taken && (&one == &left.front() || worker->several); };
  const bool certain = std::count_if(left.begin(), left.end(), struck) == 1;
  std::optional<int> explained;
  std::uint64_t again = 0;
  // In reverse order: each task goes to the front of its queue, so the order is kept.
  for (auto orphan = orphans.rbegin(); orphan != orphans.rend(); ++orphan) {
    auto* task = static_cast<PoolTask*>(*orphan);
    const std::shared_ptr<PoolTask> held = task->shared_from_this();
    const auto found = std::find_if(left.begin(), left.end(), [&](const PyLane::Left& one) { return one.task == task; });
    if (found != left.end() && !task->done) {
      trash_.push_back(std::move(task->feeds));
      task->feeds = std::move(found->feeds);
    }
    if (task->first && !task->done) {
      task->done = true;
      release(task);
      continue;
    }
    if (task->done) {  // the worker was killed because this task exceeded its time limit
      if (found != left.end() && found == left.begin()) explained = task->crashes;
      release(task);
      continue;
    }
    const bool begun = found != left.end() && struck(*found);
    const bool readable = found == left.end() || task->feeds;
    if (scheduler_.lose(task, begun, certain, readable)) {
      const py::object* refusal = blocked(*task);
      if (refusal == nullptr) {
        ++again;
        continue;
      }
      scheduler_.drop(task);
      release(task);
      finish(task, Outcome::kRefused, py::object(), *refusal, false);
      continue;
    }
    release(task);
    ++lost_[worker->device];
    finish(task, Outcome::kFailed, py::object(), died, false);
    if (begun && task->crashes > 1) explained = task->crashes - 1;
  }
  if (again > 0) retries_[worker->device] += again;
  pump();
  ring();
  empty_trash();
  return explained ? py::cast(*explained) : py::none();
}

// Returns when to check again.
std::int64_t Exchange::look_at_stopping(std::int64_t now, py::list* stops, py::list* late) {
  std::int64_t later = pool::kNever;
  for (std::size_t i = 0; i < stopping_.size();) {
    const std::shared_ptr<PoolTask> task = stopping_[i].task.lock();
    const std::shared_ptr<PoolWorker> worker = stopping_[i].worker.lock();
    if (task == nullptr || worker == nullptr || task->state != pool::TaskState::kSent || task->worker != worker.get()) {
      stopping_[i] = std::move(stopping_.back());
      stopping_.pop_back();
      continue;
    }
    const std::int64_t since = stopping_[i].since_ns;
    if (now < since + tuning::kEndsItselfNs) {
      later = std::min(later, since + tuning::kEndsItselfNs);
    } else if (task->outcome == Outcome::kTimedOut && now >= since + tuning::kToldLongAgoNs) {
      late->append(py::make_tuple(worker, task, false, static_cast<double>(now - since) / 1e9));
    } else if (take_back(task.get())) {  // its outputs did not fit, and it would have run again
      continue;
    } else {
      if (const auto seq = worker->lane->lane().seq_of(task->number)) stops->append(py::make_tuple(worker, *seq));
      later = std::min(later, now + tuning::kTellAgainNs);
    }
    ++i;
  }
  return later;
}

// For a worker that runs several tasks at a time. Its answers give no information about its other tasks, so each task is timed
// from the first check at which it has begun. Returns when to check again.
std::int64_t Exchange::look_at_several(const std::shared_ptr<PoolWorker>& worker, std::int64_t now, py::list* late) {
  const auto limit = static_cast<std::int64_t>(options_.task_timeout_s * 1e9);
  std::int64_t later = now + limit / 4;
  for (pool::Task* one = worker->hand.first(); one != nullptr; one = one->next) {
    auto* task = static_cast<PoolTask*>(one);
    if (task->state != pool::TaskState::kSent || !worker->lane->lane().claimed(task->number)) continue;
    if (task->begun_seen_ns == 0) task->begun_seen_ns = now;
    const std::int64_t due = task->begun_seen_ns + limit;
    later = std::min(later, due);
    if (due > now) continue;
    late->append(py::make_tuple(worker, task->shared_from_this(), true, static_cast<double>(now - task->begun_seen_ns) / 1e9));
    return pool::kNever;  // the worker is killed, and the others run elsewhere
  }
  return later;
}

py::tuple Exchange::overdue() {
  drain();
  const std::int64_t now = monotonic_ns();
  const auto limit = static_cast<std::int64_t>(options_.task_timeout_s * 1e9);
  py::list missed;
  while (!deadlines_.empty()) {
    const std::shared_ptr<PoolTask> task = deadlines_.front().task.lock();
    const bool over = task == nullptr || task->done;
    if (!over && deadlines_.front().at_ns > now) break;
    std::pop_heap(deadlines_.begin(), deadlines_.end(), std::greater<>());
    const Deadline deadline = std::move(deadlines_.back());
    deadlines_.pop_back();
    if (over) continue;
    const double took = deadline.timeout_s + static_cast<double>(now - deadline.at_ns) / 1e9;
    missed.append(py::make_tuple(task, deadline.timeout_s, took));
  }
  py::list stops;
  py::list late;
  std::int64_t later = deadlines_.empty() ? pool::kNever : deadlines_.front().at_ns;
  later = std::min(later, look_at_stopping(now, &stops, &late));
  for (std::size_t i = 0; limit > 0 && i < workers_.size(); ++i) {
    const std::shared_ptr<PoolWorker> worker = workers_[i];
    if (worker->hand.empty()) continue;
    if (worker->several) {
      later = std::min(later, look_at_several(worker, now, &late));
      continue;
    }
    Result<std::optional<shm::Lane::Oldest>> oldest = worker->lane->lane().oldest();
    if (!oldest.ok()) continue;
    const std::optional<shm::Lane::Oldest>& at = oldest.value();
    if (!at) continue;
    const std::shared_ptr<PoolTask> task = static_cast<PoolTask*>(at->task)->shared_from_this();
    if (at->since_ns + limit <= now) {
      late.append(py::make_tuple(worker, task, true, static_cast<double>(now - at->since_ns) / 1e9));
    } else {
      later = std::min(later, at->since_ns + limit);
    }
  }
  if (limit > 0 && outstanding_ > 0 && later == pool::kNever) later = now + limit;
  next_check_ns_ = later;
  pump();
  ring();
  py::object pause = py::none();
  if (later != pool::kNever) pause = py::float_(std::max(0.0, static_cast<double>(later - monotonic_ns()) / 1e9));
  empty_trash();
  return py::make_tuple(missed, late, stops, pause);
}

// ---- who gets in ----

void Exchange::block(std::optional<int> device, const py::object& make_error) {
  unblock(device);
  blocks_.emplace_back(device, make_error);
  for (pool::Task* one : scheduler_.take_queued(device ? *device : pool::kAnyDevice)) {
    auto* task = static_cast<PoolTask*>(one);
    const std::shared_ptr<PoolTask> held = task->shared_from_this();
    release(task);
    finish(task, Outcome::kRefused, py::object(), make_error, false);
  }
  ring();
  empty_trash();
}

void Exchange::unblock(std::optional<int> device) {
  const auto found = std::find_if(blocks_.begin(), blocks_.end(), [&](const auto& one) { return one.first == device; });
  if (found == blocks_.end()) return;
  trash_.push_back(std::move(found->second));
  blocks_.erase(found);
}

void Exchange::stop_accepting(const py::object& make_error) { closed_error_ = make_error; }

}  // namespace ais::bind
