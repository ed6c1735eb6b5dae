// The parent's end: see lane.hpp for the steps, and layout.hpp for the rules of access.
#include "shm/lane.hpp"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "base/process.hpp"
#include "base/tuning.hpp"
#include "shm/copy.hpp"

namespace ais::shm {
namespace {

std::size_t power_of_two_below(std::size_t value) {
  std::size_t power = 1;
  while (power <= value / 2) power *= 2;
  return power;
}

}  // namespace

Result<std::unique_ptr<Lane>> Lane::create(std::shared_ptr<Bell> parent_bell, const LaneOptions& options) {
  const std::size_t wanted = options.arena_bytes == 0 ? tuning::kArenaBytes : options.arena_bytes;
  if (wanted < tuning::kLeastArena) {
    return Status(Code::kInvalidArgument,
                  "arena_bytes must be at least " + std::to_string(tuning::kLeastArena) + ", got " + std::to_string(wanted));
  }
  AIS_ASSIGN(std::shared_ptr<Region> region, Region::create("ais_bench-arena", wanted, tuning::kLeastArena));
  std::size_t large = options.result_bytes == 0 ? region->size() / 1024 : options.result_bytes;
  large = power_of_two_below(std::max(large, tuning::kLeastResult));
  if (large > region->size() / 4) {
    return Status(Code::kInvalidArgument, "result_bytes must be at most " + std::to_string(region->size() / 4) +
                                              ", a quarter of the arena, got " + std::to_string(large));
  }
  auto* header = new (region->data()) Header();
  header->geometry = {kMagic,         kVersion,      kRingSlots,
                      region->size(), kDataOffset,   tuning::kWarmSlots * tuning::kSmallSlot,
                      options.epoch,  plain_copies()};
  return std::unique_ptr<Lane>(new Lane(std::move(parent_bell), std::move(region), large));
}

Lane::Lane(std::shared_ptr<Bell> parent_bell, std::shared_ptr<Region> region, std::uint64_t large)
    : parent_bell_(std::move(parent_bell)),
      region_(std::move(region)),
      header_(reinterpret_cast<Header*>(region_->data())),
      slots_(SlotPool::create(region_, kDataOffset, large)),
      worker_bell_(&header_->worker_bell.value),
      generation_(fork_generation()),
      tasks_(&header_->task_write.value, &header_->task_read.value, region_->data() + kTaskRingOffset),
      results_(&header_->result_write.value, &header_->result_read.value, region_->data() + kResultRingOffset),
      flights_(kMostInFlight) {
  for (std::uint32_t i = kMostInFlight; i-- > 0;) free_flights_.push_back(i);
  // Cut the slots first whose pages the worker creates when it attaches.
  std::vector<Lease> warm;
  for (std::size_t i = 0; i < tuning::kWarmSlots; ++i) {
    warm.push_back(slots_->acquire(tuning::kSmallSlot, 0));
    warm.back().touch(tuning::kSmallSlot);
  }
}

bool Lane::forked() const { return fork_generation() != generation_; }

Status Lane::usable() const {
  if (forked()) return Status(Code::kForkedChild, "this worker belongs to the parent process; open a new pool here");
  return Status();
}

// Closes the lane after data that violates the protocol. Nothing else from the worker is accepted.
Status Lane::refuse(Status status) {
  close();
  return std::move(status).with_context("worker " + std::to_string(header_->geometry.epoch));
}

Result<std::optional<Lane::Draft>> Lane::begin(std::size_t bytes) {
  AIS_TRY(usable());
  std::uint64_t usual = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed()) {
      return Status(Code::kClosed, "the worker's lane is closed");
    }
    if (free_flights_.size() <= drafts_) return std::optional<Draft>();
    // The other half of the ring is for tasks that run again with a larger result slot.
    if (tasks_.unread(kMostInFlight - drafts_) + drafts_ >= kMostInFlight) return std::optional<Draft>();
    ++drafts_;
    usual = usual_result_;
  }
  Draft draft(this, Lease(), Lease());  // from here on its destructor releases the place
  draft.feeds_ = slots_->acquire(bytes, bytes);
  draft.result_ = slots_->acquire_large(usual, usual);
  // If nothing is in flight, no room will become free: a smaller slot is better than an endless wait.
  if (!draft.result_ && in_flight() == 0) draft.result_ = slots_->acquire_large(1, 0);
  if (!draft.feeds_ || !draft.result_) return std::optional<Draft>();
  if (Status room = check_room(draft.feeds_, bytes); !room.ok()) {
    if (in_flight() != 0) return std::optional<Draft>();  // there may be room when these tasks are done
    return room;
  }
  return std::optional<Draft>(std::move(draft));
}

// Releases the memory of free slots before a task is refused.
Status Lane::check_room(const Lease& lease, std::size_t bytes) const {
  const std::uint8_t* const begin = region_->data() + lease.span().offset;
  if (room_for(begin, bytes).ok()) return Status();
  SlotPool::trim_all();
  return room_for(begin, bytes).with_context("the feeds do not fit the memory");
}

Lane::Draft::~Draft() {
  if (lane_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(lane_->mutex_);
  --lane_->drafts_;
}

Status Lane::publish(Draft draft, Span table, std::uint64_t used, std::uint16_t mode, Kind kind, std::uint64_t option,
                     std::int64_t begun_ns, Token token, std::uint64_t* number, std::int64_t* submitted_ns) {
  AIS_TRY(usable());
  draft.feeds_.touch(used);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    draft.lane_ = nullptr;
    --drafts_;
    // abandon() may have been called during the copy: then this task would get no answer, and would be lost.
    if (closed()) return Status(Code::kClosed, "the worker's lane is closed");
    const std::uint32_t index = free_flights_.back();
    Flight& flight = flights_[index];
    flight.task.table_offset = table.offset;
    flight.task.table_bytes = static_cast<std::uint32_t>(table.bytes);
    flight.task.mode = mode;
    flight.task.kind = static_cast<std::uint16_t>(kind);
    flight.task.option = option;
    AIS_TRY(push(index, draft.result_.span(), &flight.task));
    free_flights_.pop_back();
    flight.feeds = std::move(draft.feeds_);
    flight.result = std::move(draft.result_);
    flight.token = token;
    flight.begun_ns = begun_ns;
    flight.number = flight.task.seq;
    if (number != nullptr) *number = flight.number;
    if (submitted_ns != nullptr) *submitted_ns = flight.task.submitted_ns;
    flight.used = true;
    in_flight_.fetch_add(1, std::memory_order_relaxed);
  }
  worker_bell_.ring();
  return Status();
}

// Needs the mutex. `index`: the place of the task's flight.
Status Lane::push(std::uint32_t index, Span result, TaskDescriptor* task) {
  task->seq = published_ * kRingSlots + index;
  task->result_offset = result.offset;
  task->result_bytes = result.bytes;
  task->submitted_ns = monotonic_ns();
  Result<bool> pushed = tasks_.try_push(*task);
  if (!pushed.ok()) return refuse(pushed.take_status());
  // The ring has room for all tasks in flight, and a worker takes a task before it answers it.
  if (!pushed.value()) return refuse(Status(Code::kCorrupt, "it answered tasks that it did not take"));
  ++published_;
  return Status();
}

Result<bool> Lane::take(Reply* out) {
  AIS_TRY(usable());
  const std::lock_guard<std::mutex> lock(mutex_);
  while (true) {
    ResultDescriptor result;
    Result<bool> popped = results_.try_pop(&result);
    if (!popped.ok()) return refuse(popped.take_status());
    if (!popped.value()) return false;
    AIS_ASSIGN(const bool done, accept(result, out));
    if (done) return true;
  }
}

// Needs the mutex. False: the task runs again and has no reply yet. The flight is changed only when nothing can fail any more.
Result<bool> Lane::accept(const ResultDescriptor& result, Reply* out) {
  const std::uint32_t index = result.seq % kRingSlots;
  if (index >= flights_.size() || !flights_[index].used || flights_[index].task.seq != result.seq) {
    return refuse(Status(Code::kCorrupt, "it answered task " + std::to_string(result.seq) + ", which it was not given"));
  }
  if (result.kind > static_cast<std::uint16_t>(Kind::kRetry)) {
    return refuse(Status(Code::kCorrupt, "it gave a reply of kind " + std::to_string(result.kind)));
  }
  Flight& flight = flights_[index];
  out->error = Status();
  out->kind = static_cast<Kind>(result.kind);
  out->used = 0;
  out->tensors.clear();
  const Span slot = flight.result.span();
  try {
    if (out->kind == Kind::kTooLarge) {
      flight.result.touch(slot.bytes);  // the worker may have written to it
      out->error = run_again_larger(index, result.needed_bytes);
      if (out->error.ok()) return false;
    } else {
      Status checked = read_frame(region_->data(), {result.table_offset, result.table_bytes}, slot, slot, &out->tensors);
      if (!checked.ok()) return refuse(std::move(checked));  // abandon() returns the task
      if (out->kind == Kind::kError || out->kind == Kind::kRetry) keep_feeds(&flight, out);
      out->used = result.table_offset + result.table_bytes - slot.offset;
      flight.result.touch(out->kind == Kind::kError ? slot.bytes : out->used);
      usual_result_ = std::max(out->used, usual_result_ - usual_result_ / 64);
    }
  } catch (const std::bad_alloc&) {  // the reply was taken, so it must not be lost
    out->kind = Kind::kTooLarge;
    out->error = Status(Code::kOutOfMemory, "out of memory");  // short enough for a string without an allocation
  }
  end_flight(result, index, out);
  return true;
}

// Needs the mutex. Ends the flight; nothing here fails. The worker's times are limited to plausible values: a reply from the
// future would delay the time limits of later tasks.
void Lane::end_flight(const ResultDescriptor& result, std::uint32_t index, Reply* out) {
  Flight& flight = flights_[index];
  const std::int64_t submitted_ns = flight.task.submitted_ns;
  const std::int64_t now_ns = std::max(monotonic_ns(), submitted_ns);
  const std::int64_t picked_ns = std::clamp(result.picked_ns, submitted_ns, now_ns);
  const std::int64_t done_ns = std::clamp(result.done_ns, picked_ns, now_ns);
  const auto duration = [&](float ns) { return std::min(duration_ns(ns), now_ns - submitted_ns); };
  last_done_ns_ = done_ns;
  out->token = flight.token;
  out->result = std::move(flight.result);
  out->begun_ns = flight.begun_ns;
  out->picked_ns = picked_ns;
  out->done_ns = done_ns;
  out->came_ns = now_ns;
  out->times.queued = picked_ns - submitted_ns;
  out->times.copy_in = duration(result.copy_in_ns) + submitted_ns - flight.begun_ns;
  out->times.execute = duration(result.execute_ns);
  out->times.copy_out = duration(result.copy_out_ns);
  out->times.preprocess = duration(result.preprocess_ns);
  out->times.postprocess = duration(result.postprocess_ns);
  out->times.unknown = result.unknown;
  out->times.busy = done_ns - picked_ns;
  flight.used = false;
  flight.feeds.release();
  free_flights_.push_back(index);  // the vector has room for every flight
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
}

// Needs the mutex.
void Lane::keep_feeds(Flight* flight, Reply* out) {
  const Span table{flight->task.table_offset, flight->task.table_bytes};
  const Span anywhere{kDataOffset, region_->size() - kDataOffset};
  const Status readable = read_frame(region_->data(), table, flight->feeds.span(), anywhere, &out->feeds);
  if (readable.ok()) out->feeds_lease = std::move(flight->feeds);
}

// Needs the mutex. A model is a function of its feeds, so the task runs again with a larger result slot. The slot has twice the
// needed size if there is room, because the size of outputs may depend on the data.
Status Lane::run_again_larger(std::uint32_t index, std::uint64_t needed) {
  Flight& flight = flights_[index];
  const std::uint64_t had = flight.result.span().bytes;
  if (!closed() && needed > had && needed <= region_->size()) {
    flight.result.release();  // its content is not needed, and the larger slot may be made of it
    flight.result = slots_->acquire_large(2 * needed, 2 * needed);
    if (!flight.result) flight.result = slots_->acquire_large(needed, needed);
  }
  if (flight.result.span().bytes < needed) {
    return Status(Code::kSystem, "the outputs need " + std::to_string(needed) + " bytes, their slot in shared memory has " +
                                     std::to_string(had) + " and no larger one is free among " +
                                     std::to_string(region_->size()) + " bytes; see arena_bytes and ulimit -v");
  }
  usual_result_ = std::max(usual_result_, needed);
  AIS_TRY(push(index, flight.result.span(), &flight.task));
  worker_bell_.ring();
  return Status();
}

// Needs the mutex.
std::vector<Lane::Flight*> Lane::flights_in_order() {
  std::vector<Flight*> flights;
  for (Flight& flight : flights_) {
    if (flight.used) flights.push_back(&flight);
  }
  std::sort(flights.begin(), flights.end(), [](const Flight* a, const Flight* b) { return a->task.seq < b->task.seq; });
  return flights;
}

std::vector<Lane::Unfinished> Lane::abandon() {
  if (forked()) return {};
  close();
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<Flight*> flights = flights_in_order();
  std::vector<Unfinished> unfinished;
  unfinished.reserve(flights.size());  // before anything changes
  for (Flight* flight : flights) {
    Unfinished left;
    left.taken = claimed(*flight);
    give_up(flight, &left);
    unfinished.push_back(std::move(left));
  }
  return unfinished;
}

// Needs the mutex. Ends a flight without a reply, and returns its feeds.
void Lane::give_up(Flight* flight, Unfinished* left) {
  left->token = flight->token;
  left->kind = static_cast<Kind>(flight->task.kind);
  try {
    left->readable = read_frame(region_->data(), {flight->task.table_offset, flight->task.table_bytes}, flight->feeds.span(),
                                {kDataOffset, region_->size() - kDataOffset}, &left->feeds);
  } catch (const std::bad_alloc&) {
    left->readable = Status(Code::kOutOfMemory, "out of memory");
  }
  left->lease = std::move(flight->feeds);
  drop(flight);
}

// Needs the mutex. Returns null if the task has ended.
Lane::Flight* Lane::find(std::uint64_t number) {
  const std::uint32_t index = number % kRingSlots;
  if (index >= flights_.size() || !flights_[index].used || flights_[index].number != number) return nullptr;
  return &flights_[index];
}

// Needs the mutex.
bool Lane::claimed(const Flight& flight) const { return tasks_.claimed(flight.task.seq / kRingSlots, flight.task.seq); }

Result<bool> Lane::withdraw(std::uint64_t number, Unfinished* left) {
  AIS_TRY(usable());
  const std::lock_guard<std::mutex> lock(mutex_);
  Flight* const flight = find(number);
  if (flight == nullptr) return false;
  if (!tasks_.withdraw(flight->task.seq / kRingSlots, flight->task.seq)) return false;  // C1
  give_up(flight, left);                                                                // C3: the worker never used its slots
  return true;
}

Result<bool> Lane::look_at_feeds(std::uint64_t number, std::vector<TensorView>* out) {
  AIS_TRY(usable());
  const std::lock_guard<std::mutex> lock(mutex_);
  const Flight* const flight = find(number);
  if (flight == nullptr) return false;
  AIS_TRY(read_frame(region_->data(), {flight->task.table_offset, flight->task.table_bytes}, flight->feeds.span(),
                     {kDataOffset, region_->size() - kDataOffset}, out));
  return true;
}

// Needs the mutex.
void Lane::drop(Flight* flight) {
  *flight = Flight();
  free_flights_.push_back(static_cast<std::uint32_t>(flight - flights_.data()));
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
}

bool Lane::discard_one(Token* token) {
  if (forked()) return false;
  close();
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto flight = std::find_if(flights_.begin(), flights_.end(), [](const Flight& one) { return one.used; });
  if (flight == flights_.end()) return false;
  *token = flight->token;
  drop(&*flight);
  return true;
}

Result<std::optional<Lane::Oldest>> Lane::oldest() {
  AIS_TRY(usable());
  const std::lock_guard<std::mutex> lock(mutex_);
  std::int64_t last_done_ns = last_done_ns_;
  std::vector<std::uint64_t> answered;
  Status looked = results_.each_unread([&](const ResultDescriptor& result) {
    last_done_ns = std::max(last_done_ns, std::min(result.done_ns, monotonic_ns()));
    answered.push_back(result.seq);
  });
  if (!looked.ok()) return refuse(std::move(looked));
  for (const Flight* flight : flights_in_order()) {
    if (std::find(answered.begin(), answered.end(), flight->task.seq) != answered.end()) continue;
    return std::optional<Oldest>({flight->token.task, std::max(flight->task.submitted_ns, last_done_ns), claimed(*flight)});
  }
  return std::optional<Oldest>();
}

bool Lane::claimed(std::uint64_t number) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Flight* const flight = find(number);
  return flight == nullptr || claimed(*flight);
}

std::optional<std::uint64_t> Lane::seq_of(std::uint64_t number) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Flight* const flight = find(number);
  return flight == nullptr ? std::nullopt : std::optional<std::uint64_t>(flight->task.seq);
}

Result<Lease> Lane::lease_feeds(std::size_t bytes) {
  AIS_TRY(usable());
  Lease lease = slots_->acquire(bytes, bytes);
  if (lease) {
    AIS_TRY(check_room(lease, bytes));
    lease.touch(bytes);
  }
  return lease;
}

Status Lane::warm(std::size_t feed_bytes, std::size_t result_bytes, std::size_t tasks) {
  AIS_TRY(usable());
  std::vector<Lease> held;  // hold all of them; otherwise the same slot would be returned every time
  for (std::size_t i = 0; i < std::min<std::size_t>(tasks, kMostInFlight); ++i) {
    for (const bool result : {false, true}) {
      const std::size_t bytes = result ? result_bytes : feed_bytes;
      Lease lease = result ? slots_->acquire_large(bytes, bytes) : slots_->acquire(bytes, bytes);
      if (!lease) return Status();
      if (lease.touched() < bytes) region_->populate(lease.span().offset, bytes);
      lease.touch(bytes);
      held.push_back(std::move(lease));
    }
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  usual_result_ = std::max<std::uint64_t>(usual_result_, result_bytes);
  return Status();
}

void Lane::trim(std::uint64_t keep) {
  if (!forked()) slots_->trim(keep);
}

void Lane::close() {
  if (forked()) return;
  header_->closed.store(1, std::memory_order_release);  // SYNC(close)
  worker_bell_.ring();
  parent_bell_->doorbell().ring();
}

bool Lane::crowded() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return tasks_.unread(kMostInFlight) >= kMostInFlight;
}

bool Lane::closed() const { return header_->closed.load(std::memory_order_acquire) != 0; }  // SYNC(close)

// Relaxed, because it is a hint and publishes nothing.
void Lane::set_spin_ns(std::uint32_t ns) { header_->spin_ns.store(ns, std::memory_order_relaxed); }
void Lane::set_nap_ns(std::uint32_t ns) { header_->nap_ns.store(ns, std::memory_order_relaxed); }
std::uint32_t Lane::nap_ns() const { return header_->nap_ns.load(std::memory_order_relaxed); }
std::uint32_t Lane::spin_ns() const { return header_->spin_ns.load(std::memory_order_relaxed); }

}  // namespace ais::shm
