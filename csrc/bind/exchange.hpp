// The owner of the pool's state: tasks, workers, waiters and counts. Ctrl-C cannot interrupt a call, because Python runs signal
// handlers between bytecodes, and no bytecode runs inside a call.
//
// The GIL is its lock. A call releases it in two places only: while it copies large feeds (the task is then kPlaced, see
// pool/scheduler.hpp, and changes that happen meanwhile are handled afterwards), and while it waits. The state is consistent in
// both places, so a signal handler, a destructor, another thread or a finalizer may use the exchange meanwhile. No Python
// object is dropped in the middle of a change: such objects wait in `trash_`.
//
// The states of a task; "scheduler" is its state in the scheduler, and the last column names the function that makes the
// transition:
//
//   state      scheduler        becomes                    by
//   new        kOut             queued                     start
//   queued     kQueued          placed                     pump: the scheduler has a worker for it
//                               done (error)               cancel, deadline, block, stop_accepting
//   placed     kPlaced          sent                       pump: its feeds are in shared memory, and published
//                               queued                     pump: no room after all; remove_worker
//                               done (error)               pump: its feeds are invalid; cancel, deadline
//   sent       kSent            done (outputs or error)    drain: its reply
//                               queued                     pump: taken back; drain: its device failed; remove_worker
//                               done (error)               cancel, deadline; drain, remove_worker: too many attempts
//   done       any              done                       final: everything that arrives for it is dropped
//
// If a task is done while a worker has it, it stays with the worker (`unwanted`) until it is withdrawn or answered.
//
// Waiting uses the Leader/Followers pattern (Schmidt et al., POSA2), because handing a reply from one thread to another costs
// more than most small tasks. One of the waiting threads leads: it waits on the doorbell of all workers and delivers to all
// waiters. The others, the followers, sleep on their own gates until their tasks are done or there is no leader. A thread that
// stops leading promotes the follower that has waited longest. A follower that wakes and finds no leader leads, or promotes the
// next one. So followers never sleep unless there is a leader, or one of them has been woken. The leader gets its answers
// sooner than followers, which must be woken. So a thread of single calls that has led for several of them follows in the next
// one, if others wait. The background thread, which collects for futures, yields to every caller.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/tuning.hpp"
#include "bind/py_lane.hpp"
#include "pool/scheduler.hpp"
#include "shm/bell.hpp"
#include "shm/futex.hpp"

namespace ais::bind {

struct PoolTask;

// A call that waits for tasks.
struct Waiter {
  std::uint64_t finished = 0;   // number of its finished tasks; only grows
  bool asleep = false;          // as a follower
  bool collects = false;        // counts the bytes of its tasks
  bool for_any_change = false;  // has no tasks: waits for any change
  bool unordered = false;       // finished tasks go to `ready`, in that order
  std::deque<std::shared_ptr<PoolTask>> ready;
  std::uint64_t bytes = 0;  // bytes of the feeds of its tasks in progress, and of outputs not yet fetched
  std::atomic<std::uint64_t> word{0};
  shm::Doorbell gate{&word};
};

enum class Outcome : std::uint8_t { kNone, kDone, kFailed, kCancelled, kTimedOut, kRefused };
constexpr const char* kOutcomeNames[] = {"", "done", "failed", "cancelled", "timed_out", "refused"};

struct PoolWorker : pool::Worker, std::enable_shared_from_this<PoolWorker> {
  std::shared_ptr<PyLane> lane;
  bool naps = false;
  std::uint64_t adapt_at = 1;
  std::uint64_t seen = 0;  // answered, when the caller's processor was looked at last
  bool gone = false;
  std::int64_t cost_ns = 0;                                   // of the last task
  py::object kill_reason;                                     // why the pool kills it, if it does
  std::deque<std::pair<std::int64_t, std::int64_t>> covered;  // its recent busy intervals: in order, disjoint
};

struct PoolTask : pool::Task, std::enable_shared_from_this<PoolTask> {
  py::object feeds;  // null once the worker has them
  int mode = 0;
  shm::Kind payload = shm::Kind::kTensors;
  std::uint64_t option = 0;
  std::optional<std::int64_t> index;
  py::object key;
  py::object kept;  // objects that must live until the task is done
  py::object future;
  bool done = false;
  bool accepted = false;
  bool taken = false;  // whether the caller's buffers are not needed any more
  Outcome outcome = Outcome::kNone;
  shm::Kind answer = shm::Kind::kTensors;
  py::object outputs;
  py::object error;  // an exception, or a function of the task that makes it
  bool error_made = true;
  int ran_on = pool::kAnyDevice;
  std::uint64_t number = 0;  // in the lane of its worker
  std::int64_t accepted_ns = 0;
  std::int64_t dropped_ns = 0;  // when it became unwanted
  std::int64_t picked_ns = 0;
  std::int64_t done_ns = 0;
  shm::TaskTimes times;
  std::uint64_t held = 0;          // its part of the waiter's bytes
  int moved = 0;                   // how often it was taken back
  std::int64_t begun_seen_ns = 0;  // when the parent first saw that its worker had begun it; set only if needed
  int stops = 0;                   // how often it ended because another task was stopped, or had no room for its outputs
  int lost_before = 0;             // how often a worker of another pool died with it
  std::shared_ptr<Waiter> waiter;
  std::shared_ptr<PoolTask> self;  // while a queue or a worker has it
  // A second run of a task is a separate task without a waiter, and no count includes it. Its answer becomes that of the first.
  std::shared_ptr<PoolTask> first;  // set in the second
  std::weak_ptr<PoolTask> second;   // set in the first, from then on
};

struct ExchangeOptions {
  pool::Options scheduler;
  int cores = 1;
  double spin_us = -1;        // below 0: as long as a processor is free
  double task_timeout_s = 0;  // 0: none
  int wake_fd = -1;           // the supervisor's eventfd
};

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::shared_ptr<shm::Bell> bell, const ExchangeOptions& options);
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  ~Exchange();

  // ---- tasks ----
  // Sends the task or queues it. Throws the error of a block or a closed pool. If its feeds are invalid, the task fails. `now`:
  // the time, if the caller has asked the clock.
  void start(const std::shared_ptr<PoolTask>& task, std::optional<double> timeout_s, std::int64_t now = 0);
  void run(const std::shared_ptr<PoolTask>& task);
  void run_all(const std::vector<std::shared_ptr<PoolTask>>& tasks);
  // Cancels tasks: they leave queues and, if they were not begun, workers at once.
  // `send_on`: send other tasks to the free places at once; not in a destructor, because that may run any code.
  void cancel(const std::vector<std::shared_ptr<PoolTask>>& tasks, bool send_on = true);
  // The same for one task, with its error. `send_on`: other tasks may be sent to the free places at once.
  void end(PoolTask* task, Outcome outcome, py::object error, bool error_made, bool send_on);
  // Sets the names of a task's arrays in errors.
  void name_feeds(FeedNames names) { feed_names_ = std::move(names); }
  py::list new_feeds(const std::vector<std::pair<Shape, py::object>>& specs);

  // ---- waiting ----
  // Returns if `waiter->finished` is not `seen`, if anything else may have changed, or at `deadline_ns`.
  void wait(Waiter* waiter, std::uint64_t seen, std::int64_t deadline_ns, std::optional<std::uint32_t> ticket = std::nullopt);
  // Waits until all accepted tasks are finished, or for the given time. Returns whether they are.
  bool wait_until_idle(double timeout_s);
  // Waits until anything may have changed, or for the given time.
  void wait_for_change(double timeout_s);
  // Returns the next finished task with a future; null once `stop_resolving` was called and none is left.
  std::shared_ptr<PoolTask> next_resolved();
  void stop_resolving();
  void ring();
  // Frees the doorbell's memory once no worker is left that could ring, although a caller may keep the closed pool.
  void silence();

  // Runs the task, which delays a stream, a second time if that pays (P8 of the policy). Returns when to ask again.
  std::int64_t hedge(PoolTask* task);
  bool accepts() const { return !forked() && !closed_error_; }
  bool hedges() const { return options_.scheduler.hedge > 0; }

  // Records the replies that have arrived, and returns their number. Then sends the tasks that can be sent.
  std::size_t progress();

  // ---- workers ----
  void add_worker(const std::shared_ptr<PoolWorker>& worker);
  void retire(int device);
  void kill_because(const std::shared_ptr<PoolWorker>& worker, py::object reason);
  std::vector<std::shared_ptr<PoolWorker>> take_to_kill();
  // Handles a dead worker. Its published replies count; its other tasks run elsewhere or fail with `died(task)`. Returns None
  // if the device may be the reason, otherwise how many earlier deaths the failing task explains together with this one.
  py::object remove_worker(const std::shared_ptr<PoolWorker>& worker, const py::object& died);
  // Returns tasks past their deadline as (task, seconds given, seconds taken), workers with a task for too long as (worker,
  // task, whether the limit is `task_timeout`, seconds taken), tasks that workers must end as (worker, number of the task
  // there), and the seconds until the next check, or None.
  py::tuple overdue();

  // ---- who gets in ----
  void block(std::optional<int> device, const py::object& make_error);
  void unblock(std::optional<int> device);
  void stop_accepting(const py::object& make_error);

  // ---- questions ----
  std::size_t unfinished() const { return outstanding_; }
  std::size_t futures() const { return futures_; }
  // Number of futures of finished tasks whose callbacks have not returned.
  std::size_t unresolved() const { return resolved_.size() + (calling_ ? 1 : 0); }
  bool at_rest() const;
  py::dict counts() const;
  double wall_s() const;
  void reset_times();
  bool forked() const;

  std::int64_t look_again_ns() const { return look_again_; }
  bool full_of_short_tasks();
  bool rung() const { return ticket() != drained_ticket_; }
  bool others_wait() const { return leader_ != nullptr || !followers_.empty() || futures_ > 0; }
  std::int64_t patience_ns(std::int64_t now) const {
    return caller_core_ == pool::kNoCpu ? shm::kNoDeadline : now + tuning::kStayNs;
  }
  pool::Scheduler& scheduler() { return scheduler_; }
  void stream_begins(pool::Source* source);
  void stream_ends(pool::Source* source);
  void set_weight(int device, double weight) { weights_[device] = weight; }

  bool wake_when_idle = false;
  void detach_supervisor() { wake_fd_ = -1; }

 private:
  void check_owner() const;
  std::uint32_t ticket() const;
  void accept(const std::shared_ptr<PoolTask>& task, std::int64_t now);
  void finish(PoolTask* task, Outcome outcome, py::object outputs, py::object error, bool error_made = true);
  void drop_run(PoolTask* task);  // its answer is not needed any more
  void book_second(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::PyReply answer);
  void release(PoolTask* task);     // no queue or worker has it any more
  void pump(std::int64_t now = 0);  // 0: ask the clock
  bool send(PoolTask* task, std::int64_t* now);
  bool take_back(PoolTask* task);
  std::size_t drain();
  bool drain_worker(const std::shared_ptr<PoolWorker>& worker, bool all, std::size_t* count);
  void book(const std::shared_ptr<PoolWorker>& worker, PyLane::PyReply answer);
  void complete_times(PoolWorker* worker, const PoolTask& task, std::int64_t accepted_ns, PyLane::PyReply* answer);
  void occupy(PoolWorker* worker, const PyLane::PyReply& answer);
  static void note(const PoolWorker* worker, const PyLane::PyReply& answer, PoolTask* task);
  void book_stopped(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::PyReply answer);
  void book_fault(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::PyReply answer);
  std::int64_t busy_ns(PoolWorker* worker, std::int64_t from, std::int64_t to);
  void adapt(PoolWorker* worker);
  void let_nap(PoolWorker* worker, bool naps);
  void lead(Waiter* waiter, std::uint64_t seen, std::int64_t deadline_ns, std::optional<std::uint32_t> ticket);
  void promote();
  bool has_led_enough(const Waiter& waiter) const;
  void rest_if_done();
  void wake_supervisor();
  void watch(std::int64_t deadline_ns);
  const py::object* blocked(const PoolTask& task) const;
  // Returns a function that makes the error of a refused task; null: the task is accepted.
  const py::object* refusal_of(const PoolTask& task) const {
    return closed_error_ ? &closed_error_ : (blocks_.empty() ? nullptr : blocked(task));
  }
  void set_deadline(const std::shared_ptr<PoolTask>& task, double timeout_s);
  void keep_feeds(PoolTask* task);
  static std::shared_ptr<PoolWorker> record_of(pool::Worker* worker);
  PoolWorker* home_of(const PoolTask& task) const;
  std::int64_t caller_spin_ns() const;
  void spread_spin();
  int caller_core(std::int64_t now);
  void empty_trash();

  const FeedNames* names_of(const PoolTask& task) const { return task.payload == shm::Kind::kTensors ? &feed_names_ : nullptr; }

  const ExchangeOptions options_;
  FeedNames feed_names_;
  Feeds spare_feeds_;  // kept for its memory
  const std::uint64_t generation_;
  std::shared_ptr<shm::Bell> bell_;
  pool::Scheduler scheduler_;
  std::vector<std::shared_ptr<PoolWorker>> workers_;
  std::vector<std::shared_ptr<PoolWorker>> to_kill_;
  pool::Source callers_;
  std::vector<pool::Source*> streams_;
  std::unordered_map<int, double> weights_;
  bool prefer_home_ = false;                          // whether arrays of new_feeds exist: check whose memory has the feeds
  std::size_t feeds_made_ = 0;                        // sets of new_feeds
  std::map<const std::uint8_t*, PoolWorker*> homes_;  // by the start of their memory

  std::shared_ptr<Waiter> background_;
  Waiter* leader_ = nullptr;
  std::vector<Waiter*> followers_;  // in the order of their arrival
  std::thread::id led_by_;          // the last leader
  int led_ = 0;                     // for how many waits in a row
  std::deque<std::shared_ptr<PoolTask>> resolved_;
  bool resolving_ = true;
  bool calling_ = false;  // whether the last result of `next_resolved` is being resolved
  std::uint32_t drained_ticket_ = 0;
  std::int64_t look_again_ = pool::kNever;

  struct Deadline {
    std::int64_t at_ns;
    std::uint64_t order;
    std::weak_ptr<PoolTask> task;
    double timeout_s;
    bool operator>(const Deadline& other) const { return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order; }
  };
  std::vector<Deadline> deadlines_;  // a heap
  // Unwanted tasks that a worker has begun.
  struct Stopping {
    std::weak_ptr<PoolTask> task;
    std::weak_ptr<PoolWorker> worker;
    std::int64_t since_ns;
  };
  std::vector<Stopping> stopping_;
  std::int64_t look_at_several(const std::shared_ptr<PoolWorker>& worker, std::int64_t now, py::list* late);
  std::int64_t look_at_stopping(std::int64_t now, py::list* stops, py::list* late);
  std::size_t prune_at_ = 1000;
  std::uint64_t order_ = 0;
  std::int64_t next_check_ns_ = pool::kNever;  // when the supervisor will next check; 0: it has been woken

  py::object ended_call_;    // makes the error of a task whose call has ended
  py::object closed_error_;  // null: open
  std::vector<std::pair<std::optional<int>, py::object>> blocks_;

  std::size_t outstanding_ = 0;
  std::size_t futures_ = 0;
  std::uint64_t accepted_ = 0;
  std::uint64_t outcomes_[6] = {};
  std::uint64_t taken_back_ = 0;
  std::uint64_t hedged_ = 0;
  std::uint64_t hedges_won_ = 0;
  std::unordered_map<int, std::uint64_t> retries_;
  std::unordered_map<int, std::uint64_t> lost_;
  std::int64_t since_ns_ = -1;  // -1: at rest
  std::int64_t wall_ns_ = 0;
  bool spins_ = true;  // whether a processor is free for it

  int caller_core_ = pool::kNoCpu;
  std::int64_t look_around_ns_ = 0;
  int wake_fd_;
  bool adaptive_;

  bool emptying_ = false;
  std::vector<py::object> trash_;
  std::vector<std::shared_ptr<PoolTask>> trash_tasks_;
  std::vector<py::object> going_;
  std::vector<std::shared_ptr<PoolTask>> going_tasks_;
};

}  // namespace ais::bind
