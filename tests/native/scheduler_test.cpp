// Compares the scheduler's choices with a scan over all workers, in random situations. The scan is the reference; the rankings
// of csrc/pool/ranking.hpp only find the same worker faster.
#include "pool/scheduler.hpp"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "base/tuning.hpp"
#include "check.hpp"

namespace {

namespace tuning = ais::tuning;
using namespace ais::pool;

struct Found {
  Nanos finish = kNever;
  Nanos expects = 0;
  std::size_t in_hand = 0;
};

// A pool with random events, and the scan.
class World {
 public:
  World(std::uint64_t seed, int in_flight) : random_(seed), options_{in_flight, 2, 3, 0, 0}, scheduler_(options_) {
    for (Source& source : sources_) scheduler_.add(&source);
    sources_[0].to_come = Source::kEndless;
    const int workers = 1 + draw(24);
    for (int i = 0; i < workers; ++i) add_worker();
  }

  ~World() {
    while (!workers_.empty()) remove_worker(0);
    scheduler_.take_queued(kAnyDevice);
  }

  void step() {
    now_ += draw(8) == 0 ? draw(20'000'000) : draw(50'000);
    const int what = draw(20);
    if (what < 7) {
      add_task();
    } else if (what < 14) {
      answer();
    } else if (what == 14) {
      change_worker();
    } else if (what == 15) {
      drop();
    } else {
      skip_ = draw(3) == 0 ? draw(4) : kNoCpu;
      avoid_cpu_ = draw(4);
      take_back();
    }
    place_all();
    CHECK(scheduler_.check().empty());
  }

  std::uint64_t placed = 0;
  std::uint64_t waited = 0;
  std::uint64_t given_back = 0;

 private:
  int draw(int below) { return static_cast<int>(random_() % static_cast<std::uint64_t>(below)); }

  void add_worker() {
    auto worker = std::make_unique<Worker>();
    worker->device = draw(12);
    worker->only_cpu = draw(2) == 0 ? kNoCpu : draw(4);
    worker->weight = draw(4) == 0 ? 2.0 : 1.0;
    worker->several = draw(3) == 0;
    scheduler_.add(worker.get());
    workers_.push_back(std::move(worker));
  }

  void remove_worker(std::size_t which) {
    const std::vector<Task*> orphans = scheduler_.remove(workers_[which].get());
    for (auto task = orphans.rbegin(); task != orphans.rend(); ++task) {
      scheduler_.lose(*task, draw(2) == 0, draw(2) == 0, true);
    }
    workers_.erase(workers_.begin() + static_cast<std::ptrdiff_t>(which));
  }

  void change_worker() {
    const std::size_t which = static_cast<std::size_t>(draw(static_cast<int>(workers_.size())));
    if (draw(2) == 0) {
      scheduler_.set_full(workers_[which].get(), draw(2) == 0);
    } else if (workers_.size() > 1 && draw(2) == 0) {
      remove_worker(which);
    } else {
      add_worker();
    }
  }

  void add_task() {
    tasks_.push_back(std::make_unique<Task>());
    Task* const task = tasks_.back().get();
    task->kind = static_cast<std::uint32_t>(draw(3));
    task->bytes = static_cast<std::uint64_t>(draw(1'000'000));
    task->source = &sources_[draw(2)];
    if (draw(10) == 0) task->device = draw(12);
    if (draw(10) == 0) task->home = workers_[static_cast<std::size_t>(draw(static_cast<int>(workers_.size())))].get();
    scheduler_.add(task);
  }

  std::vector<Task*> all(TaskState state) {
    std::vector<Task*> found;
    for (const auto& task : tasks_) {
      if (task->state == state) found.push_back(task.get());
    }
    return found;
  }

  void answer() {
    const std::vector<Task*> sent = all(TaskState::kSent);
    if (sent.empty()) return;
    Task* const task = sent[static_cast<std::size_t>(draw(static_cast<int>(sent.size())))];
    const int how = draw(12);
    if (how == 0) {
      scheduler_.faulted(task);
    } else if (how == 1) {
      scheduler_.raised(task, task->sent_ns, now_);
    } else {
      scheduler_.answered(task, std::max(task->sent_ns, now_ - draw(9'000'000)), now_);
    }
  }

  void drop() {
    Task* const task = tasks_.empty() ? nullptr : tasks_[static_cast<std::size_t>(draw(static_cast<int>(tasks_.size())))].get();
    if (task != nullptr && task->state != TaskState::kOut) scheduler_.drop(task);
  }

  // ---- the rule ----

  bool runs(const Worker& worker, const Task& task) const {
    if (!worker.open || worker.isolated) return false;
    if (task.device != kAnyDevice && worker.device != task.device) return false;
    if (task.crashes > 0 && !worker.hand.empty()) return false;
    const bool knows = scheduler_.expected(worker, task) != kUnknown && worker.unknown == 0;
    return worker.hand.empty() || knows || options_.in_flight > 0 || worker.several;
  }
  bool skipped(const Worker& worker) const { return worker.only_cpu != kNoCpu && worker.only_cpu == skip_; }
  bool room(const Worker& worker, const Task& task) const {
    return !worker.full && static_cast<int>(worker.hand.size()) < scheduler_.limit(worker, task.kind);
  }
  Found judge(const Worker& worker, const Task& task) const {
    Found found;
    found.expects = std::max<Nanos>(0, scheduler_.expected(worker, task));
    found.in_hand = worker.hand.size();
    found.finish = scheduler_.free_at(worker, now_) + found.expects +
                   (worker.only_cpu != kNoCpu && worker.only_cpu == avoid_cpu_ ? tuning::kSameProcessorNs : 0);
    return found;
  }
  Nanos move_cost(const Task& task) const {
    return tuning::kMoveCostNs + static_cast<Nanos>(tuning::kMoveCostPerByte * static_cast<double>(task.bytes));
  }

  // Returns whether P2 may send the task to this idle worker: 1 yes, 0 no, -1 unknown, because sums are rounded.
  int worth_it(const Worker& idle, const Task& task, Nanos finish) const {
    double tasks = static_cast<double>(scheduler_.waiting());
    for (const Source& source : sources_) {
      if (source.to_come == Source::kEndless) return 1;
      tasks += static_cast<double>(source.to_come);
    }
    double backlog = 0;
    double rate = 0;
    for (const auto& other : workers_) {
      if (other.get() == &idle || !other->open) continue;
      const Nanos each = scheduler_.expected(*other, task);
      if (each == kUnknown) continue;
      backlog += static_cast<double>(scheduler_.free_at(*other, now_) - now_) / static_cast<double>(std::max<Nanos>(1, each));
      rate += 1.0 / static_cast<double>(std::max<Nanos>(1, each));
    }
    if (rate == 0) return 1;
    const double left = (tasks + backlog) / rate - static_cast<double>(finish - now_);
    return std::abs(left) < 1 + 1e-6 * static_cast<double>(finish - now_) ? -1 : left >= 0;
  }

  // Returns whether the scan gives the task to `chosen` (null: to none), or to an equally good worker.
  bool agrees(const Task& task, const Worker* chosen) const {
    const bool others = std::any_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
      return worker->open && worker->device != task.avoid && worker->faults == 0;
    });
    const int avoid = task.avoid != kAnyDevice && others ? task.avoid : kAnyDevice;
    Found any, with_room, idle;
    const Worker* idlest = nullptr;
    for (const auto& worker : workers_) {
      if (!runs(*worker, task) || skipped(*worker) || worker->device == avoid) continue;
      const Found one = judge(*worker, task);
      if (one.finish < any.finish) any = one;
      if (!room(*worker, task)) continue;
      if (one.in_hand == 0 && one.finish < idle.finish) idle = one, idlest = worker.get();
      if (one.finish < with_room.finish || (one.finish == with_room.finish && one.in_hand < with_room.in_hand)) with_room = one;
    }
    if (with_room.finish == kNever) return chosen == nullptr;
    if (task.home != nullptr && runs(*task.home, task) && !skipped(*task.home) && task.home->device != task.avoid &&
        judge(*task.home, task).finish - with_room.finish < move_cost(task)) {
      if (room(*task.home, task)) return chosen == task.home;
      if (idlest == nullptr) return chosen == nullptr;
    }
    const bool more = task.source->waiting > (task.state == TaskState::kQueued ? 1 : 0) || task.source->to_come != 0;
    const auto is = [&](const Found& found) {
      if (chosen == nullptr) return false;
      const Found one = judge(*chosen, task);
      return one.finish == found.finish && one.in_hand == found.in_hand;
    };
    if (with_room.finish <= any.finish + (more ? any.expects : 0)) return is(with_room);
    const int worth = idlest == nullptr ? 0 : worth_it(*idlest, task, idle.finish);
    if (worth > 0) return is(idle);
    if (worth == 0) return chosen == nullptr;
    return chosen == nullptr || is(idle);
  }

  // ---- what the scheduler does ----

  // The scan must see the same state as the scheduler, so it runs before the scheduler acts.
  void place_all() {
    while (true) {
      std::vector<Task*> fronts;
      for (Source& source : sources_) {
        for (const auto& [device, queue] : source.pinned) {
          if (queue.tasks.first() != nullptr) fronts.push_back(queue.tasks.first());
        }
        if (source.tasks.first() != nullptr) fronts.push_back(source.tasks.first());
      }
      std::vector<std::vector<const Worker*>> accepted;
      for (Task* task : fronts) {
        accepted.emplace_back();
        if (agrees(*task, nullptr)) accepted.back().push_back(nullptr);
        for (const auto& worker : workers_) {
          if (agrees(*task, worker.get())) accepted.back().push_back(worker.get());
        }
        CHECK(!accepted.back().empty());
      }
      Task* const task = scheduler_.next(now_, skip_, avoid_cpu_);
      for (std::size_t i = 0; i < fronts.size(); ++i) {
        const Worker* const chosen = fronts[i] == task ? task->worker : nullptr;
        const bool asked = fronts[i] == task || task == nullptr;  // otherwise another task came first
        if (asked) CHECK(std::count(accepted[i].begin(), accepted[i].end(), chosen) == 1);
      }
      if (task == nullptr) {
        waited += fronts.empty() ? 0 : 1;
        return;
      }
      CHECK(std::count(fronts.begin(), fronts.end(), task) == 1);
      ++placed;
      scheduler_.sent(task, now_);
    }
  }

  bool has_idle(int device) const {
    return std::any_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
      return worker->open && worker->hand.empty() && (device == kAnyDevice || worker->device == device);
    });
  }

  void take_back() {
    Nanos latest = 0;
    for (const auto& from : workers_) {
      if (from->hand.size() < 2) continue;
      const Task* task = from->hand.last();
      if (task->state != TaskState::kSent || task->claimed || task->unwanted || task->crashes > 0 || task->home == from.get())
        continue;
      if (task->device != kAnyDevice && !has_idle(task->device)) continue;
      latest = std::max(latest, scheduler_.free_at(*from, now_));
    }
    Task* const task = scheduler_.take_back(now_, skip_, avoid_cpu_);
    if (task == nullptr) return;
    CHECK(task == task->worker->hand.last() && task->worker->hand.size() >= 2);
    CHECK(scheduler_.free_at(*task->worker, now_) == latest);
    Nanos soonest = kNever;
    for (const auto& idle : workers_) {
      if (!idle->hand.empty() || idle->full || skipped(*idle) || !runs(*idle, *task)) continue;
      if (task->avoid != kAnyDevice && idle->device == task->avoid) continue;
      if (scheduler_.expected(*idle, *task) != kUnknown) soonest = std::min(soonest, judge(*idle, *task).finish);
    }
    CHECK(soonest != kNever && latest - soonest > move_cost(*task));
    ++given_back;
    if (draw(3) == 0) {
      scheduler_.not_withdrawn(task);
    } else {
      scheduler_.withdrawn(task);
    }
  }

  std::mt19937_64 random_;
  const Options options_;
  Scheduler scheduler_;
  Source sources_[2];
  std::vector<std::unique_ptr<Worker>> workers_;
  std::deque<std::unique_ptr<Task>> tasks_;
  Nanos now_ = 1'000'000'000;
  int skip_ = kNoCpu;
  int avoid_cpu_ = kNoCpu;
};

TEST(choices_are_those_of_a_scan) {
  std::uint64_t placed = 0;
  std::uint64_t waited = 0;
  std::uint64_t given_back = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    World world(seed, seed % 4 == 0 ? 3 : 0);
    for (int i = 0; i < 400; ++i) world.step();
    placed += world.placed;
    waited += world.waited;
    given_back += world.given_back;
  }
  std::printf("%llu placed, %llu times none, %llu given back\n", static_cast<unsigned long long>(placed),
              static_cast<unsigned long long>(waited), static_cast<unsigned long long>(given_back));
  CHECK(placed > 3000 && waited > 300 && given_back > 20);
}

}  // namespace

int main(int argc, char** argv) { return check::run(argc, argv); }
