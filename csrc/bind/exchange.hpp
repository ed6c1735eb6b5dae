// The one owner of the pool's state: tasks, workers, waiters, the account. Each call is atomic towards Ctrl-C, because Python's
// signal handlers run between bytecodes, and no bytecode runs inside.
//
// The GIL is its lock. A call gives it away in two places only: while it copies large feeds (the task is kPlaced then, see
// pool/scheduler.hpp, and whatever happens to it meanwhile is found afterwards), and while it waits. In both all is in order,
// so a signal handler, a destructor or another thread may use the exchange meanwhile, and so may a finalizer that Python runs
// while an array is made. No Python object is dropped in the middle of a change: what is to go waits in `trash_`.
//
// The life of a task; "place" is the scheduler's, who wins says the last column:
//
//   state      place            becomes                    by
//   new        kOut             queued                     start
//   queued     kQueued          placed                     pump: the scheduler has a worker for it
//                               done (error)               cancel, deadline, block, close_door
//   placed     kPlaced          sent                       pump: its feeds are in shared memory, and published
//                               queued                     pump: no room after all; remove_worker
//                               done (error)               pump: what is wrong with its feeds; cancel, deadline
//   sent       kSent            done (outputs or error)    drain: its reply
//                               queued                     pump: taken back; drain: its device failed; remove_worker
//                               done (error)               cancel, deadline; drain, remove_worker: too many attempts
//   done       any              done                       for ever: whatever arrives for it is dropped
//
// A task that is done while a worker has it stays in the worker's hand (`unwanted`) until it is withdrawn or answered.
//
// Waiting is Leader/Followers (Schmidt et al., POSA2): handing a reply from one thread to another costs more than most small
// tasks, so of the threads that wait one leads: it waits on the doorbell of all workers and delivers to all. The others, the
// followers, sleep on gates of their own until their tasks are done or the lead is free. Whoever stops leading promotes the
// follower that came last: of several waits of one thread that is the one of a signal handler, which the others wait for. A
// follower that wakes and finds nobody leading leads, or promotes the next: followers never sleep unless somebody leads or one
// of them has been woken. The background, which collects for futures, gives way to every caller.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
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
  std::uint64_t finished = 0;  // of its tasks; only grows
  bool asleep = false;         // as a follower
  bool collects = false;       // counts the bytes of its tasks
  bool unordered = false;      // finished tasks go to `ready`, in that order
  std::deque<std::shared_ptr<PoolTask>> ready;
  std::uint64_t bytes = 0;  // of the feeds of its tasks under way, and of outputs not yet fetched
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
  py::object kill_reason;                                     // why it is given up, if that is the pool's doing
  std::deque<std::pair<std::int64_t, std::int64_t>> covered;  // when it was busy, of late: in order, disjoint
};

struct PoolTask : pool::Task, std::enable_shared_from_this<PoolTask> {
  py::object feeds;  // null once the worker has them
  int mode = 0;
  shm::Kind payload = shm::Kind::kTensors;
  std::uint64_t option = 0;
  std::optional<std::int64_t> index;
  py::object key;
  py::object kept;  // what must live until the task is done
  py::object future;
  bool done = false;
  bool accepted = false;
  bool taken = false;  // the caller's buffers are not needed any more
  Outcome outcome = Outcome::kNone;
  shm::Kind answer = shm::Kind::kTensors;
  py::object outputs;
  py::object error;  // an exception, or what makes it when asked for, given the task
  bool error_made = true;
  int ran_on = pool::kAnyDevice;
  std::uint64_t seq = 0;
  std::int64_t accepted_ns = 0;
  std::int64_t dropped_ns = 0;  // when nobody wanted it any more
  std::int64_t picked_ns = 0;
  std::int64_t done_ns = 0;
  shm::TaskTimes times;
  std::uint64_t held = 0;          // bytes that count in the waiter's
  int moved = 0;                   // how often it was taken back
  std::int64_t begun_seen_ns = 0;  // when the parent saw first that its worker had begun it; looked for where that matters
  int stops = 0;                   // how often it ended with another task that was told to stop
  std::shared_ptr<Waiter> waiter;
  std::shared_ptr<PoolTask> self;  // while a queue or a worker has it
  // A second run of a task is a task of its own, which nobody waits for and no count knows; its answer becomes the first one's.
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
  // Sends the task or queues it. Throws what a block or the door says; what is wrong with its feeds becomes its error.
  void start(const std::shared_ptr<PoolTask>& task, std::optional<double> timeout_s);
  void run(const std::shared_ptr<PoolTask>& task);
  void run_all(const std::vector<std::shared_ptr<PoolTask>>& tasks);
  // Nobody wants them any more: they leave queues and, if they were not begun, workers at once.
  // `send_on`: other tasks are sent to the free places at once; not in a destructor, as that may run any code.
  void cancel(const std::vector<std::shared_ptr<PoolTask>>& tasks, bool send_on = true);
  // The same for one, with the error that it ends with. `send_on`: other tasks may be sent to the free places at once.
  void end(PoolTask* task, Outcome outcome, py::object error, bool error_made, bool send_on);
  // Errors call the arrays of a task so from now on.
  void name_feeds(FeedNames names) { feed_names_ = std::move(names); }
  py::list new_feeds(const std::vector<std::pair<Shape, py::object>>& specs);

  // ---- waiting ----
  // Returns when `waiter->finished` is not `seen`, when anything else may have changed, or at `deadline_ns`.
  void wait(Waiter* waiter, std::uint64_t seen, std::int64_t deadline_ns, std::optional<std::uint32_t> ticket = std::nullopt);
  // Returns when no accepted task is unfinished, or after the time; whether that is so.
  bool wait_until_idle(double timeout_s);
  // Until anything may have changed, or for so long.
  void wait_for_change(double timeout_s);
  // The next task with a future that is done; null once `stop_resolving` was called and none is left.
  std::shared_ptr<PoolTask> next_resolved();
  void stop_resolving();
  void ring();
  // No worker is left that could ring: the doorbell's memory can go, although somebody may keep the closed pool.
  void silence();

  // Runs the task, which holds up a stream, a second time if that pays (P8 of the policy). Returns when to ask again.
  std::int64_t hedge(PoolTask* task);
  bool accepts() const { return !forked() && !door_; }
  bool hedges() const { return options_.scheduler.hedge > 0; }

  // Books the replies that are there; how many. Then sends what can be sent.
  std::size_t progress();

  // ---- workers ----
  void add_worker(const std::shared_ptr<PoolWorker>& worker);
  void retire(int device);
  void condemn(const std::shared_ptr<PoolWorker>& worker, py::object reason);
  std::vector<std::shared_ptr<PoolWorker>> take_condemned();
  // The process is dead. What it published counts, the rest runs elsewhere or fails with `died(task)`. Returns None if the
  // device may be to blame, else how many earlier deaths the culprit explains with this one.
  py::object remove_worker(const std::shared_ptr<PoolWorker>& worker, const py::object& died);
  // Tasks past their own time as (task, seconds given, taken), workers at a task for too long as (worker, task, whether that is
  // `task_timeout`, seconds taken), what workers shall end as (worker, number of the task there), and in how many seconds to
  // look again, or None.
  py::tuple overdue();

  // ---- who gets in ----
  void block(std::optional<int> device, const py::object& make_error);
  void unblock(std::optional<int> device);
  void close_door(const py::object& make_error);

  // ---- questions ----
  std::size_t unfinished() const { return outstanding_; }
  std::size_t futures() const { return futures_; }
  // Futures of tasks that are done whose callbacks have not returned.
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
  void forget_supervisor() { wake_fd_ = -1; }

 private:
  void check_owner() const;
  std::uint32_t ticket() const;
  void accept(const std::shared_ptr<PoolTask>& task);
  void finish(PoolTask* task, Outcome outcome, py::object outputs, py::object error, bool error_made = true);
  void drop_run(PoolTask* task);  // of which the answer is not needed any more
  void book_second(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::Answer answer);
  void release(PoolTask* task);  // no queue or worker has it any more
  void pump();
  bool send(PoolTask* task);
  bool take_back(PoolTask* task);
  std::size_t drain();
  bool drain_worker(const std::shared_ptr<PoolWorker>& worker, std::size_t* count);
  void book(const std::shared_ptr<PoolWorker>& worker, PyLane::Answer answer);
  void complete_times(PoolWorker* worker, const PoolTask& task, std::int64_t accepted_ns, PyLane::Answer* answer);
  void occupy(PoolWorker* worker, const PyLane::Answer& answer);
  static void note(const PoolWorker* worker, const PyLane::Answer& answer, PoolTask* task);
  void book_stopped(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::Answer answer);
  void book_fault(const std::shared_ptr<PoolWorker>& worker, PoolTask* task, PyLane::Answer answer);
  std::int64_t busy_ns(PoolWorker* worker, std::int64_t from, std::int64_t to);
  void adapt(PoolWorker* worker);
  void let_nap(PoolWorker* worker, bool naps);
  void lead(Waiter* waiter, std::uint64_t seen, std::int64_t deadline_ns, std::optional<std::uint32_t> ticket);
  void promote();
  void begin_clock();
  void rest_if_done();
  void wake_supervisor();
  void watch(std::int64_t deadline_ns);
  const py::object* blocked(const PoolTask& task) const;
  // What makes the error of a task that is not taken; null: it is.
  const py::object* refusal_of(const PoolTask& task) const {
    return door_ ? &door_ : (blocks_.empty() ? nullptr : blocked(task));
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
  const std::uint64_t generation_;
  std::shared_ptr<shm::Bell> bell_;
  pool::Scheduler scheduler_;
  std::vector<std::shared_ptr<PoolWorker>> workers_;
  std::vector<std::shared_ptr<PoolWorker>> condemned_;
  pool::Source callers_;
  std::vector<pool::Source*> streams_;
  std::unordered_map<int, double> weights_;
  bool prefer_home_ = false;                          // arrays of new_feeds are about: look where feeds lie
  std::map<const std::uint8_t*, PoolWorker*> homes_;  // by where their memory begins

  std::shared_ptr<Waiter> background_;
  Waiter* leader_ = nullptr;
  std::vector<Waiter*> followers_;
  std::deque<std::shared_ptr<PoolTask>> resolved_;
  bool resolving_ = true;
  bool calling_ = false;  // what `next_resolved` gave out last is being resolved
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
  // Tasks that nobody wants any more, and that a worker has begun.
  struct Stopping {
    std::weak_ptr<PoolTask> task;
    std::weak_ptr<PoolWorker> worker;
    std::uint64_t seq;
    std::int64_t since_ns;
  };
  std::vector<Stopping> stopping_;
  std::int64_t look_at_several(const std::shared_ptr<PoolWorker>& worker, std::int64_t now, py::list* late);
  std::int64_t look_at_stopping(std::int64_t now, py::list* stops, py::list* late);
  std::size_t prune_at_ = 1000;
  std::uint64_t order_ = 0;
  std::int64_t looks_ns_ = pool::kNever;  // when the supervisor looks by itself; 0: it has been woken

  py::object ended_call_;  // makes the error of a task whose call has ended
  py::object door_;        // null: open
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
  bool spins_ = true;  // as a processor is free for it

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
