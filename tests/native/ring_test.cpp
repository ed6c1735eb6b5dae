// The ring and the doorbell alone: validation, wrap-around, and stress with either side faster, between threads
// (ThreadSanitizer checks the ordering) and between processes that are killed at random moments.
#include "shm/ring.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/process.hpp"
#include "check.hpp"
#include "shm/futex.hpp"

using namespace ais;
using namespace ais::shm;

namespace {

// One ring with a bell at each end and, as in an arena, memory that belongs to an entry.
struct Shared {
  std::atomic<std::uint64_t> write_pos{0};
  alignas(64) std::atomic<std::uint64_t> read_pos{0};
  alignas(64) std::atomic<std::uint64_t> readable{0};
  alignas(64) std::atomic<std::uint64_t> writable{0};
  alignas(64) std::uint8_t entries[kRingSlots * sizeof(TaskDescriptor)];
  std::uint64_t payload[kRingSlots][16];
};

class SharedMemory {
 public:
  SharedMemory() {
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    shared_ = new (memory) Shared();
  }
  ~SharedMemory() { munmap(shared_, sizeof(Shared)); }
  Shared* operator->() const { return shared_; }
  Producer<TaskDescriptor> producer() const { return {&shared_->write_pos, &shared_->read_pos, shared_->entries}; }
  Consumer<TaskDescriptor> consumer() const { return {&shared_->write_pos, &shared_->read_pos, shared_->entries}; }

 private:
  Shared* shared_;
};

TaskDescriptor entry_of(std::uint64_t seq) {
  TaskDescriptor entry{};
  entry.seq = seq;
  entry.option = ~seq;
  return entry;
}

void dawdle(std::minstd_rand* random, bool slow) {
  if (!slow || (*random)() % 64 != 0) return;
  for (volatile unsigned i = 0; i < (*random)() % 2000; i = i + 1) {
  }
}

constexpr std::int64_t kPatience = std::chrono::nanoseconds(check::kPatience).count();

// Publishes `count` entries, each with its own payload.
void produce(const SharedMemory& shared, std::uint64_t count, bool slow) {
  auto ring = shared.producer();
  const Doorbell readable(&shared->readable);
  const Doorbell writable(&shared->writable);
  std::minstd_rand random(7);
  for (std::uint64_t seq = 0; seq < count;) {
    const std::uint32_t ticket = writable.ticket();
    // The slot of the payload is free when the ring has room, as a parent's slot is free when its reply was taken.
    if (seq < shared->read_pos.load(std::memory_order_acquire) + kRingSlots) {
      for (std::uint64_t& word : shared->payload[seq % kRingSlots]) word = seq;
      const Result<bool> pushed = ring.try_push(entry_of(seq));
      CHECK(pushed.ok() && pushed.value());
      readable.ring();
      ++seq;
      dawdle(&random, slow);
    } else {
      CHECK(writable.wait(ticket, monotonic_ns() + kPatience, seq % 3 == 0 ? 20'000 : 0) != Wake::kTimeout);
    }
  }
}

// Takes entries until there are `count`, or until `stop` is set; returns the number. Each entry is checked, and the order. The
// payload is read before the entry is released, so here "take" means peek and pop.
std::uint64_t consume(const SharedMemory& shared, std::uint64_t count, bool slow, const std::atomic<bool>* stop = nullptr) {
  auto ring = shared.consumer();
  const Doorbell readable(&shared->readable);
  const Doorbell writable(&shared->writable);
  std::minstd_rand random(11);
  std::uint64_t next = 0;
  while (next < count) {
    const std::uint32_t ticket = readable.ticket();
    const bool stopping = stop != nullptr && stop->load(std::memory_order_acquire);
    std::uint64_t unread = 0;
    CHECK_OK(ring.each_unread([&](const TaskDescriptor& entry) {
      CHECK(entry.seq == next + unread && entry.option == ~entry.seq);
      for (const std::uint64_t word : shared->payload[entry.seq % kRingSlots]) CHECK(word == entry.seq);
      ++unread;
    }));
    for (std::uint64_t i = 0; i < unread; ++i) {
      TaskDescriptor entry;
      const Result<bool> popped = ring.try_pop(&entry);
      CHECK(popped.ok() && popped.value() && entry.seq == next);
      ++next;
    }
    if (unread != 0) {
      writable.ring();
      dawdle(&random, slow);
    } else if (stopping) {
      break;
    } else {
      CHECK(readable.wait(ticket, monotonic_ns() + kPatience, next % 3 == 0 ? 20'000 : 0) != Wake::kTimeout);
    }
  }
  return next;
}

std::uint64_t scaled(std::uint64_t count) {
  const char* factor = std::getenv("AIS_BENCH_STRESS");
  return factor == nullptr ? count : count * std::strtoull(factor, nullptr, 10);
}

void stress_threads(bool slow_producer, bool slow_consumer) {
  const SharedMemory shared;
  const std::uint64_t count = scaled(200'000);
  std::thread producer([&] { produce(shared, count, slow_producer); });
  CHECK(consume(shared, count, slow_consumer) == count);
  producer.join();
}

}  // namespace

TEST(an_entry_is_seen_once_and_in_order_around_the_wrap) {
  const SharedMemory shared;
  auto producer = shared.producer();
  auto consumer = shared.consumer();
  TaskDescriptor entry;
  CHECK(!consumer.try_pop(&entry).value());
  for (std::uint64_t seq = 0; seq < 5 * kRingSlots + 3; ++seq) {
    CHECK(producer.try_push(entry_of(seq)).value());
    CHECK(consumer.try_pop(&entry).value());
    CHECK(entry.seq == seq && entry.option == ~seq);
    CHECK(!consumer.try_pop(&entry).value());
  }
}

TEST(a_full_ring_takes_no_more_until_one_is_read) {
  const SharedMemory shared;
  auto producer = shared.producer();
  auto consumer = shared.consumer();
  for (std::uint64_t seq = 0; seq < kRingSlots; ++seq) CHECK(producer.try_push(entry_of(seq)).value());
  CHECK(!producer.try_push(entry_of(99)).value());
  TaskDescriptor entry;
  CHECK(consumer.try_pop(&entry).value() && entry.seq == 0);
  CHECK(producer.try_push(entry_of(kRingSlots)).value());
  CHECK(!producer.try_push(entry_of(99)).value());
}

TEST(an_impossible_write_position_is_corrupt) {
  for (const std::uint64_t position : {std::uint64_t{kRingSlots + 6}, ~std::uint64_t{0}, std::uint64_t{2}}) {
    const SharedMemory shared;
    auto producer = shared.producer();
    auto consumer = shared.consumer();
    TaskDescriptor entry;
    for (std::uint64_t seq = 0; seq < 5; ++seq) {
      CHECK(producer.try_push(entry_of(seq)).value());
      CHECK(consumer.try_pop(&entry).value());
    }
    shared->write_pos.store(position);
    CHECK(consumer.try_pop(&entry).status().code() == Code::kCorrupt);
    CHECK(consumer.each_unread([](const TaskDescriptor&) {}).code() == Code::kCorrupt);
  }
}

TEST(an_impossible_read_position_is_corrupt) {
  for (const std::uint64_t position : {std::uint64_t{kRingSlots + 1}, ~std::uint64_t{0}}) {
    const SharedMemory shared;
    auto producer = shared.producer();
    for (std::uint64_t seq = 0; seq < kRingSlots; ++seq) CHECK(producer.try_push(entry_of(seq)).value());
    shared->read_pos.store(position);
    CHECK(producer.try_push(entry_of(0)).status().code() == Code::kCorrupt);
  }
}

TEST(a_ring_before_the_wait_is_not_missed) {
  std::atomic<std::uint64_t> word{0};
  const Doorbell bell(&word);
  const std::uint32_t ticket = bell.ticket();
  bell.ring();
  CHECK(bell.wait(ticket, kNoDeadline, 0) == Wake::kRung);
}

TEST(a_wait_ends_at_its_deadline) {
  std::atomic<std::uint64_t> word{0};
  const Doorbell bell(&word);
  const std::int64_t deadline = monotonic_ns() + 2'000'000;
  CHECK(bell.wait(bell.ticket(), deadline, 0) == Wake::kTimeout);
  CHECK(monotonic_ns() >= deadline);
}

TEST(the_epoch_wraps_without_touching_the_announcements) {
  std::atomic<std::uint64_t> word{0xffffffff00000001};
  const Doorbell bell(&word);
  bell.ring();
  CHECK(word.load() == 1);
  CHECK(bell.wait(0xffffffff, kNoDeadline, 0) == Wake::kRung);
}

namespace {
// Returns whether the thread is in the futex: field 3 of its stat is 'S' only there, because it blocks nowhere else.
bool asleep(pid_t tid) {
  std::ifstream stat("/proc/self/task/" + std::to_string(tid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), std::istreambuf_iterator<char>());
  return text.find(") S") != std::string::npos;
}
}  // namespace

// B3. Without it the sleeper below sleeps until its deadline, and the check of the time fails.
TEST(a_ringer_that_dies_before_its_system_call_takes_no_wake_up_along) {
  std::atomic<std::uint64_t> word{0};
  const Doorbell bell(&word);
  std::atomic<pid_t> tid{0};
  Wake wake = Wake::kTimeout;
  const std::int64_t deadline = monotonic_ns() + kPatience;
  std::thread sleeper([&] {
    tid = static_cast<pid_t>(syscall(SYS_gettid));
    wake = bell.wait(0, deadline, 0);
  });
  while (tid == 0 || (word.load() & 0xffffffff) == 0 || !asleep(tid)) std::this_thread::yield();
  word.fetch_add(std::uint64_t{1} << 32);  // the first half of a ring, by a process that dies
  bell.ring();
  sleeper.join();
  CHECK(wake == Wake::kRung && monotonic_ns() < deadline);
}

TEST(one_ring_wakes_all_who_wait) {
  std::atomic<std::uint64_t> word{0};
  const Doorbell bell(&word);
  const std::uint32_t ticket = bell.ticket();
  std::vector<std::thread> sleepers;
  std::atomic<int> woken{0};
  for (int i = 0; i < 4; ++i) {
    sleepers.emplace_back([&] {
      if (bell.wait(ticket, monotonic_ns() + kPatience, 0) == Wake::kRung) ++woken;
    });
  }
  while ((word.load() & 0xffffffff) != 4) std::this_thread::yield();  // all have announced themselves
  bell.ring();
  for (std::thread& sleeper : sleepers) sleeper.join();
  CHECK(woken == 4);
}

// Without bells, whose read-modify-writes would order everything: this tests SYNC(publish) and SYNC(recycle) alone.
TEST(the_positions_alone_order_the_entries) {
  const SharedMemory shared;
  const std::uint64_t count = scaled(100'000);
  std::thread producer([&] {
    auto ring = shared.producer();
    for (std::uint64_t seq = 0; seq < count;) {
      const Result<bool> pushed = ring.try_push(entry_of(seq));
      CHECK(pushed.ok());
      if (pushed.value()) {
        ++seq;
      } else {
        std::this_thread::yield();
      }
    }
  });
  auto ring = shared.consumer();
  for (std::uint64_t seq = 0; seq < count;) {
    TaskDescriptor entry;
    const Result<bool> popped = ring.try_pop(&entry);
    CHECK(popped.ok());
    if (popped.value()) {
      CHECK(entry.seq == seq && entry.option == ~seq);
      ++seq;
    } else {
      std::this_thread::yield();
    }
  }
  producer.join();
}

// SYNC(bell) alone: a thread that sees a ring also sees everything that was written before it.
TEST(a_ring_publishes_what_came_before_it) {
  std::atomic<std::uint64_t> there{0};
  std::atomic<std::uint64_t> back{0};
  const Doorbell to(&there);
  const Doorbell from(&back);
  std::uint64_t value = 0;  // not atomic: the bells order its accesses
  constexpr std::uint32_t kRounds = 5000;
  std::thread other([&] {
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      CHECK(to.wait(round, monotonic_ns() + kPatience, round % 2 * 50'000) == Wake::kRung);
      CHECK(value == 2 * round + 1);
      ++value;
      from.ring();
    }
  });
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    CHECK(value == 2 * round);
    ++value;
    to.ring();
    CHECK(from.wait(round, monotonic_ns() + kPatience, round % 3 * 50'000) == Wake::kRung);
  }
  other.join();
}

TEST(stress_even) { stress_threads(false, false); }
TEST(stress_slow_producer) { stress_threads(true, false); }
TEST(stress_slow_consumer) { stress_threads(false, true); }

// Entries that a killed producer has published are complete, and no other entry is visible.
TEST(a_killed_producer_leaves_only_whole_entries) {
  std::minstd_rand random(3);
  for (int round = 0; round < 60; ++round) {
    const SharedMemory shared;
    const pid_t producer = fork();
    CHECK(producer >= 0);
    if (producer == 0) {
      produce(shared, ~std::uint64_t{0}, false);
      _exit(0);
    }
    std::atomic<bool> dead{false};
    std::uint64_t taken = 0;
    std::thread consumer([&] { taken = consume(shared, ~std::uint64_t{0}, false, &dead); });
    while (shared->write_pos.load() == 0) std::this_thread::yield();  // it is at work
    const std::int64_t until = monotonic_ns() + random() % 2'000'000;
    while (monotonic_ns() < until) {
    }
    CHECK(kill(producer, SIGKILL) == 0);
    int status = 0;
    CHECK(waitpid(producer, &status, 0) == producer && WIFSIGNALED(status));
    dead.store(true, std::memory_order_release);
    Doorbell(&shared->readable).ring();
    consumer.join();
    CHECK(taken > 0 && taken == shared->write_pos.load());
  }
}

// If a consumer is killed at any point, the producer is woken and finds valid positions.
TEST(a_killed_consumer_leaves_sane_positions) {
  std::minstd_rand random(5);
  for (int round = 0; round < 60; ++round) {
    const SharedMemory shared;
    const pid_t consumer = fork();
    CHECK(consumer >= 0);
    if (consumer == 0) {
      consume(shared, ~std::uint64_t{0}, false);
      _exit(0);
    }
    auto ring = shared.producer();
    const Doorbell readable(&shared->readable);
    const std::int64_t until = monotonic_ns() + 200'000 + random() % 2'000'000;
    std::uint64_t seq = 0;
    const auto fill = [&] {
      while (seq < shared->read_pos.load(std::memory_order_acquire) + kRingSlots) {
        for (std::uint64_t& word : shared->payload[seq % kRingSlots]) word = seq;
        const Result<bool> pushed = ring.try_push(entry_of(seq));
        CHECK(pushed.ok());
        CHECK(pushed.value());
        readable.ring();
        ++seq;
      }
    };
    while (monotonic_ns() < until || shared->read_pos.load() == 0) fill();
    CHECK(kill(consumer, SIGKILL) == 0);
    int status = 0;
    CHECK(waitpid(consumer, &status, 0) == consumer && WIFSIGNALED(status));
    fill();
    const Result<bool> full = ring.try_push(entry_of(seq));
    CHECK(full.ok() && !full.value());
    CHECK(shared->read_pos.load() <= seq && seq - shared->read_pos.load() == kRingSlots);
  }
}

TEST(each_task_is_run_or_withdrawn_and_never_both) {
  const SharedMemory shared;
  const std::uint64_t count = scaled(100'000);
  std::atomic<std::uint64_t> ran{0};  // the newest answered task plus one
  std::thread consumer([&] {
    auto ring = shared.consumer();
    TaskDescriptor entry;
    for (std::uint64_t next = 0; next < count;) {
      const Result<bool> popped = ring.try_pop(&entry);
      CHECK(popped.ok());
      if (!popped.value()) {
        if (ran.load() == count) return;  // the last tasks were withdrawn
        std::this_thread::yield();
        continue;
      }
      CHECK(entry.seq >= next && entry.option == ~entry.seq);
      for (const std::uint64_t word : shared->payload[0]) CHECK(word == entry.seq);
      next = entry.seq + 1;
      std::uint64_t before = entry.seq;
      CHECK(ran.compare_exchange_strong(before, next, std::memory_order_acq_rel));
    }
  });
  // All tasks use one slot, so a side that uses it without owning the task causes a data race.
  auto ring = shared.producer();
  std::minstd_rand random(3);
  std::uint64_t withdrawn = 0;
  for (std::uint64_t seq = 0; seq < count; ++seq) {
    for (std::uint64_t& word : shared->payload[0]) word = seq;
    while (!ring.try_push(entry_of(seq)).value()) std::this_thread::yield();
    for (unsigned pause = random() % 512; pause > 0; --pause) std::atomic_signal_fence(std::memory_order_seq_cst);
    if (random() % 2 == 0 && ring.withdraw(seq, seq)) {
      for (std::uint64_t& word : shared->payload[0]) word = ~seq;
      std::uint64_t before = seq;
      CHECK(ran.compare_exchange_strong(before, seq + 1));  // a withdrawn task does not run
      ++withdrawn;
    } else {
      while (ran.load(std::memory_order_acquire) != seq + 1) std::this_thread::yield();
      CHECK(ring.claimed(seq, seq) && !ring.withdraw(seq, seq));
    }
  }
  consumer.join();
  CHECK(withdrawn > 0 && withdrawn < count);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
