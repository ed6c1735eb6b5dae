// Runs a model in a separate thread on feeds that other threads made, while these threads make the next feeds and take the last
// outputs. It knows nothing about Python: the device never waits for the GIL between two jobs.
//
//   submit(job)   any thread      -> waiting_ ->   run()   one thread
//                                                    |-- outputs in the task's slot: answered here, then spent_
//                                                    `-- outputs elsewhere:          done_ -> next_done()   any thread
//
// A job belongs to the thread that holds it; no job is shared. Both queues are short, so that tasks wait in the lane, where the
// parent can still give them to another worker.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/status.hpp"
#include "session/pipeline.hpp"
#include "session/session.hpp"
#include "shm/port.hpp"

namespace ais::worker {

class Executor {
 public:
  struct Job {
    virtual ~Job() = default;
    shm::PortTask task;                   // answered by the executor, unless the run succeeded and `sink` is set
    std::vector<session::Feed> feeds;     // valid as long as the job
    session::OutputSink* sink = nullptr;  // null: outputs go to the task's slot
    shm::StageTimes times;
    bool answered = false;
  };
  using JobPtr = std::unique_ptr<Job>;

  // The port outlives the executor.
  Executor(std::shared_ptr<session::Session> session, shm::Port* port);

  // Hands over a job. Blocks while enough jobs wait. After a failure of run() the job is dropped, because the process ends.
  void submit(JobPtr job);
  // Declares that no more jobs come.
  void end();
  // See Handler::cancel.
  void cancel(std::uint64_t seq);
  // Executes jobs until end() and the last job. Calls `idle` when no job is in progress and none waits. After a failure the
  // lane, or (DeviceLost) the device, cannot be used any more.
  Status run(const std::function<void()>& idle);
  // Returns the next job with its outputs in its sink, in the order of execution; null after the last.
  JobPtr next_done();
  // Returns answered jobs, because freeing their feeds may need a lock.
  std::vector<JobPtr> take_spent();

 private:
  JobPtr pop(bool wait, const std::function<void()>& idle);
  void start(JobPtr job);
  Status finish_oldest();
  void hand_on(JobPtr job);

  const std::shared_ptr<session::Session> session_;
  shm::Port* const port_;

  struct StartedJob {
    JobPtr job;
    std::unique_ptr<session::OutputSink> slot;  // used if the job has no sink
    Status status;                              // an error: it did not start
  };
  std::deque<StartedJob> under_way_;                    // used by run() only
  std::unique_ptr<session::SessionPipeline> pipeline_;  // used by run() only; null: one run after the other

  std::mutex lock_;  // guards everything below
  std::condition_variable changed_;
  std::deque<JobPtr> waiting_;
  std::deque<JobPtr> done_;
  std::vector<JobPtr> spent_;
  std::deque<std::uint64_t> running_;  // the numbers of the tasks in progress
  std::size_t most_waiting_ = 1;
  bool ended_ = false;     // no more jobs come
  bool finished_ = false;  // run() has ended
};

}  // namespace ais::worker
