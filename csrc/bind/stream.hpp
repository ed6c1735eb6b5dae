// Many tasks through an exchange, one iterator in and one out, in bounded memory. An iterator for Python.
//
// Read-ahead: another item is drawn only when a worker has room for it, so what is under way is what keeps the workers busy;
// behind a task that holds up the order that may be much, up to `window_items` and `window_bytes` (of feeds under way and
// outputs not yet fetched). The pool has taken what it needs of an item before the next one is drawn, so a source may reuse its
// buffers.
//
// What is ready comes first: it is yielded before an item is drawn that might keep the caller waiting. A source that took its
// time lately is slow; one that keeps its own time, as a camera does, is live: pausing before a draw makes the draw shorter.
// Before drawing from a live source the stream waits for results until the next item is due. That is tried now and then, and
// kept while it holds.
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
  int mode = 0;                    // of items that are lists, if there is no `make` for them
  bool lists = false;              // items that are lists are feeds; `make` is asked for others
  std::shared_ptr<FeedRule> rule;  // `make` is asked for those, too, of which there may be something to say; null: nothing is
};

class Stream {
 public:
  // `make(item, index)`: the item's task. What it raises is that item's error.
  Stream(std::shared_ptr<Exchange> exchange, const py::object& items, py::object make, const StreamOptions& options);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // The next task that is done. Throws StopIteration at the end, and what the source raised after the tasks before it.
  std::shared_ptr<PoolTask> next();
  // Forgets what is under way. Idempotent.
  void close();

 private:
  void end(bool send_on);
  bool ready() const;
  std::shared_ptr<PoolTask> take();
  bool enough_ready() const;
  bool may_draw();
  void draw();
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
  std::uint64_t fetched_ = 0;  // of the waiter's finished tasks
  std::shared_ptr<PoolTask> latest_;
  std::int64_t index_ = 0;
  std::int64_t expected_items_ = -1;
  bool open_ = true;  // the source has more
  bool ended_ = false;
  bool begun_ = false;
  py::object error_;  // of the source

  // What is known of the source's pace.
  std::int64_t draw_ns_ = 0;   // the last draw
  std::int64_t usual_ns_ = 0;  // draws without a pause before them
  std::int64_t drawn_at_ = 0;  // when the last draw ended
  std::int64_t interval_ns_ = 0;
  std::int64_t paused_ns_ = 0;  // before the draw to come
  int live_ = 0;                // above 0: pausing pays; below: it does not
  std::int64_t try_again_ = 0;  // the item at which to try a pause again
  int missed_ = 0;              // short waits in a row that brought nothing
  std::int64_t wait_again_ = 0;
};

}  // namespace ais::bind
