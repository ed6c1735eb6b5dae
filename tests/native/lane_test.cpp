// Lane and port together in one process. Writes into the arena take the place of a faulty peer.
#include "shm/lane.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "base/tuning.hpp"
#include "check.hpp"
#include "shm/copy.hpp"
#include "shm/port.hpp"
#include "worker/serve.hpp"

namespace {
thread_local bool t_no_memory = false;  // while true, allocations of this thread fail
}

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  void* memory = t_no_memory ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace ais;
using namespace ais::shm;

namespace {

constexpr std::int64_t kPatience = std::chrono::nanoseconds(check::kPatience).count();

template <typename T>
T take(Result<T> result) {
  if (!result.ok()) check::fail(__FILE__, __LINE__, result.status().message());
  return result.take();
}

// Both ends of an arena. The worker's end has its own mapping, as in another process.
struct Pair {
  explicit Pair(const LaneOptions& options = {0, std::size_t{16} << 30, 0})
      : bell(take(Bell::create())), lane(take(Lane::create(bell, options))) {
    port = take(Port::attach(Fd(dup(lane->region()->fd())), Fd(dup(bell->fd()))));
  }
  Header* header() const { return reinterpret_cast<Header*>(lane->region()->data()); }
  template <typename Descriptor>
  Descriptor* ring(std::size_t offset) const {
    return reinterpret_cast<Descriptor*>(lane->region()->data() + offset);
  }

  std::shared_ptr<Bell> bell;
  std::unique_ptr<Lane> lane;
  std::unique_ptr<Port> port;
};

int g_token;

std::uint64_t submit(Lane* lane, const std::vector<std::uint8_t>& bytes, std::uint64_t option = 0, void* token = &g_token) {
  auto draft = take(lane->begin(bytes.size() + 256));
  CHECK(draft.has_value());
  FrameWriter writer(lane->region()->data(), draft->feeds());
  const auto length = static_cast<std::int64_t>(bytes.size());
  void* room = writer.reserve(0, DType::kUInt8, &length, 1, bytes.size());
  CHECK(room != nullptr);
  if (!bytes.empty()) std::memcpy(room, bytes.data(), bytes.size());
  Span table;
  CHECK(writer.finish(&table));
  std::uint64_t number = 0;
  CHECK_OK(lane->publish(std::move(*draft), table, writer.used(), 0, Kind::kTensors, option, monotonic_ns(), {token, nullptr},
                         &number));
  return number;
}

Lane::Reply reply_of(const Pair& pair) {
  Lane::Reply reply;
  while (true) {
    const std::uint32_t ticket = pair.bell->doorbell().ticket();
    if (take(pair.lane->take(&reply))) return reply;
    CHECK(pair.bell->doorbell().wait(ticket, monotonic_ns() + kPatience, 0) != Wake::kTimeout);
  }
}

PortTask next_of(const Pair& pair) {
  PortTask task;
  CHECK(take(pair.port->next(monotonic_ns() + kPatience, &task)) == Next::kTask);
  return task;
}

void echo(const Pair& pair, PortTask* task) {
  worker::EchoHandler handler;
  StageTimes times;
  CHECK_OK(handler.run(*task, &task->writer, &times));
  CHECK_OK(pair.port->finish(task, Kind::kTensors, times));
}

std::vector<std::uint8_t> pattern(std::size_t size, unsigned seed) {
  std::vector<std::uint8_t> bytes(size);
  std::minstd_rand random(seed + 1);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

bool equal(const TensorView& view, const std::vector<std::uint8_t>& bytes) {
  return view.bytes == bytes.size() && (bytes.empty() || std::memcmp(view.data, bytes.data(), bytes.size()) == 0);
}

}  // namespace

TEST(a_task_goes_there_and_back) {
  const Pair pair;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{70'000}, std::size_t{3} << 20}) {
    const auto bytes = pattern(size, 1);
    submit(pair.lane.get(), bytes);
    PortTask task = next_of(pair);
    CHECK(task.feeds.size() == 1 && equal(task.feeds[0], bytes));
    echo(pair, &task);
    const Lane::Reply reply = reply_of(pair);
    CHECK(reply.kind == Kind::kTensors && reply.token.task == &g_token && equal(reply.tensors.at(0), bytes));
    CHECK(pair.lane->in_flight() == 0);
  }
}

TEST(replies_may_come_in_any_order) {
  const Pair pair;
  int tokens[3];
  for (int& token : tokens) submit(pair.lane.get(), {1, 2, 3}, 0, &token);
  PortTask first = next_of(pair);
  for (int round = 1; round < 3; ++round) {
    PortTask later = next_of(pair);
    echo(pair, &later);
    CHECK(reply_of(pair).token.task == &tokens[round]);
  }
  // The first task stays unanswered while hundreds of others are withdrawn.
  for (std::uint32_t i = 0; i < 3 * kRingSlots; ++i) {
    submit(pair.lane.get(), {4});
    PortTask later = next_of(pair);
    echo(pair, &later);
    CHECK(reply_of(pair).token.task == &g_token);
  }
  CHECK(take(pair.lane->oldest())->task == &tokens[0]);
  echo(pair, &first);
  CHECK(reply_of(pair).token.task == &tokens[0]);
}

TEST(no_more_tasks_than_the_ring_holds) {
  const Pair pair;
  for (std::uint32_t i = 0; i < kMostInFlight; ++i) submit(pair.lane.get(), {5});
  CHECK(!take(pair.lane->begin(64)).has_value());
  PortTask task = next_of(pair);
  echo(pair, &task);
  reply_of(pair);
  CHECK(take(pair.lane->begin(64)).has_value());
}

std::uint64_t submit_numbered(Lane* lane, const std::vector<std::uint8_t>& bytes, void* token) {
  std::optional<Lane::Draft> draft;
  while (true) {
    std::optional<Lane::Draft> room = take(lane->begin(bytes.size() + 256));
    if (room) {
      draft.emplace(std::move(*room));
      break;
    }
    std::this_thread::yield();  // until the worker has skipped the withdrawn tasks
  }
  FrameWriter writer(lane->region()->data(), draft->feeds());
  const auto length = static_cast<std::int64_t>(bytes.size());
  std::memcpy(writer.reserve(0, DType::kUInt8, &length, 1, bytes.size()), bytes.data(), bytes.size());
  Span table;
  CHECK(writer.finish(&table));
  std::uint64_t seq = 0;
  CHECK_OK(
      lane->publish(std::move(*draft), table, writer.used(), 0, Kind::kTensors, 0, monotonic_ns(), {token, nullptr}, &seq));
  return seq;
}

TEST(a_task_that_was_not_claimed_is_taken_back_with_its_feeds) {
  const Pair pair;
  int tokens[3];
  std::uint64_t seqs[3];
  for (int i = 0; i < 3; ++i) seqs[i] = submit_numbered(pair.lane.get(), pattern(1000, static_cast<unsigned>(i)), &tokens[i]);
  PortTask first = next_of(pair);
  Lane::Unfinished left;
  CHECK(!take(pair.lane->withdraw(seqs[0], &left)));  // the worker has it
  CHECK(take(pair.lane->withdraw(seqs[1], &left)));
  CHECK(!take(pair.lane->withdraw(seqs[1], &left)));
  CHECK(left.token.task == &tokens[1] && left.readable.ok() && equal(left.feeds.at(0), pattern(1000, 1)));
  CHECK(pair.lane->in_flight() == 2);
  echo(pair, &first);
  CHECK(reply_of(pair).token.task == &tokens[0]);
  CHECK(!take(pair.lane->withdraw(seqs[0], &left)));
  PortTask third = next_of(pair);
  CHECK(equal(third.feeds.at(0), pattern(1000, 2)));
  const auto unfinished = pair.lane->abandon();
  CHECK(unfinished.size() == 1 && unfinished[0].taken && unfinished[0].token.task == &tokens[2]);
}

TEST(an_abandoned_task_was_begun_only_if_it_was_claimed) {
  const Pair pair;
  int tokens[2];
  for (int& token : tokens) submit(pair.lane.get(), {1}, 0, &token);
  next_of(pair);
  const auto unfinished = pair.lane->abandon();
  CHECK(unfinished.size() == 2 && unfinished[0].taken && !unfinished[1].taken);
}

TEST(a_worker_that_stands_still_is_not_flooded_with_withdrawn_tasks) {
  const Pair pair;
  std::uint32_t withdrawn = 0;
  Lane::Unfinished left;
  while (take(pair.lane->begin(64)).has_value()) {
    CHECK(take(pair.lane->withdraw(submit_numbered(pair.lane.get(), {1}, &g_token), &left)));
    CHECK(++withdrawn <= kMostInFlight);
  }
  CHECK(withdrawn == kMostInFlight && pair.lane->in_flight() == 0);
  PortTask task;
  CHECK(take(pair.port->next(kNoWait, &task)) == Next::kTimeout);  // it skips all of them
  submit(pair.lane.get(), {7});
  task = next_of(pair);
  CHECK(equal(task.feeds.at(0), {7}));
}

TEST(tasks_are_taken_back_while_a_worker_takes_them) {
  const Pair pair;
  std::thread worker([&] {
    worker::EchoHandler handler;
    PortTask task;
    std::uint64_t served = 0;
    while (take(worker::serve(pair.port.get(), &handler, &task, &served)) != worker::Stopped::kClosed) {
    }
  });
  std::minstd_rand random(5);
  const int rounds = 20'000;
  int answered = 0;
  int taken_back = 0;
  std::vector<std::pair<std::uint64_t, unsigned>> under_way;  // numbers and patterns
  std::vector<int> tokens(rounds);
  Lane::Reply reply;
  for (int i = 0; i < rounds || !under_way.empty();) {
    while (take(pair.lane->take(&reply))) {
      const auto which = static_cast<unsigned>(static_cast<int*>(reply.token.task) - tokens.data());
      CHECK(equal(reply.tensors.at(0), pattern(200 + which % 700, which)));
      const auto found = std::find_if(under_way.begin(), under_way.end(), [&](const auto& one) { return one.second == which; });
      CHECK(found != under_way.end());
      under_way.erase(found);
      ++answered;
    }
    if (i < rounds && under_way.size() < 8) {
      const auto which = static_cast<unsigned>(i);
      under_way.emplace_back(submit_numbered(pair.lane.get(), pattern(200 + which % 700, which), &tokens[which]), which);
      ++i;
    }
    if (!under_way.empty() && random() % 3 == 0) {
      const std::size_t at = random() % under_way.size();
      Lane::Unfinished left;
      if (take(pair.lane->withdraw(under_way[at].first, &left))) {
        CHECK(left.token.task == &tokens[under_way[at].second] &&
              equal(left.feeds.at(0), pattern(200 + under_way[at].second % 700, under_way[at].second)));
        under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(at));
        ++taken_back;
      }
    }
  }
  CHECK(answered + taken_back == rounds && answered > 0 && taken_back > 0);
  pair.lane->close();
  worker.join();
}

TEST(a_result_that_does_not_fit_runs_again_with_room) {
  LaneOptions options;
  options.arena_bytes = std::size_t{256} << 20;
  options.result_bytes = std::size_t{1} << 20;
  const Pair pair(options);
  const auto bytes = pattern(std::size_t{5} << 20, 2);
  std::uint64_t served = 0;
  PortTask scratch;
  std::thread worker([&] {
    worker::EchoHandler handler;
    CHECK(take(worker::serve(pair.port.get(), &handler, &scratch, &served)) == worker::Stopped::kClosed);
  });
  for (int i = 0; i < 2; ++i) {
    submit(pair.lane.get(), bytes);
    const Lane::Reply reply = reply_of(pair);
    CHECK(reply.kind == Kind::kTensors && equal(reply.tensors.at(0), bytes));
  }
  pair.lane->close();
  worker.join();
  CHECK(served >= 3);  // the first task ran twice
}

TEST(a_result_that_just_fits_gets_its_slot) {
  LaneOptions options;
  options.arena_bytes = std::size_t{64} << 20;
  const Pair pair(options);
  submit(pair.lane.get(), {1});
  PortTask task = next_of(pair);
  const std::size_t needed = std::size_t{40} << 20;  // neither twice this size nor the next power of two is free
  CHECK_OK(pair.port->too_large(&task, needed));
  Lane::Reply reply;
  CHECK(!take(pair.lane->take(&reply)));
  task = next_of(pair);  // again
  CHECK(task.result.bytes >= needed);
  echo(pair, &task);
  CHECK(reply_of(pair).kind == Kind::kTensors);
  submit(pair.lane.get(), {2});  // the next task, which expects this size, gets a slot, too
  task = next_of(pair);
  echo(pair, &task);
  CHECK(reply_of(pair).kind == Kind::kTensors);
}

TEST(both_kinds_of_stores_copy_the_same) {
  const bool before = plain_copies();
  const std::size_t large = tuning::kPastCacheBytes;  // from here on several pages are copied at the same time
  const auto bytes = pattern(large + 70'000, 3);
  std::vector<std::uint8_t> memory(large + 70'144 + 64);
  auto* const room = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
  for (const bool plain : {false, true}) {
    set_plain_copies(plain);
    CHECK(plain_copies() == plain);
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{255}, std::size_t{256},
          std::size_t{257}, std::size_t{4096}, std::size_t{12'345}, std::size_t{69'000}, large - 1, large, large + 69'001}) {
      for (const std::size_t shift : {0, 1, 16}) {
        std::memset(room, 0xEE, size + shift + 1);
        copy_across(room + shift, bytes.data() + 3, size);
        CHECK(std::memcmp(room + shift, bytes.data() + 3, size) == 0 && room[shift + size] == 0xEE);
        CHECK(shift == 0 || room[shift - 1] == 0xEE);
      }
    }
  }
  set_plain_copies(before);
}

TEST(a_worker_copies_like_its_parent) {
  const bool before = plain_copies();
  for (const bool plain : {false, true}) {
    set_plain_copies(plain);
    auto bell = take(Bell::create());
    const auto lane = take(Lane::create(bell, LaneOptions()));
    set_plain_copies(!plain);  // as in a worker, which is another process
    const auto port = take(Port::attach(Fd(dup(lane->region()->fd())), Fd(dup(bell->fd()))));
    CHECK(plain_copies() == plain);
  }
  set_plain_copies(before);
}

TEST(a_processor_that_is_not_there_shares_no_cache) { CHECK(!share_a_cache({allowed_cpus().front(), 1 << 20})); }

TEST(a_task_that_runs_again_keeps_its_number) {
  LaneOptions options;
  options.arena_bytes = std::size_t{64} << 20;
  const Pair pair(options);
  const auto run_again = [&](const std::vector<std::uint8_t>& bytes) {
    const std::uint64_t number = submit(pair.lane.get(), bytes);
    PortTask task = next_of(pair);
    CHECK(task.seq == number && pair.lane->claimed(number) && pair.lane->seq_of(number) == number);
    CHECK_OK(pair.port->too_large(&task, std::size_t{8} << 20));
    Lane::Reply reply;
    CHECK(!take(pair.lane->take(&reply)));
    CHECK(!pair.lane->claimed(number) && pair.lane->seq_of(number) != number);
    return number;
  };
  const std::uint64_t first = run_again({1, 2, 3});
  std::vector<TensorView> feeds;
  CHECK(take(pair.lane->look_at_feeds(first, &feeds)) && equal(feeds.at(0), {1, 2, 3}));
  Lane::Unfinished left;
  CHECK(take(pair.lane->withdraw(first, &left)) && equal(left.feeds.at(0), {1, 2, 3}));  // before its second run
  CHECK(!pair.lane->seq_of(first) && pair.lane->in_flight() == 0);
  const std::uint64_t second = run_again({4, 5});
  PortTask task = next_of(pair);                                               // not the one that was withdrawn
  CHECK(pair.lane->claimed(second) && pair.lane->seq_of(second) == task.seq);  // a message to the worker names this run
  CHECK(!take(pair.lane->withdraw(second, &left)));
  echo(pair, &task);
  CHECK(equal(reply_of(pair).tensors.at(0), {4, 5}));
  CHECK(!pair.lane->seq_of(second) && pair.lane->claimed(second) && !take(pair.lane->look_at_feeds(second, &feeds)));
}

TEST(small_slots_that_are_free_make_room_for_a_large_one) {
  LaneOptions options;
  options.arena_bytes = std::size_t{64} << 20;
  const Pair pair(options);
  const std::size_t large = std::size_t{48} << 20;
  std::vector<Lease> kept;
  {
    std::vector<Lease> small;
    while (true) {
      Lease lease = take(pair.lane->lease_feeds(1000));
      if (!lease) break;
      pair.lane->region()->data()[lease.span().offset] = 1;
      small.push_back(std::move(lease));
    }
    CHECK(small.size() > 900);  // the arena is full of small slots
    CHECK(!take(pair.lane->lease_feeds(large)));
    kept.push_back(std::move(small[small.size() - 100]));
  }
  Lease lease = take(pair.lane->lease_feeds(large));
  CHECK(bool(lease));
  const Span span = lease.span();
  CHECK(!span.holds(kept[0].span().offset, 1));
  for (std::size_t i = 0; i < large; i += 4096) CHECK(pair.lane->region()->data()[span.offset + i] == 0);
  lease.release();
  std::vector<Lease> again;  // and small ones again
  for (int i = 0; i < 900; ++i) {
    again.push_back(take(pair.lane->lease_feeds(1000)));
    CHECK(bool(again.back()));
  }
}

TEST(threads_that_take_and_join_slots_never_share_one) {
  LaneOptions options;
  options.arena_bytes = std::size_t{64} << 20;
  const Pair pair(options);
  std::atomic<int> large{0};
  const auto work = [&](unsigned seed) {
    std::minstd_rand random(seed);
    std::vector<Lease> held;
    for (int i = 0; i < 4000; ++i) {
      const std::size_t bytes = random() % 4 == 0 ? std::size_t{1} << (20 + random() % 6) : 1 + random() % 60'000;
      Lease lease = take(pair.lane->lease_feeds(bytes));
      if (!lease || held.size() > 200) {
        held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(held.size() / 2));
        continue;
      }
      large += bytes > (1 << 20);
      auto* first = pair.lane->region()->data() + lease.span().offset;
      std::memset(first, static_cast<int>(seed), 64);
      held.push_back(std::move(lease));
      for (const Lease& one : held) {
        const auto* data = pair.lane->region()->data() + one.span().offset;
        CHECK(data[0] == seed && data[63] == seed);
      }
    }
  };
  std::thread one(work, 1);
  std::thread two(work, 2);
  one.join();
  two.join();
  CHECK(large > 100);
}

TEST(a_reply_from_the_future_puts_nothing_off) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t lie : {most, -most}) {
    const Pair pair;
    int waits = 0;
    submit(pair.lane.get(), {1});
    submit(pair.lane.get(), {2}, 0, &waits);
    PortTask task = next_of(pair);
    echo(pair, &task);
    auto* result = pair.ring<ResultDescriptor>(kResultRingOffset);
    result->picked_ns = result->done_ns = lie;
    result->copy_in_ns = result->execute_ns = result->copy_out_ns = static_cast<float>(lie);
    const Lane::Reply reply = reply_of(pair);
    const std::int64_t now = monotonic_ns();
    const auto oldest = take(pair.lane->oldest());
    CHECK(oldest->task == &waits && oldest->since_ns <= now && oldest->since_ns > now - kPatience);
    CHECK(reply.done_ns <= now && reply.done_ns > now - kPatience);
    for (const std::int64_t ns :
         {reply.times.queued, reply.times.copy_in, reply.times.execute, reply.times.copy_out, reply.times.busy}) {
      CHECK(ns >= 0 && ns < kPatience);
    }
  }
}

TEST(without_memory_a_reply_is_an_error_and_slots_still_come_back) {
  const Pair pair;
  int tokens[3];
  for (int& token : tokens) submit(pair.lane.get(), {1, 2, 3}, 0, &token);
  PortTask task = next_of(pair);
  echo(pair, &task);
  Lane::Reply reply;
  std::vector<Lease> leases;
  for (int i = 0; i < 50; ++i) leases.push_back(take(pair.lane->lease_feeds(1000)));
  t_no_memory = true;
  const bool taken = take(pair.lane->take(&reply));
  for (Lease& lease : leases) lease.release();
  Token left[2] = {};
  const bool discarded = pair.lane->discard_one(&left[0]) && pair.lane->discard_one(&left[1]);
  Token more;
  const bool another = pair.lane->discard_one(&more);
  t_no_memory = false;
  CHECK(taken && reply.token.task == &tokens[0] && reply.error.code() == Code::kOutOfMemory);
  CHECK(discarded && !another && left[0].task != left[1].task && pair.lane->in_flight() == 0);
}

TEST(a_frame_of_too_many_tensors_is_refused_before_there_is_memory_for_them) {
  const Pair pair;
  std::uint8_t* arena = pair.lane->region()->data();
  const Span slot{kDataOffset, std::uint64_t{8} << 20};
  const std::uint32_t count = kMaxTensors + 1;
  std::memcpy(arena + slot.offset, &count, sizeof count);
  std::vector<TensorView> views;
  CHECK(read_frame(arena, slot, slot, slot, &views).code() == Code::kCorrupt);
  CHECK(views.capacity() == 0);
}

TEST(a_result_larger_than_the_arena_is_an_error_with_both_sizes) {
  const Pair pair;
  submit(pair.lane.get(), {1});
  PortTask task = next_of(pair);
  CHECK_OK(pair.port->too_large(&task, std::uint64_t{1} << 60));
  const Lane::Reply reply = reply_of(pair);
  CHECK(reply.kind == Kind::kTooLarge && !reply.error.ok());
  CHECK(reply.error.message().find(std::to_string(std::uint64_t{1} << 60)) != std::string::npos);
  CHECK(pair.lane->in_flight() == 0);
}

TEST(the_worker_refuses_a_corrupt_task) {
  const auto break_it = [](int how, TaskDescriptor* task) {
    if (how == 0) task->table_offset = 0;                      // the header
    if (how == 1) task->table_offset = ~std::uint64_t{0} - 8;  // overflows
    if (how == 2) task->table_bytes = 0;
    if (how == 3) task->result_offset = 128;
    if (how == 4) task->result_bytes = ~std::uint64_t{0};
    if (how == 5) task->kind = 77;
    if (how == 6) task->result_offset += 1;
  };
  for (int how = 0; how <= 6; ++how) {
    const Pair pair;
    submit(pair.lane.get(), {1, 2, 3});
    break_it(how, pair.ring<TaskDescriptor>(kTaskRingOffset));
    PortTask task;
    CHECK(pair.port->next(monotonic_ns() + kPatience, &task).status().code() == Code::kCorrupt);
    CHECK(pair.lane->closed());
  }
}

TEST(the_parent_refuses_a_corrupt_result) {
  const auto break_it = [](int how, ResultDescriptor* result) {
    if (how == 0) result->seq += 1;
    if (how == 1) result->kind = 9;
    if (how == 2) result->table_offset = 0;
    if (how == 3) result->table_bytes = ~std::uint32_t{0};
    if (how == 4) result->table_offset = ~std::uint64_t{0};
  };
  for (int how = 0; how <= 4; ++how) {
    const Pair pair;
    submit(pair.lane.get(), {1, 2, 3});
    PortTask task = next_of(pair);
    echo(pair, &task);
    break_it(how, pair.ring<ResultDescriptor>(kResultRingOffset));
    Lane::Reply reply;
    CHECK(pair.lane->take(&reply).status().code() == Code::kCorrupt);
    CHECK(pair.lane->closed());
    CHECK(pair.lane->abandon().size() == 1);  // the task is not lost with its reply
  }
}

TEST(a_reply_given_twice_is_refused) {
  const Pair pair;
  submit(pair.lane.get(), {1});
  submit(pair.lane.get(), {2});
  PortTask task = next_of(pair);
  PortTask again = task;
  echo(pair, &task);
  again.writer.reset(pair.lane->region()->data(), again.result);
  CHECK_OK(pair.port->finish(&again, Kind::kTensors, {}));
  reply_of(pair);
  Lane::Reply reply;
  CHECK(pair.lane->take(&reply).status().code() == Code::kCorrupt);
}

// A table of random bytes is refused, or its tensors lie inside their room. Sanitizers check the reads.
TEST(no_table_whatsoever_leads_outside) {
  const Pair pair;
  std::uint8_t* arena = pair.lane->region()->data();
  const Span slot{kDataOffset, 1 << 16};
  std::minstd_rand random(9);
  std::size_t accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    FrameWriter writer(arena, slot);
    const std::int64_t dims[2] = {4, 4};
    CHECK(writer.reserve(0, DType::kFloat32, dims, 2, 64) != nullptr);
    CHECK(writer.reserve(1, DType::kInt64, dims, 1, 32) != nullptr);
    Span table;
    CHECK(writer.finish(&table));
    const unsigned changes = random() % 4;
    for (unsigned i = 0; i < changes; ++i) arena[table.offset + random() % table.bytes] = static_cast<std::uint8_t>(random());
    if (random() % 8 == 0) table.bytes = random() % 200;
    std::vector<TensorView> views;
    if (!read_frame(arena, table, slot, slot, &views).ok()) continue;
    ++accepted;
    for (const TensorView& view : views) {
      const auto* data = static_cast<const std::uint8_t*>(view.data);
      CHECK(view.bytes == 0 || (data >= arena + slot.offset && data + view.bytes <= arena + slot.offset + slot.bytes));
    }
  }
  CHECK(accepted > 1000 && accepted < 19'000);
}

TEST(attach_refuses_what_is_no_arena) {
  const Pair pair;
  const auto attach = [&](int fd) { return Port::attach(Fd(fd), Fd(dup(pair.bell->fd()))).status(); };
  const int unsealed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK(ftruncate(unsealed, 1 << 20) == 0);
  CHECK(attach(unsealed).message().find("sealed") != std::string::npos);
  const auto empty = take(Region::create("test", 1 << 20, 1 << 20));
  CHECK(attach(dup(empty->fd())).message().find("magic") != std::string::npos);
  int pipe_fds[2];
  CHECK(pipe(pipe_fds) == 0);
  CHECK(attach(pipe_fds[0]).code() == Code::kCorrupt);
  close(pipe_fds[1]);
  CHECK(!attach(-1).ok());
  pair.header()->geometry.version = 99;
  const Status status = attach(dup(pair.lane->region()->fd()));
  CHECK(status.message().find("99") != std::string::npos &&
        status.message().find("expected " + std::to_string(kVersion)) != std::string::npos);
}

TEST(a_sealed_arena_keeps_its_size) {
  const Pair pair;
  CHECK(ftruncate(pair.lane->region()->fd(), 4096) != 0);
  CHECK(ftruncate(pair.lane->region()->fd(), static_cast<off_t>(pair.lane->region()->size()) * 2) != 0);
}

TEST(a_closed_lane_is_drained_and_takes_no_more) {
  const Pair pair;
  submit(pair.lane.get(), {1});
  submit(pair.lane.get(), {2});
  pair.lane->close();
  CHECK(pair.lane->begin(64).status().code() == Code::kClosed);
  for (int i = 0; i < 2; ++i) {
    PortTask task = next_of(pair);
    echo(pair, &task);
  }
  PortTask task;
  CHECK(take(pair.port->next(kNoDeadline, &task)) == Next::kClosed);
  for (int i = 0; i < 2; ++i) reply_of(pair);
}

TEST(what_a_worker_leaves_is_named_in_order_with_its_feeds) {
  const Pair pair;
  int tokens[3];
  for (unsigned i = 0; i < 3; ++i) submit(pair.lane.get(), pattern(1000 + i, i), 0, &tokens[i]);
  PortTask task = next_of(pair);
  echo(pair, &task);
  reply_of(pair);
  const auto left = pair.lane->abandon();
  CHECK(left.size() == 2);
  for (unsigned i = 0; i < 2; ++i) {
    CHECK(left[i].token.task == &tokens[i + 1] && left[i].readable.ok());
    CHECK(equal(left[i].feeds.at(0), pattern(1001 + i, i + 1)));
  }
  CHECK(pair.lane->in_flight() == 0);
}

TEST(a_lease_outlives_lane_and_port) {
  const auto bytes = pattern(1 << 20, 4);
  Lane::Reply reply;
  {
    const Pair pair;
    submit(pair.lane.get(), bytes);
    PortTask task = next_of(pair);
    echo(pair, &task);
    reply = reply_of(pair);
  }
  CHECK(equal(reply.tensors.at(0), bytes));
}

TEST(the_slot_used_last_is_used_next) {
  const Pair pair;
  const std::uint8_t* first = nullptr;
  for (int i = 0; i < 20; ++i) {
    submit(pair.lane.get(), {1, 2, 3});
    PortTask task = next_of(pair);
    const auto* at = static_cast<const std::uint8_t*>(task.feeds[0].data);
    if (first == nullptr) first = at;
    CHECK(at == first);
    echo(pair, &task);
    reply_of(pair);
  }
}

namespace {
std::size_t memory_of(const Region& region) {
  struct stat status{};
  CHECK(fstat(region.fd(), &status) == 0);
  return static_cast<std::size_t>(status.st_blocks) * 512;
}
}  // namespace

TEST(idle_memory_is_given_back_beyond_a_limit) {
  const Pair pair;
  const std::size_t size = std::size_t{72} << 20;
  {
    std::vector<Lease> leases;
    for (int i = 0; i < 6; ++i) {
      leases.push_back(take(pair.lane->lease_feeds(size)));
      CHECK(bool(leases.back()));
      std::memset(pair.lane->region()->data() + leases.back().span().offset, 1, size);
    }
    CHECK(memory_of(*pair.lane->region()) >= 6 * size);
  }
  const std::size_t kept = memory_of(*pair.lane->region());
  CHECK(kept <= 4 * size + (std::size_t{4} << 20) && kept >= size);
  pair.lane->trim();
  CHECK(memory_of(*pair.lane->region()) < (std::size_t{4} << 20));
}

TEST(two_threads_submit_and_one_takes) {
  const Pair pair;
  constexpr int kEach = 3000;
  std::uint64_t served = 0;
  PortTask scratch;
  std::thread worker([&] {
    worker::EchoHandler handler;
    CHECK(take(worker::serve(pair.port.get(), &handler, &scratch, &served)) == worker::Stopped::kClosed);
  });
  std::atomic<int> answered{0};
  const auto feed = [&](unsigned who) {
    for (int i = 0; i < kEach; ++i) {
      while (pair.lane->in_flight() > 100) std::this_thread::yield();
      submit(pair.lane.get(), pattern(static_cast<std::size_t>(i % 500), who));
    }
  };
  std::thread one(feed, 1);
  std::thread two(feed, 2);
  while (answered < 2 * kEach) {
    const Lane::Reply reply = reply_of(pair);
    const TensorView& view = reply.tensors.at(0);
    CHECK(equal(view, pattern(view.bytes, 1)) || equal(view, pattern(view.bytes, 2)));
    ++answered;
  }
  one.join();
  two.join();
  pair.lane->close();
  worker.join();
  CHECK(served == 2 * kEach && pair.lane->in_flight() == 0);
}

TEST(quantiles_are_near_the_truth) {
  Histogram histogram;
  for (std::int64_t ns = 1; ns <= 1'000'000; ++ns) histogram.record(ns);
  CHECK(histogram.count() == 1'000'000 && histogram.max() == 1'000'000);
  for (const double q : {0.5, 0.9, 0.99}) {
    const double found = histogram.quantile(q);
    CHECK(found > q * 1e6 * 0.98 && found < q * 1e6 * 1.02);
  }
  CHECK(histogram.quantile(1.0) <= 1e6);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
