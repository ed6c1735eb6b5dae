// A pool of simulated devices that runs the scheduler: the same code as the pool, with time that is made up. For tests, and for
// planning past the processors of one machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pool/scheduler.hpp"

namespace ais::pool {

struct SimulatedDevice {
  Nanos task_ns = 10'000'000;  // what a task of length 1 takes
  double spread = 0;           // standard deviation of the logarithm: 0 is even, 1 varies by a factor of 2.7 and more
  int depth = 1;               // tasks that it claims at a time, as a pipeline does
  Nanos dies_at = kNever;      // once; it comes back after `restart_ns`
  Nanos restart_ns = 50'000'000;
  int only_cpu = kNoCpu;  // see Worker
};

// Tasks that come one after the other (a stream, drawn as the scheduler wants more) or at times of their own (calls).
struct SimulatedSource {
  std::vector<double> lengths;    // of the tasks, in device units
  std::vector<Nanos> arrivals;    // empty: a stream; else when each task comes
  bool known_end = false;         // whether the scheduler is told how many are left
  std::size_t window = SIZE_MAX;  // of a stream: tasks under way at most, counted from the oldest that is not done
};

struct Simulation {
  Options options;
  std::vector<SimulatedDevice> devices;
  std::vector<SimulatedSource> sources;
  Nanos turnaround_ns = 30'000;  // from a reply to the worker's next task, where the parent has to send it
  std::uint64_t seed = 1;
  int skip = kNoCpu;  // see Scheduler::next
  bool check = true;  // the books at every step
};

struct Simulated {
  Nanos wall_ns = 0;
  std::vector<Nanos> busy_ns;               // of each device
  std::vector<std::uint64_t> tasks;         // done by each device
  std::vector<std::vector<Nanos>> done_ns;  // of each source's tasks, since they came (calls) or the start (streams)
  std::uint64_t taken_back = 0;
  std::uint64_t crashes = 0;
  std::uint64_t failed = 0;
  std::uint64_t hedged = 0;  // tasks that ran a second time beside the first
  std::uint64_t steps = 0;
  std::size_t most_ahead = 0;             // of all streams: tasks under way over the oldest that was not done
  std::vector<std::size_t> most_in_hand;  // of each device
  std::uint64_t idle_beside_waiting = 0;  // steps at which a device was idle, a task that it may run waited, and it would have
                                          // finished before the others were through
  // The rule that the scheduler broke: its books, a task lost or done twice, a wrong device. Empty: none.
  std::string wrong;
  double nanoseconds_a_task = 0;  // of this process's time in the scheduler
};

// given.
Simulated simulate(const Simulation& simulation);

}  // namespace ais::pool
