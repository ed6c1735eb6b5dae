// The parent's end of one arena: submits tasks to one process of one worker and takes its replies.
//
//   submit:  begin (both slots, a place in flight) -> the caller fills the feed slot -> publish, or destroy to cancel
//   take:    next reply, checked, with its slots on loan -> the caller reads the views -> the leases are destroyed
//
// Threads: any thread; a private mutex makes the parent the single producer and consumer of its rings. It is held for a few
// hundred nanoseconds, never while a slot is filled or read, and never while code of the caller runs.
// Processes: the object belongs to the process that made it. In a forked child every call returns ForkedChild.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/status.hpp"
#include "shm/bell.hpp"
#include "shm/frame.hpp"
#include "shm/layout.hpp"
#include "shm/memfd.hpp"
#include "shm/ring.hpp"
#include "shm/slots.hpp"
#include "shm/stats.hpp"

namespace ais::shm {

struct LaneOptions {
  std::uint64_t epoch = 0;
  std::size_t arena_bytes = 0;   // virtual; 0: 256 GiB, or what the process's limits allow
  std::size_t result_bytes = 0;  // virtual, of one result slot; 0: a 1024th of the arena, at least 1 MiB
};

// Values that the caller gets back with a reply. The lane does not use them.
struct Token {
  void* task = nullptr;
  void* keep = nullptr;  // an object that must live until the worker has finished the task
};

class Lane {
 public:
  // A task that has its slots and a place in flight, but is not published. Destroying it releases them.
  class Draft {
   public:
    Draft() = default;
    Draft(Draft&& other) noexcept : lane_(other.lane_), feeds_(std::move(other.feeds_)), result_(std::move(other.result_)) {
      other.lane_ = nullptr;
    }
    Draft& operator=(Draft&&) = delete;
    ~Draft();
    Span feeds() const { return feeds_.span(); }

   private:
    friend class Lane;
    Draft(Lane* lane, Lease feeds, Lease result) : lane_(lane), feeds_(std::move(feeds)), result_(std::move(result)) {}
    Lane* lane_ = nullptr;
    Lease feeds_;
    Lease result_;
  };

  struct Reply {
    Token token;
    Kind kind = Kind::kTensors;
    std::vector<TensorView> tensors;  // over the result slot
    Lease result;
    std::uint64_t used = 0;      // bytes of the result slot
    Status error;                // of kTooLarge: why the task cannot run again; the error of kError is in `tensors`
    std::int64_t begun_ns = 0;   // when submit began
    std::int64_t picked_ns = 0;  // the worker took the task
    std::int64_t done_ns = 0;    // the worker published the reply
    std::int64_t came_ns = 0;    // the parent took the reply
    TaskTimes times;             // without the parent's part of copy_out, and without end_to_end
    // If `kind` is kError: the feeds, in their slot, so that the task can run again.
    std::vector<TensorView> feeds;
    Lease feeds_lease;  // empty if the feeds cannot be read
  };

  // A task that a dead worker left, or that was withdrawn, with its feeds in the feed slot.
  struct Unfinished {
    Token token;
    Kind kind = Kind::kTensors;
    bool taken = false;  // the worker had claimed it
    Status readable;     // Corrupt if the worker has overwritten the feeds' table
    std::vector<TensorView> feeds;
    Lease lease;
  };

  static Result<std::unique_ptr<Lane>> create(std::shared_ptr<Bell> parent_bell, const LaneOptions& options);
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Returns slots for feeds of `bytes` in total (including the table). nullopt: no room now. OutOfMemory if they need more
  // memory than this process may use; Closed, Corrupt or ForkedChild.
  Result<std::optional<Draft>> begin(std::size_t bytes);
  // Publishes the frame that was written into the draft's feed slot, and rings the worker. `begun_ns`: when submit began.
  // `number`: names the task in the calls below. If the task runs again in a larger slot, its number stays, but its seq, by
  // which the worker knows it, changes. `submitted_ns`: when it was published.
  Status publish(Draft draft, Span table, std::uint64_t used, std::uint16_t mode, Kind kind, std::uint64_t option,
                 std::int64_t begun_ns, Token token, std::uint64_t* number = nullptr, std::int64_t* submitted_ns = nullptr);

  // Takes back a task, unless the worker has claimed it. The task does not run and has no reply. False: the worker has it, or
  // it has ended.
  Result<bool> withdraw(std::uint64_t number, Unfinished* left);
  // Returns the feeds, in place, of a task that the worker has not answered; valid until the next call. False: no such task.
  Result<bool> look_at_feeds(std::uint64_t number, std::vector<TensorView>* out);

  // Writes the next reply into `out` (whose vectors are reused); false if there is none. Works after close and after the
  // worker's death. On Corrupt the lane is closed.
  Result<bool> take(Reply* out);
  // Whether there may be a reply: a load without a lock, so only for a caller that serialises its calls of `take`.
  bool may_take() const { return results_.has_more(); }

  // Closes the lane, and returns all tasks without a reply, in the order of submission. The worker must be dead; otherwise its
  // late replies are lost.
  std::vector<Unfinished> abandon();

  // Closes the lane, and drops one task without a reply; false: there is none. For destructors: it allocates no memory.
  bool discard_one(Token* token);

  // Returns the oldest task without a published reply, and the earliest time at which the worker can have begun it.
  struct Oldest {
    void* task = nullptr;
    std::int64_t since_ns = 0;
    bool claimed = false;
  };
  Result<std::optional<Oldest>> oldest();

  // Whether the worker has claimed the task. A task that has ended was claimed.
  bool claimed(std::uint64_t number);
  // Returns the seq by which the worker knows the task now; nullopt: the task has ended.
  std::optional<std::uint64_t> seq_of(std::uint64_t number);

  // Returns a slot for feeds that the caller fills before it submits. Empty: the arena is full now. OutOfMemory as for begin.
  Result<Lease> lease_feeds(std::size_t bytes);

  // Prepares slots for `tasks` tasks of these sizes, so that the first tasks do not take the time for it.
  Status warm(std::size_t feed_bytes, std::size_t result_bytes, std::size_t tasks);

  // Releases the memory of slots that are not in use, except `keep` bytes.
  void trim(std::uint64_t keep = 0);

  void close();
  bool closed() const;
  // Whether half of the ring is full of entries that the worker has not passed: then no task can begin.
  bool crowded();
  std::size_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  void set_spin_ns(std::uint32_t ns);
  std::uint32_t spin_ns() const;
  // During a stream of short tasks: how long an idle worker sleeps before it blocks, to coalesce wake-ups (see Port).
  void set_nap_ns(std::uint32_t ns);
  std::uint32_t nap_ns() const;

  bool forked() const;
  const std::shared_ptr<Region>& region() const { return region_; }

 private:
  // A task that the worker has. Its seq is its position in the ring times kRingSlots, plus its index in flights_; its number is
  // its first seq.
  struct Flight {
    bool used = false;
    std::uint64_t number = 0;
    TaskDescriptor task{};
    Lease feeds;
    Lease result;
    Token token;
    std::int64_t begun_ns = 0;
  };

  Lane(std::shared_ptr<Bell> parent_bell, std::shared_ptr<Region> region, std::uint64_t large);
  Status usable() const;
  Status check_room(const Lease& lease, std::size_t bytes) const;
  Status refuse(Status status);
  Status push(std::uint32_t index, Span result, TaskDescriptor* task);
  Result<bool> accept(const ResultDescriptor& result, Reply* out);
  void end_flight(const ResultDescriptor& result, std::uint32_t index, Reply* out);
  Flight* find(std::uint64_t number);
  bool claimed(const Flight& flight) const;
  void drop(Flight* flight);
  void give_up(Flight* flight, Unfinished* left);
  void keep_feeds(Flight* flight, Reply* out);
  std::vector<Flight*> flights_in_order();
  Status run_again_larger(std::uint32_t index, std::uint64_t needed);

  const std::shared_ptr<Bell> parent_bell_;

  const std::shared_ptr<Region> region_;
  Header* const header_;
  const std::shared_ptr<SlotPool> slots_;
  const Doorbell worker_bell_;
  const std::uint64_t generation_;

  mutable std::mutex mutex_;  // guards all below
  Producer<TaskDescriptor> tasks_;
  Consumer<ResultDescriptor> results_;
  std::vector<Flight> flights_;
  std::vector<std::uint32_t> free_flights_;
  std::uint64_t published_ = 0;
  std::size_t drafts_ = 0;
  std::int64_t last_done_ns_ = 0;   // when the reply that was taken last had been published
  std::uint64_t usual_result_ = 0;  // the largest recent result, fading
  std::atomic<std::size_t> in_flight_{0};
};

}  // namespace ais::shm
