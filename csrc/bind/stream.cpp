// The stream's loop, see stream.hpp.
#include "bind/stream.hpp"

#include <time.h>

#include <algorithm>
#include <utility>

#include "base/process.hpp"
#include "base/tuning.hpp"

namespace ais::bind {
Stream::Stream(std::shared_ptr<Exchange> exchange, const py::object& items, py::object make, const StreamOptions& options)
    : exchange_(std::move(exchange)),
      items_(py::reinterpret_steal<py::object>(PyObject_GetIter(items.ptr()))),
      make_(std::move(make)),
      options_(options),
      waiter_(std::make_shared<Waiter>()) {
  if (!items_) throw py::error_already_set();
  waiter_->collects = true;
  waiter_->unordered = !options_.ordered;
  static std::uint32_t streams = 0;
  source_.salt = ++streams;
  source_.to_come = pool::Source::kEndless;
  // Only built-in iterators are asked for their length, because the method of another one may run any code.
  if ((Py_TYPE(items_.ptr())->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 && !PyGen_Check(items_.ptr())) {
    const Py_ssize_t left = PyObject_LengthHint(items_.ptr(), -1);
    if (left >= 0) expected_items_ = source_.to_come = left;
    PyErr_Clear();
  }
}

Stream::~Stream() { end(false); }

void Stream::close() { end(true); }

void Stream::end(bool send_on) {
  open_ = false;
  ended_ = true;
  if (exchange_->forked()) return;
  const std::vector<std::shared_ptr<PoolTask>> left(under_way_.begin(), under_way_.end());
  under_way_.clear();
  waiter_->collects = false;
  waiter_->ready.clear();
  exchange_->cancel(left, send_on);
  if (begun_) exchange_->stream_ends(&source_);
  begun_ = false;
}

bool Stream::ready() const {
  return options_.ordered ? !under_way_.empty() && under_way_.front()->done : !waiter_->ready.empty();
}

std::shared_ptr<PoolTask> Stream::take() {
  std::shared_ptr<PoolTask> task;
  if (options_.ordered) {
    task = std::move(under_way_.front());
    under_way_.pop_front();
  } else {
    task = std::move(waiter_->ready.front());
    waiter_->ready.pop_front();
    under_way_.erase(std::find(under_way_.begin(), under_way_.end(), task));
  }
  waiter_->bytes -= std::min(waiter_->bytes, task->held);
  fetched_ += task->accepted;
  if (latest_ == task) latest_.reset();
  return task;
}

// Returns whether enough finished results wait for the caller. Without this limit each call would draw more items than it
// returns, and the number of waiting results would grow up to the window.
bool Stream::enough_ready() const {
  const std::uint64_t unfetched = waiter_->finished - fetched_;
  const std::size_t workers = exchange_->scheduler().workers().size();
  if (waiter_->bytes > tuning::kReadyBytes) return unfetched >= workers;
  return unfetched >= tuning::kReadyForTheCaller + 2 * workers;
}

bool Stream::may_draw() {
  if (!open_) return false;
  if (under_way_.empty()) return true;
  if (latest_ != nullptr && !latest_->taken && !latest_->done) return false;
  const std::uint64_t next = latest_ != nullptr ? latest_->bytes : 0;
  if (under_way_.size() >= options_.window_items || waiter_->bytes + next > options_.window_bytes) return false;
  return exchange_->scheduler().wants_more(source_);
}

// Whether the item is the feeds of a task, for which no code of the caller runs.
bool Stream::is_feeds(py::handle item) const {
  return options_.lists && PyList_CheckExact(item.ptr()) && (options_.rule == nullptr || options_.rule->plain(item.ptr()));
}

std::shared_ptr<PoolTask> Stream::make_task(py::object item) {
  std::shared_ptr<PoolTask> task;
  try {
    task = make_(std::move(item), index_).cast<std::shared_ptr<PoolTask>>();
  } catch (py::error_already_set& raised) {  // the error belongs to this item only
    if (!raised.matches(PyExc_Exception)) throw;
    task = std::make_shared<PoolTask>();
    task->index = index_;
    task->error = raised.value();
    task->done = true;
    task->outcome = Outcome::kFailed;
  }
  return task;
}

void Stream::draw() {
  const std::int64_t began = monotonic_ns();
  py::object item = py::reinterpret_steal<py::object>(in_python([&] { return PyIter_Next(items_.ptr()); }));
  if (ended_) return;  // the source closed this very stream
  if (!item) {
    open_ = false;
    source_.to_come = 0;
    if (PyErr_Occurred() == nullptr) return;
    py::error_already_set raised;
    if (!raised.matches(PyExc_Exception)) throw raised;
    error_ = raised.value();
    return;
  }
  learn(began, monotonic_ns());
  std::shared_ptr<PoolTask> task;
  std::int64_t now = 0;
  if (is_feeds(item)) {
    task = std::make_shared<PoolTask>();
    task->feeds = std::move(item);
    task->mode = options_.mode;
    task->index = index_;
    now = drawn_at_;
  } else {
    task = make_task(std::move(item));
  }
  ++index_;
  if (expected_items_ >= 0) source_.to_come = std::max<std::int64_t>(0, expected_items_ - index_);
  if (ended_) return;
  under_way_.push_back(task);
  latest_ = task;
  if (task->done) {
    if (!options_.ordered) waiter_->ready.push_back(task);
    return;
  }
  task->waiter = waiter_;
  task->source = &source_;
  try {
    exchange_->start(task, std::nullopt, now);
  } catch (py::error_already_set& raised) {
    drop_refused(task);
    if (task->accepted || ended_ || !raised.matches(PyExc_Exception)) throw;
    // The pool accepts no more tasks. The results of the earlier items come first.
    open_ = false;
    source_.to_come = 0;
    error_ = raised.value();
  } catch (...) {
    drop_refused(task);
    throw;
  }
}

// Drops the newest task if the pool did not accept it.
void Stream::drop_refused(const std::shared_ptr<PoolTask>& task) {
  if (!under_way_.empty() && under_way_.back() == task && !task->accepted) under_way_.pop_back();
}

// Updates the estimates of the source after a draw.
void Stream::learn(std::int64_t began, std::int64_t ended) {
  draw_ns_ = ended - began;
  if (drawn_at_ > 0) {
    const std::int64_t between = ended - drawn_at_;
    interval_ns_ = interval_ns_ == 0 ? between : interval_ns_ + (between - interval_ns_) / 4;
  }
  if (paused_ns_ > std::max(tuning::kSlowDrawNs, usual_ns_ / 3)) {
    // A live source continued during the pause.
    const bool paid = draw_ns_ < usual_ns_ - paused_ns_ / 2;
    live_ = std::clamp(live_ + (paid ? 1 : -2), -2, 4);
    if (live_ <= 0) try_again_ = index_ + tuning::kTryPauseEvery;
  } else {
    usual_ns_ = usual_ns_ == 0 ? draw_ns_ : usual_ns_ + (draw_ns_ - usual_ns_) / 4;
  }
  paused_ns_ = 0;
  drawn_at_ = ended;
}

// Waits for a result before a slow draw; returns whether it did. Until the next item of a live source is due, the wait costs
// nothing. Before another draw it may take a small part of the draw's time, because most results of short tasks arrive in it.
// If they do not, the stream makes no such pause for a while.
bool Stream::pause(std::int64_t now) {
  if (drawn_at_ == 0 || usual_ns_ < tuning::kSlowDrawNs) return false;
  const bool try_live = live_ > 0 || index_ >= try_again_;
  std::int64_t until = drawn_at_ + usual_ns_ / tuning::kPartOfADraw;
  if (index_ < wait_again_) until = 0;
  if (try_live) until = std::max(until, drawn_at_ + interval_ns_ - interval_ns_ / 16);
  if (now >= until) {
    if (!try_live && index_ >= wait_again_ && ++missed_ >= tuning::kMissesInARow) wait_again_ = index_ + tuning::kTryPauseEvery;
    return false;
  }
  exchange_->wait(waiter_.get(), waiter_->finished, until);
  paused_ns_ += monotonic_ns() - now;
  if (ready()) missed_ = 0;
  return true;
}

// Waits for several short replies, because a wake-up costs as much as several of them.
void Stream::wait() {
  const std::uint64_t seen = waiter_->finished;
  if (exchange_->full_of_short_tasks()) {
    const bool others = exchange_->others_wait();
    const std::size_t count = exchange_->progress();
    if (count >= tuning::kEnoughToGoOn) {
      if (others) {
        const NoGil release;  // otherwise waiting threads would get it only every 5 ms
      }
      return;
    }
    if (waiter_->finished != seen) return;
    const NoGil release;
    const timespec nap{0, tuning::kNapNs};
    nanosleep(&nap, nullptr);
  }
  std::int64_t until = exchange_->patience_ns(monotonic_ns());
  if (options_.ordered && exchange_->hedges()) {
    const std::shared_ptr<PoolTask> front = under_way_.front();  // it delays the others
    const std::int64_t look = exchange_->hedge(front.get());
    if (waiter_->finished != seen || ended_) return;
    if (look != pool::kNever) until = until == shm::kNoDeadline ? look : std::min(until, look);
  }
  exchange_->wait(waiter_.get(), seen, until);
}

std::shared_ptr<PoolTask> Stream::next() {
  if (!begun_ && !ended_) {
    exchange_->stream_begins(&source_);
    begun_ = true;
  }
  int drawn = 0;
  try {
    while (!ended_) {
      if (exchange_->rung()) exchange_->progress();
      const bool slow = draw_ns_ > tuning::kSlowDrawNs || usual_ns_ > tuning::kSlowDrawNs;
      if (ready() && (slow || drawn >= tuning::kTopUp || enough_ready() || !may_draw())) return take();
      if (may_draw()) {
        if (!under_way_.empty() && slow && pause(monotonic_ns())) continue;
        draw();
        ++drawn;
        continue;
      }
      if (ready()) return take();
      if (under_way_.empty()) break;
      wait();
    }
  } catch (...) {
    close();
    throw;
  }
  const py::object error = std::exchange(error_, py::object());
  close();
  if (error) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    throw py::error_already_set();
  }
  return nullptr;
}

Results::Results(py::object stream, py::object answer, ResultsOptions options)
    : stream_(std::move(stream)), tasks_(stream_.cast<Stream*>()), answer_(std::move(answer)), options_(std::move(options)) {}

void Results::check_caller() const {
  if (running_) throw py::value_error("another call waits for the next result of this iterator; let one thread iterate");
}

PyObject* Results::next() {
  check_caller();
  if (!stream_) return nullptr;
  struct CallOfNext {  // an error, or the end, drops the stream: its tasks in progress are not wanted any more
    explicit CallOfNext(Results* results) : results_(results) { results_->running_ = true; }
    ~CallOfNext() {
      results_->running_ = false;
      if (!ended) return;
      const py::object gone = std::move(results_->stream_);
    }
    Results* results_;
    bool ended = true;
  } running(this);
  if (!begun_ && options_.times) PyDict_Clear(options_.times.ptr());
  begun_ = true;
  try {
    py::object result = next_of_stream();
    running.ended = !result;
    return result.release().ptr();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_StopIteration)) throw;
    // A loop would take the error of a callable for the end of the stream. Generators do the same.
    in_python([&] { py::raise_from(error, PyExc_RuntimeError, "a result of the stream raised StopIteration"); });
    throw py::error_already_set();
  }
}

py::object Results::next_of_stream() {
  const std::shared_ptr<PoolTask> task = tasks_->next();
  if (task == nullptr) return {};
  if (options_.times) note(*task);
  py::object result;
  if (!task->error && task->outputs && task->answer == shm::Kind::kTensors) {
    result = task->outputs;
  } else {
    result = in_python([&] { return answer_(task); });
  }
  if (options_.indexed) {
    const py::object index = task->index ? py::object(py::int_(*task->index)) : py::object(py::none());
    result = py::make_tuple(index, std::move(result));
  }
  return result;
}

// Appends the task's time to the list of its device.
void Results::note(const PoolTask& task) {
  if (task.ran_on == pool::kAnyDevice) return;
  const py::int_ device(task.ran_on);
  const py::float_ time(static_cast<double>(task.times.end_to_end) / 1e6);
  PyObject* const all = options_.times.ptr();
  py::object times = py::reinterpret_borrow<py::object>(PyDict_GetItemWithError(all, device.ptr()));
  if (!times) {
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
    times = py::list();
    if (PyDict_SetItem(all, device.ptr(), times.ptr()) != 0) throw py::error_already_set();
  }
  if (!PyList_Check(times.ptr())) throw py::type_error("the times of a device are a list");
  if (PyList_GET_SIZE(times.ptr()) == 2 * options_.kept && PyList_SetSlice(times.ptr(), 0, options_.kept, nullptr) != 0) {
    throw py::error_already_set();
  }
  if (PyList_Append(times.ptr(), time.ptr()) != 0) throw py::error_already_set();
}

void Results::close() {
  check_caller();
  if (!stream_) return;
  tasks_->close();
  const py::object gone = std::move(stream_);
}

}  // namespace ais::bind
