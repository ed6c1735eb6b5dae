// Processes events in the order of time: a device finishes, a call arrives, a device dies or restarts, a decision is due.
#include "pool/simulator.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <queue>
#include <random>
#include <string>

namespace ais::pool {
namespace {

struct SimulatedTask : Task {
  std::size_t from = 0;
  std::size_t number = 0;
  double length = 1;
  Nanos came = 0;
  bool done = false;
  Worker* left = nullptr;  // the worker from which it was taken back last, and when
  Nanos left_at = 0;
  SimulatedTask* first = nullptr;  // set if this is a second run of it
  SimulatedTask* second = nullptr;
};

enum class What { kFinish, kArrive, kDie, kReturn, kReady, kLook };

struct Event {
  Nanos at;
  std::uint64_t order;
  What what;
  std::size_t which;
  std::uint64_t life;
  bool operator>(const Event& other) const { return at != other.at ? at > other.at : order > other.order; }
};

struct SimulatedWorker : Worker {
  SimulatedDevice how;
  std::deque<SimulatedTask*> ring;     // sent, not claimed
  std::deque<SimulatedTask*> claimed;  // the first one is running
  Nanos began = 0;
  std::uint64_t life = 1;
  bool alive = true;
};

class Machine {
 public:
  explicit Machine(const Simulation& simulation)
      : simulation_(simulation), scheduler_(simulation.options), random_(simulation.seed) {
    for (const SimulatedDevice& how : simulation.devices) {
      auto device = std::make_unique<SimulatedWorker>();
      device->device = static_cast<int>(devices_.size());
      device->how = how;
      device->only_cpu = how.only_cpu;
      scheduler_.add(device.get());
      if (how.dies_at != kNever) push(how.dies_at, What::kDie, devices_.size(), 0);
      devices_.push_back(std::move(device));
    }
    for (const SimulatedSource& how : simulation.sources) {
      auto source = std::make_unique<Source>();
      source->to_come =
          how.arrivals.empty() ? (how.known_end ? static_cast<std::int64_t>(how.lengths.size()) : Source::kEndless) : 0;
      scheduler_.add(source.get());
      for (std::size_t i = 0; i < how.arrivals.size(); ++i) push(how.arrivals[i], What::kArrive, sources_.size(), i);
      jobs_.emplace_back(how.lengths.size());
      drawn_.push_back(0);
      oldest_.push_back(0);
      sources_.push_back(std::move(source));
      left_ += how.lengths.size();
    }
    result_.busy_ns.resize(devices_.size());
    result_.tasks.resize(devices_.size());
    result_.most_in_hand.resize(devices_.size());
    for (const SimulatedSource& how : simulation.sources) result_.done_ns.emplace_back(how.lengths.size(), kUnknown);
  }

  Simulated run() {
    for (const std::vector<std::unique_ptr<SimulatedTask>>& jobs : jobs_) total_ += jobs.size();
    schedule();
    while (left_ > 0 && result_.wrong.empty()) {
      if (events_.empty()) {
        wrong("tasks are left and nothing will happen");
        break;
      }
      const Event event = events_.top();
      events_.pop();
      if (event.at > now_) now_ = event.at;
      handle(event);
      schedule();
      if (simulation_.check) {
        const std::string books = scheduler_.check();
        if (!books.empty()) wrong("the scheduler's books: " + books);
        look_for_idle();
      }
      if (++result_.steps > 1000 * (total_ + 1000)) wrong("it does not come to an end");
    }
    result_.wall_ns = finished_;
    result_.nanoseconds_a_task = static_cast<double>(spent_) / static_cast<double>(std::max<std::size_t>(1, total_));
    for (const std::vector<Nanos>& done : result_.done_ns) {
      if (std::count(done.begin(), done.end(), kUnknown) > 0) wrong("a task was lost");
    }
    return result_;
  }

 private:
  void wrong(const std::string& what) {
    if (result_.wrong.empty()) result_.wrong = what;
  }

  void push(Nanos at, What what, std::size_t which, std::uint64_t life) { events_.push({at, order_++, what, which, life}); }

  void handle(const Event& event) {
    switch (event.what) {
      case What::kArrive:
        arrive(event.which, event.life);
        break;
      case What::kFinish:
        if (devices_[event.which]->alive && devices_[event.which]->life == event.life) finish(event.which);
        break;
      case What::kReady:
        if (devices_[event.which]->alive && devices_[event.which]->life == event.life) claim(event.which);
        break;
      case What::kDie:
        die(event.which);
        break;
      case What::kReturn:
        devices_[event.which]->alive = devices_[event.which]->open = true;
        ++devices_[event.which]->life;
        scheduler_.add(devices_[event.which].get());
        break;
      case What::kLook:
        break;
    }
  }

  void arrive(std::size_t from, std::size_t number) {
    const SimulatedSource& how = simulation_.sources[from];
    auto job = std::make_unique<SimulatedTask>();
    job->source = sources_[from].get();
    job->kind = static_cast<std::uint32_t>(from);
    job->from = from;
    job->number = number;
    job->length = how.lengths[number];
    job->came = how.arrivals.empty() ? 0 : now_;
    SimulatedTask* const added = job.get();
    jobs_[from][number] = std::move(job);
    timed([&] { scheduler_.add(added); });
  }

  // Draws the tasks that streams want, and places all tasks that can be placed, until nothing changes.
  void schedule() {
    bool again = true;
    while (again) {
      again = false;
      while (Task* task = timed([&] { return scheduler_.next(now_, simulation_.skip); }))
        send(static_cast<SimulatedTask*>(task));
      for (std::size_t from = 0; from < sources_.size(); ++from) again |= draw(from);
      if (again) continue;
      if (Task* task = timed([&] { return scheduler_.take_back(now_, simulation_.skip); })) {
        again = withdraw(static_cast<SimulatedTask*>(task));
      }
      for (std::size_t from = 0; from < sources_.size(); ++from) again |= hedge(from);
    }
    const Nanos look = std::min(scheduler_.look_again(), hedge_again_);
    if (look < next_look_ || next_look_ <= now_) {
      next_look_ = std::max(look, now_ + 1);
      if (look != kNever) push(next_look_, What::kLook, 0, 0);
    }
  }

  bool draw(std::size_t from) {
    const SimulatedSource& how = simulation_.sources[from];
    if (!how.arrivals.empty() || drawn_[from] == how.lengths.size()) return false;
    while (oldest_[from] < drawn_[from] && jobs_[from][oldest_[from]]->done) ++oldest_[from];
    if (drawn_[from] - oldest_[from] >= how.window || !scheduler_.wants_more(*sources_[from])) return false;
    arrive(from, drawn_[from]++);
    if (how.known_end || drawn_[from] == how.lengths.size()) {
      sources_[from]->to_come = static_cast<std::int64_t>(how.lengths.size() - drawn_[from]);
    }
    result_.most_ahead = std::max(result_.most_ahead, drawn_[from] - oldest_[from]);
    return true;
  }

  // Starts a second run of a stream's oldest task, if the policy decides so.
  bool hedge(std::size_t from) {
    if (from == 0) hedge_again_ = kNever;
    if (simulation_.options.hedge <= 0 || !simulation_.sources[from].arrivals.empty()) return false;
    while (oldest_[from] < drawn_[from] && jobs_[from][oldest_[from]]->done) ++oldest_[from];
    if (oldest_[from] == drawn_[from]) return false;
    SimulatedTask* const job = jobs_[from][oldest_[from]].get();
    Nanos look = kNever;
    if (job->second != nullptr) return false;
    if (!timed([&] { return scheduler_.hedge(*job, now_, &look, simulation_.skip); })) {
      hedge_again_ = std::min(hedge_again_, look);
      return false;
    }
    auto second = std::make_unique<SimulatedTask>();
    second->source = job->source;
    second->kind = job->kind;
    second->from = from;
    second->number = job->number;
    second->length = job->length;
    second->avoid = job->worker->device;
    second->first = job;
    job->second = second.get();
    SimulatedTask* const added = second.get();
    seconds_.push_back(std::move(second));
    ++result_.hedged;
    timed([&] { scheduler_.add(added); });
    return true;
  }

  // Drops a run whose answer is not needed any more.
  void drop_run(SimulatedTask* job) {
    const bool sent = job->state == TaskState::kSent;
    scheduler_.drop(job);
    if (sent && withdraw(job)) --result_.taken_back;
  }

  void send(SimulatedTask* job) {
    auto* device = static_cast<SimulatedWorker*>(job->worker);
    if (!device->alive) wrong("a task was given to a dead device");
    if (job->done) wrong("a task that is done was given to a device");
    if (job->left == device && job->left_at == now_ && simulation_.options.random == 0) {
      wrong("a task was taken back from the device that it was then given to");
    }
    timed([&] { scheduler_.sent(job, now_); });
    device->ring.push_back(job);
    const auto which = static_cast<std::size_t>(device->device);
    result_.most_in_hand[which] = std::max(result_.most_in_hand[which], device->hand.size());
    push(now_ + simulation_.turnaround_ns, What::kReady, which, device->life);
  }

  void claim(std::size_t which) {
    SimulatedWorker& device = *devices_[which];
    while (!device.ring.empty() && static_cast<int>(device.claimed.size()) < device.how.depth) {
      device.claimed.push_back(device.ring.front());
      device.ring.pop_front();
      if (device.claimed.size() == 1) begin(which);
    }
  }

  void begin(std::size_t which) {
    SimulatedWorker& device = *devices_[which];
    device.began = now_;
    double took = static_cast<double>(device.how.task_ns) * device.claimed.front()->length;
    if (device.how.spread > 0) {
      took *= std::lognormal_distribution<double>(-device.how.spread * device.how.spread / 2, device.how.spread)(random_);
    }
    push(now_ + std::max<Nanos>(1, static_cast<Nanos>(took)), What::kFinish, which, device.life);
  }

  void finish(std::size_t which) {
    SimulatedWorker& device = *devices_[which];
    SimulatedTask* job = device.claimed.front();
    device.claimed.pop_front();
    const Nanos began = device.began;
    result_.busy_ns[which] += now_ - began;
    ++result_.tasks[which];
    timed([&] { scheduler_.answered(job, began, now_); });
    SimulatedTask* const first = job->first != nullptr ? job->first : job;
    SimulatedTask* const other = job->first != nullptr ? job->first : job->second;
    if (other == nullptr || !first->done) mark_done(first);
    if (other != nullptr && other->state != TaskState::kOut && !other->unwanted) drop_run(other);
    if (!device.claimed.empty()) begin(which);
    claim(which);
  }

  void mark_done(SimulatedTask* job) {
    if (job->done) wrong("a task was done twice");
    job->done = true;
    result_.done_ns[job->from][job->number] = now_ - job->came;
    finished_ = now_;
    --left_;
  }

  bool withdraw(SimulatedTask* job) {
    auto* device = static_cast<SimulatedWorker*>(job->worker);
    const auto found = std::find(device->ring.begin(), device->ring.end(), job);
    if (found == device->ring.end()) {
      scheduler_.not_withdrawn(job);
    } else {
      device->ring.erase(found);
      job->left = device;
      job->left_at = now_;
      scheduler_.withdrawn(job);
      ++result_.taken_back;
      return true;
    }
    return !job->unwanted;
  }

  void die(std::size_t which) {
    SimulatedWorker& device = *devices_[which];
    if (!device.alive) return;
    device.alive = false;
    ++device.life;
    ++result_.crashes;
    if (!device.claimed.empty()) result_.busy_ns[which] += now_ - device.began;
    SimulatedTask* const at = device.claimed.empty() ? nullptr : device.claimed.front();
    device.ring.clear();
    device.claimed.clear();
    const std::vector<Task*> orphans = scheduler_.remove(&device);
    for (auto orphan = orphans.rbegin(); orphan != orphans.rend(); ++orphan) {
      auto* job = static_cast<SimulatedTask*>(*orphan);
      if (job->first != nullptr) continue;  // a second run is not repeated
      if (!scheduler_.lose(job, job == at, true, true) && !job->done) {
        ++result_.failed;
        mark_done(job);
      }
    }
    push(now_ + device.how.restart_ns, What::kReturn, which, 0);
  }

  void look_for_idle() {
    if (simulation_.options.random != 0 || scheduler_.waiting() == 0 || scheduler_.look_again() != kNever) return;
    for (const std::unique_ptr<SimulatedWorker>& device : devices_) {
      if (device->alive && device->hand.empty() && !device->full) ++result_.idle_beside_waiting;
    }
  }

  template <typename Call>
  auto timed(const Call& call) -> decltype(call()) {
    struct SimulatedClock {
      explicit SimulatedClock(std::int64_t* sum) : sum_(sum), began_(std::chrono::steady_clock::now()) {}
      ~SimulatedClock() { *sum_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - began_).count(); }
      std::int64_t* sum_;
      std::chrono::steady_clock::time_point began_;
    } clock(&spent_);
    return call();
  }

  const Simulation& simulation_;
  Scheduler scheduler_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<SimulatedWorker>> devices_;
  std::vector<std::unique_ptr<Source>> sources_;
  std::vector<std::vector<std::unique_ptr<SimulatedTask>>> jobs_;
  std::vector<std::unique_ptr<SimulatedTask>> seconds_;  // runs
  std::vector<std::size_t> drawn_;
  std::vector<std::size_t> oldest_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::uint64_t order_ = 0;
  Nanos now_ = 0;
  Nanos finished_ = 0;
  Nanos next_look_ = kNever;
  Nanos hedge_again_ = kNever;
  std::size_t left_ = 0;
  std::size_t total_ = 0;
  std::int64_t spent_ = 0;
  Simulated result_;
};

}  // namespace

Simulated simulate(const Simulation& simulation) { return Machine(simulation).run(); }

}  // namespace ais::pool
