// Many tasks through an exchange, one iterator in and one out, in bounded memory. An iterator for Python.
//
// Read-ahead: the stream draws another item only if a worker has room for it, so there are just enough tasks in progress to
// keep the workers busy. Behind a task that delays the order there may be many more, up to `window_items` and `window_bytes`
// (of feeds in progress and outputs not yet fetched). The pool has copied an item before the next one is drawn, so a source may
// reuse its buffers.
//
// Finished results come first: they are yielded before the stream draws an item that might make the caller wait. A source is
// slow if its recent draws took long. A source is live if it produces items at a fixed rate, as a camera does: a pause before a
// draw makes the draw shorter. Before drawing from a live source the stream waits for results until the next item is due. It
// tries such a pause from time to time, and keeps it while it helps.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <memory>

#include "bind/exchange.hpp"
#include "bind/feed_rule.hpp"

namespace ais::bind {

struct StreamOptions {
  bool ordered = true;
  std::size_t window_items = 0;
  std::uint64_t window_bytes = 0;
  int mode = 0;                    // mode of items that are lists, if `make` is not called for them
  bool lists = false;              // whether items that are lists are feeds; `make` is called for others
  std::shared_ptr<FeedRule> rule;  // calls `make` also for lists that may need a warning or an error; null: never
};

class Stream {
 public:
  // `make(item, index)` returns the item's task. If it raises, this is the item's error.
  Stream(std::shared_ptr<Exchange> exchange, const py::object& items, py::object make, const StreamOptions& options);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Returns the next finished task; null: the end. Throws an error of the source after the earlier tasks.
  std::shared_ptr<PoolTask> next();
  // Cancels the tasks in progress. Idempotent.
  void close();

 private:
  void end(bool send_on);
  bool ready() const;
  std::shared_ptr<PoolTask> take();
  bool enough_ready() const;
  bool may_draw();
  void draw();
  void drop_refused(const std::shared_ptr<PoolTask>& task);
  bool is_feeds(py::handle item) const;
  std::shared_ptr<PoolTask> make_task(py::object item);
  bool pause(std::int64_t now);
  void learn(std::int64_t began, std::int64_t ended);
  void wait();

  const std::shared_ptr<Exchange> exchange_;
  py::object items_;
  py::object make_;
  const StreamOptions options_;
  const std::shared_ptr<Waiter> waiter_;
  pool::Source source_;
  std::deque<std::shared_ptr<PoolTask>> under_way_;
  std::uint64_t fetched_ = 0;  // how many of the waiter's finished tasks were fetched
  std::shared_ptr<PoolTask> latest_;
  std::int64_t index_ = 0;
  std::int64_t expected_items_ = -1;
  bool open_ = true;  // whether the source has more items
  bool ended_ = false;
  bool begun_ = false;
  py::object error_;  // of the source, or of a pool that refused an item

  // The pace of the source.
  std::int64_t draw_ns_ = 0;   // the last draw
  std::int64_t usual_ns_ = 0;  // draws without a pause before them
  std::int64_t drawn_at_ = 0;  // when the last draw ended
  std::int64_t interval_ns_ = 0;
  std::int64_t paused_ns_ = 0;  // the pause before the next draw
  int live_ = 0;                // above 0: a pause helps; below 0: it does not
  std::int64_t try_again_ = 0;  // the item at which to try a pause again
  int missed_ = 0;              // consecutive short waits without a result
  std::int64_t wait_again_ = 0;
};

struct ResultsOptions {
  py::object times;      // a dict {device: [milliseconds]} that gets the tasks' times; null: none
  Py_ssize_t kept = 0;   // a list of twice as many loses its older half
  bool indexed = false;  // yields (index, result)
};

// The results of a stream's tasks, as an iterator for Python. A small item needs no bytecode here, and no Python object for its
// task. An error ends the iteration.
class Results {
 public:
  // `answer(task)` returns or raises what takes the place of outputs: for a task that failed, or was answered with an object.
  Results(py::object stream, py::object answer, ResultsOptions options);

  // Returns a new reference to the next result; null: the end.
  PyObject* next();
  // Cancels the tasks in progress. Idempotent.
  void close();

 private:
  py::object next_of_stream();  // null: the end
  void note(const PoolTask& task);
  void check_caller() const;

  py::object stream_;  // null: the iteration has ended
  Stream* tasks_;
  py::object answer_;
  ResultsOptions options_;
  bool begun_ = false;
  bool running_ = false;
};

}  // namespace ais::bind
