// Decides which worker gets which task, which task is taken back, and what happens to a task whose worker or device failed.
// Pure code: no lock, no clock, no I/O. The caller passes times and serialises calls. The exchange (csrc/bind/exchange.hpp) and
// the simulator (simulator.hpp) use the same code.
//
// The states of a task here, and the functions that change them:
//
//   state    meaning                                    left by
//   kOut     not here: not added, or done               add -> kQueued
//   kQueued  in its source's queue                      next -> kPlaced; drop -> kOut
//   kPlaced  has a place in a worker, feeds are copied  sent -> kSent; not_sent -> kQueued (kOut if unwanted)
//   kSent    published to the worker                    answered -> kOut; withdrawn -> kQueued (kOut if unwanted);
//                                                       faulted, lose -> kQueued or kOut
//
// A cancelled task, or one past its deadline, is `unwanted`: it leaves the queue at once, and its place in a worker when this
// place is known to be free. Only `answered` and `lose` free the place of a task that a worker has begun.
//
// The policy:
// P1  A task goes to the worker that is expected to finish it first. The estimate is the time for the tasks that the worker
//     holds, plus its weighted recent time for a task of this kind. The oldest held task counts with its remaining time. If it
//     takes longer than expected, the time by which it is late is expected again.
// P2  If the worker that would finish first has no room, the task waits for it, unless an idle worker can finish the task
//     before the others would finish everything that waits or is still to come (P1 at the end of a stream, work conservation
//     before). A task whose feeds are in one worker's memory goes to that worker, or waits for its room while no worker is
//     idle, if another one would not finish it sooner by more than the cost of the copy.
// P3  Tasks whose time is unknown, or recently uneven, are handed out one by one (a worker that runs several at a time gets as
//     many as it can run). Tasks that are known to be short queue up in the worker, as many as
//     kWorkInHandNs covers.
// P4  A task that a worker has not begun is taken back if an idle worker would finish it sooner, by more than the cost of the
//     move.
// P5  Sources (each stream is one; single calls share one) share the workers by the time that their tasks take, so no source
//     starves.
// P6  A task whose worker died runs alone on a worker, so a second death proves that the task is the reason.
// P7  A task that failed because of its device runs on another device if one works, at most `max_attempts` times in all.
// P8  With `hedge`: if the task that delays an ordered stream has taken `hedge` times as long as an idle worker of another
//     device would take, and that worker would finish first, the task runs there a second time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "pool/ranking.hpp"

namespace ais::pool {

constexpr int kAnyDevice = -1;

struct Options {
  int in_flight = 0;  // tasks that one worker holds at a time; 0: `fewest`, and more if they are short
  int fewest = 2;
  int max_attempts = 2;
  double hedge = 0;          // 0: no task runs a second time
  std::uint64_t random = 0;  // not 0: every free choice is random, with this seed
};

enum class TaskState : std::uint8_t { kOut, kQueued, kPlaced, kSent };

struct Worker;
struct Source;

// A record that its owner embeds. It must stay where it is while it is not kOut.
struct Task {
  // Set by the owner before add().
  int device = kAnyDevice;
  std::uint32_t kind = 0;  // tasks of one kind are expected to take the same time
  std::uint64_t bytes = 0;
  Source* source = nullptr;
  Worker* home = nullptr;  // its feeds are already in this worker's memory
  // The scheduler's; others read.
  TaskState state = TaskState::kOut;
  bool unwanted = false;
  bool claimed = false;  // an attempt to take it back found that it had begun
  Worker* worker = nullptr;
  int crashes = 0;  // workers that died with it
  int faults = 0;   // devices that failed with it
  int avoid = kAnyDevice;
  Nanos sent_ns = 0;
  Nanos expected_ns = kUnknown;
  Task* prev = nullptr;
  Task* next = nullptr;
};

class TaskList {
 public:
  bool empty() const { return first_ == nullptr; }
  std::size_t size() const { return size_; }
  Task* first() const { return first_; }
  Task* last() const { return last_; }
  void push_back(Task* task);
  void push_front(Task* task);
  void remove(Task* task);

 private:
  Task* first_ = nullptr;
  Task* last_ = nullptr;
  std::size_t size_ = 0;
};

// A source of tasks: a stream, or all single calls.
struct Source {
  double weight = 1.0;
  // How many tasks follow those that were added; kEndless if it is not known.
  static constexpr std::int64_t kEndless = -1;
  std::int64_t to_come = 0;
  // The scheduler's.
  // The queue of tasks for one device. If no worker of the device has room, the queue is not checked until one of them changes.
  struct Queue {
    enum class In : std::uint8_t { kNothing, kReady, kStuck };
    Source* source = nullptr;
    TaskList tasks;
    In in = In::kNothing;
  };
  TaskList tasks;                         // for any device
  std::unordered_map<int, Queue> pinned;  // by device
  std::vector<Queue*> ready;              // the queues among them that must be checked
  std::size_t waiting = 0;
  std::size_t under_way = 0;  // tasks that wait or that a worker holds
  std::uint32_t latest_kind = 0;
  std::uint32_t salt = 0;  // for the owner: makes its kinds distinct from those of other sources
  double served = 0;       // virtual time
};

// The estimated time of tasks of one kind.
struct Estimate {
  std::uint32_t kind = 0;
  double mean = 0;
  double late = 0;  // by how much tasks take longer than the mean, on average
  std::uint64_t used = 0;
  void learn(double ns);
};

// The workers of a device, and the queues for it that wait until one of them changes.
struct DeviceWorkers {
  std::vector<Worker*> workers;
  std::vector<Source::Queue*> stuck;
};

struct Worker {
  // Set by the owner.
  int device = 0;
  int only_cpu = kNoCpu;  // the processor to which it is pinned, if it is only one
  double weight = 1.0;
  bool several = false;  // it runs several tasks at a time, in any order
  // The scheduler's; others read.
  bool open = true;       // false: no new tasks
  TaskList hand;          // placed and sent, in this order
  bool isolated = false;  // it runs a task that had a crash, and no other task
  bool full = false;      // its memory has no room until the next answer
  std::uint64_t answered = 0;
  int faults = 0;       // consecutive failures of its device; they do not count as answers
  Nanos hand_ns = 0;    // expected of all in hand
  int unknown = 0;      // tasks in hand of unknown time
  Nanos last_done = 0;  // when it published its last answer
  double slowness = 0;  // its times over those of all workers; 0: unknown
  std::vector<Estimate> estimates;
  std::size_t position = 0;
  DeviceWorkers* at = nullptr;
};

class Scheduler {
 public:
  explicit Scheduler(const Options& options);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // ---- workers ----
  void add(Worker* worker);
  // No new tasks for it.
  void close(Worker* worker);
  // Places a task that waits for this worker's device, also if the worker holds tasks, because it gets no more afterwards.
  // Null: no task waits, or the worker holds as many as it may.
  Task* next_for(Worker* worker);
  // Its memory has no room, or has again.
  void set_full(Worker* worker, bool full);
  // Removes a worker, and returns the tasks that it held, in order. The caller must `lose` each of them.
  std::vector<Task*> remove(Worker* worker);
  const std::vector<Worker*>& workers() const { return workers_; }

  // ---- sources ----
  void add(Source* source);
  // Removes a source without waiting or wanted tasks. Tasks of it that workers still hold no longer refer to it.
  void remove(Source* source);

  // ---- tasks ----
  void add(Task* task);
  // The next task that goes to a worker now, with its place taken (kPlaced). Null: nothing can be placed. A worker that is
  // pinned to processor `skip` gets none; one pinned to `avoid_cpu` has to wait until the caller leaves it, which counts.
  Task* next(Nanos now, int skip = kNoCpu, int avoid_cpu = kNoCpu);
  void sent(Task* task, Nanos now);
  // The worker's memory had no room. The task is the next of its source again, or kOut if unwanted.
  void not_sent(Task* task);
  // Returns a task that should be taken back from its worker, for an idle worker to which `next` would give it. Null: none. The
  // caller tries, and reports the result.
  Task* take_back(Nanos now, int skip = kNoCpu, int avoid_cpu = kNoCpu);
  void withdrawn(Task* task);      // it is queued again, at the front; kOut if unwanted
  void not_withdrawn(Task* task);  // the worker had begun it
  // Returns whether a second run of this task, which delays others, should be added now (P8), as a separate task that avoids
  // the device. `look_again`: when to ask again; kNever: after the next change.
  bool hedge(const Task& task, Nanos now, Nanos* look_again, int skip = kNoCpu);
  // The worker answered. `began`, `done`: when the worker took the task and published.
  void answered(Task* task, Nanos began, Nanos done);
  // The worker's device failed with the task. True: it is queued again; false: it is out, and fails with this error.
  bool faulted(Task* task);
  // The task was stopped, perhaps because of another task. Its time is ignored. It is queued again, or kOut if unwanted.
  void stopped(Task* task);
  // The task raised an error that another run may avoid, and the device is not the reason. It runs on another device if there
  // is one. Returns as `faulted`.
  bool raised(Task* task, Nanos began, Nanos done);
  // A task of a dead worker. `begun`: the worker had begun it; `certain`: and no other task. True: it is queued again; false:
  // it is out, and fails.
  bool lose(Task* task, bool begun, bool certain, bool can_run_again);
  // Makes a task unwanted. It leaves its queue now, and its worker as described at the top of this file.
  void drop(Task* task);
  // Removes every queued task of the device (kAnyDevice: of all devices) from the queues, and returns them.
  std::vector<Task*> take_queued(int device);

  // ---- questions ----
  std::size_t waiting() const { return waiting_; }  // queued
  // Whether a worker has room for one more task like the source's latest, and no task of the source waits.
  bool wants_more(const Source& source);
  // When a decision may change although nothing happens, or kNever.
  Nanos look_again() const { return look_again_; }
  // How many tasks of this kind a worker holds at a time.
  int limit(const Worker& worker, std::uint32_t kind) const;
  // When the worker is expected to finish the tasks that it holds.
  Nanos free_at(const Worker& worker, Nanos now) const;
  // The expected time of the task on this worker, or kUnknown.
  Nanos expected(const Worker& worker, const Task& task) const;
  // Whether another device takes tasks without failing.
  bool others_than(int device) const;
  // Whether another device has finished a task.
  bool others_work(int device) const;
  int busy() const { return busy_; }  // workers that hold tasks
  // Workers among these that are pinned to this processor.
  int busy_at(int cpu) const;
  int full() const { return full_; }  // workers whose memory has no room
  // Returns a description of an inconsistent state; empty: the state is consistent. For tests and the simulator.
  std::string check() const;

 private:
  struct Offer {
    bool takes = false;  // it might be the best one
    bool room = false;   // and could take it now
    Nanos expects = 0;
    Nanos finish = kNever;
  };
  void look_at(const Worker& worker);
  void changed(const Worker& worker);
  void rank_ahead(const Worker& worker);
  bool gives_back(const Worker& worker) const;
  void start_over();
  void pass_time(Nanos now);
  void see_callers(int skip, int avoid_cpu);
  Ranking& ranking_of(std::uint32_t kind);
  void follow(Ranking* ranking);
  void refresh(Ranking* ranking, std::size_t position);
  void learn_of_all(std::uint32_t kind, double took);
  Outlook look_out(const Worker& worker, std::uint32_t kind) const;
  Worker* pick(const Task& task, Nanos now, bool* stuck);
  Ranking::Choices scan(const Task& task, Nanos now, bool* stuck);
  Offer offer(const Worker& worker, const Task& task, Nanos now) const;
  Worker* pick_at_random(const Task& task);
  bool may_run(const Worker& worker, const Task& task, bool avoid) const;
  bool worth_it(const Ranking::Choice& idle, const Task& task, Nanos now);
  Task* latest_to_give(Nanos now, Nanos* latest) const;
  Task* scan_to_give(Nanos now, Nanos* latest) const;
  Nanos soonest_idle(const Task& task, Nanos now);
  Task* take_back_at_random();
  Nanos move_cost(const Task& task) const;
  bool more_to_come(const Task& task) const;
  bool has_idle(int device) const;
  void place(Task* task, Worker* worker);
  void enqueue(Task* task, bool first);
  void leave_queue(Task* task);
  void leave_hand(Task* task);
  TaskList& queue_of(Task* task);
  Task* next_of(Source* source, Nanos now, Worker** worker);
  template <typename Call>
  static void each_queue(Source* source, const Call& call) {
    for (auto& [device, queue] : source->pinned) call(device, &queue.tasks);
    call(kAnyDevice, &source->tasks);
  }
  Estimate* known(std::vector<Estimate>* estimates, std::uint32_t kind) const;
  const Estimate* known(const std::vector<Estimate>& estimates, std::uint32_t kind) const;
  Estimate& estimate_of(std::vector<Estimate>* estimates, std::uint32_t kind);
  std::uint64_t draw();

  Options options_;
  std::vector<Worker*> workers_;
  std::vector<Glance> glances_;  // of the workers, in their order
  std::unordered_map<int, DeviceWorkers> devices_;
  std::unordered_map<int, std::vector<Worker*>> pinned_;  // by processor
  std::vector<int> busy_at_;                              // by processor
  // Which workers have changed, for the rankings to follow when they are asked.
  std::vector<std::uint32_t> changes_;
  std::uint64_t changes_before_ = 0;  // dropped entries of changes_, counted from the start
  std::uint64_t followed_ = 0;        // the entries that some ranking has followed
  std::vector<std::unique_ptr<Ranking>> rankings_;
  Ranking* latest_ranking_ = nullptr;
  Heaps dues_{1};    // workers whose oldest task in hand is not overdue, by when it should be done
  Heaps aheads_{3};  // workers with tasks that can be taken back, the one that is busy for longest first
  Nanos now_ = 0;
  int skip_ = kNoCpu;
  int avoid_cpu_ = kNoCpu;
  std::vector<Source*> sources_;
  Source departed_;              // the source of tasks in hand whose own source was removed
  std::vector<Source*> turns_;   // kept for its memory
  std::vector<Estimate> kinds_;  // over all workers
  std::size_t waiting_ = 0;
  double served_ = 0;  // virtual time of the source that was served last
  int busy_ = 0;
  int ahead_ = 0;  // workers with more than one task in hand
  int full_ = 0;
  Nanos look_again_ = kNever;
  std::uint64_t uses_ = 0;
  std::uint64_t state_;
};

}  // namespace ais::pool
