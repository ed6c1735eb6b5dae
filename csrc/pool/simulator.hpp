// Runs the scheduler's code on simulated devices, in simulated time. For tests, and for numbers of devices that one machine
// does not have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pool/scheduler.hpp"

namespace ais::pool {

struct SimulatedDevice {
  Nanos task_ns = 10'000'000;  // the time of a task of length 1
  double spread = 0;           // standard deviation of the logarithm of times; 0: constant times
  int depth = 1;               // tasks that it claims at a time, like a pipeline
  Nanos dies_at = kNever;      // it dies once, and is restarted after `restart_ns`
  Nanos restart_ns = 50'000'000;
  int only_cpu = kNoCpu;  // see Worker
};

// A stream, whose tasks are drawn when the scheduler has room for more, or calls at given times.
struct SimulatedSource {
  std::vector<double> lengths;    // of the tasks, in device units
  std::vector<Nanos> arrivals;    // empty: a stream; otherwise the arrival time of each task
  bool known_end = false;         // whether the scheduler knows how many tasks are left
  std::size_t window = SIZE_MAX;  // of a stream: maximum of tasks in progress, counted from the oldest unfinished one
};

struct Simulation {
  Options options;
  std::vector<SimulatedDevice> devices;
  std::vector<SimulatedSource> sources;
  Nanos turnaround_ns = 30'000;  // from a reply to the worker's next task, if the parent must send it
  std::uint64_t seed = 1;
  int skip = kNoCpu;  // see Scheduler::next
  bool check = true;  // check the scheduler's state at every step
};

struct Simulated {
  Nanos wall_ns = 0;
  std::vector<Nanos> busy_ns;               // of each device
  std::vector<std::uint64_t> tasks;         // done by each device
  std::vector<std::vector<Nanos>> done_ns;  // of each source's tasks, since their arrival (calls) or the start (streams)
  std::uint64_t taken_back = 0;
  std::uint64_t crashes = 0;
  std::uint64_t failed = 0;
  std::uint64_t hedged = 0;  // tasks that ran a second time beside the first
  std::uint64_t steps = 0;
  std::size_t most_ahead = 0;             // of all streams: tasks in progress beyond the oldest unfinished one
  std::vector<std::size_t> most_in_hand;  // of each device
  std::uint64_t idle_beside_waiting = 0;  // steps at which a device was idle although a task waited that it would have
                                          // finished before the other devices had finished theirs
  // The violated rule: an inconsistent state, a task that was lost or done twice, a wrong device. Empty: none.
  std::string wrong;
  double nanoseconds_a_task = 0;  // real time in the scheduler
};

// Runs the simulation to its end, or to the first violated rule.
Simulated simulate(const Simulation& simulation);

}  // namespace ais::pool
