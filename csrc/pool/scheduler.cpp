// The policy, see scheduler.hpp.
#include "pool/scheduler.hpp"

#include <algorithm>
#include <string>

#include "base/tuning.hpp"

namespace ais::pool {
namespace {

Nanos to_nanos(double ns) { return static_cast<Nanos>(std::min(ns, 9e17)); }

}  // namespace

void TaskList::push_back(Task* task) {
  task->prev = last_;
  task->next = nullptr;
  (last_ != nullptr ? last_->next : first_) = task;
  last_ = task;
  ++size_;
}

void TaskList::push_front(Task* task) {
  task->prev = nullptr;
  task->next = first_;
  (first_ != nullptr ? first_->prev : last_) = task;
  first_ = task;
  ++size_;
}

void TaskList::remove(Task* task) {
  (task->prev != nullptr ? task->prev->next : first_) = task->next;
  (task->next != nullptr ? task->next->prev : last_) = task->prev;
  task->prev = task->next = nullptr;
  --size_;
}

void Estimate::learn(double ns) {
  ns = std::max(ns, 1.0);
  if (mean == 0) {
    mean = ns;
    return;
  }
  ns = std::min(ns, tuning::kOutlier * mean);
  late += tuning::kLearn * (std::max(0.0, ns - mean) - late);
  mean += tuning::kLearn * (ns - mean);
}

Scheduler::Scheduler(const Options& options) : options_(options), state_(options.random * 0x9e3779b97f4a7c15u + 1) {}

Scheduler::~Scheduler() = default;

std::uint64_t Scheduler::draw() {  // xorshift
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return state_;
}

// ---- estimates of times ----

const Estimate* Scheduler::known(const std::vector<Estimate>& estimates, std::uint32_t kind) const {
  for (const Estimate& estimate : estimates) {
    if (estimate.kind == kind) return &estimate;
  }
  return nullptr;
}

Estimate& Scheduler::estimate_of(std::vector<Estimate>* estimates, std::uint32_t kind) {
  for (Estimate& estimate : *estimates) {
    if (estimate.kind == kind) {
      estimate.used = ++uses_;
      return estimate;
    }
  }
  if (estimates->size() < tuning::kKindsKept) {
    estimates->emplace_back();
  } else {
    auto oldest = std::min_element(estimates->begin(), estimates->end(),
                                   [](const Estimate& a, const Estimate& b) { return a.used < b.used; });
    *oldest = estimates->back();
    estimates->back() = Estimate();
  }
  estimates->back().kind = kind;
  estimates->back().used = ++uses_;
  return estimates->back();
}

Outlook Scheduler::look_out(const Worker& worker, std::uint32_t kind) const {
  Outlook outlook;
  outlook.queues = options_.in_flight > 0 || worker.several;
  const Estimate* own = known(worker.estimates, kind);
  const Estimate* all = own == nullptr ? known(kinds_, kind) : nullptr;
  if (own != nullptr) {
    outlook.expected = to_nanos(own->mean / worker.weight);
    const auto more =
        static_cast<int>(std::min<double>(tuning::kMostInHand, static_cast<double>(tuning::kWorkInHandNs) / (own->mean + 1)));
    const bool uneven = own->late > own->mean / 2 && more < tuning::kManyInHand;
    outlook.limit = std::min(tuning::kMostInHand, (uneven ? std::min(options_.fewest, 2) : options_.fewest) + more);
  } else if (all != nullptr) {
    outlook.factor = (worker.slowness > 0 ? worker.slowness : 1.0) / worker.weight;
    outlook.expected = to_nanos(all->mean * outlook.factor);
  }
  if (own == nullptr && worker.several) outlook.limit = options_.fewest;
  if (options_.in_flight > 0) outlook.limit = options_.in_flight;
  return outlook;
}

Nanos Scheduler::expected(const Worker& worker, const Task& task) const { return look_out(worker, task.kind).expected; }

int Scheduler::limit(const Worker& worker, std::uint32_t kind) const { return look_out(worker, kind).limit; }

Nanos Scheduler::free_at(const Worker& worker, Nanos now) const { return glances_[worker.position].free_at(now); }

int Scheduler::busy_at(int cpu) const {
  return cpu >= 0 && static_cast<std::size_t>(cpu) + 1 < busy_at_.size() ? busy_at_[static_cast<std::size_t>(cpu) + 1] : 0;
}

// ---- the state for choosing ----

// Must be called after every change to a worker.
void Scheduler::look_at(const Worker& worker) {
  Glance& glance = glances_[worker.position];
  const Task* first = worker.hand.first();
  full_ += static_cast<int>(worker.full) - static_cast<int>(glance.full);
  glance.in_hand = static_cast<std::uint32_t>(worker.hand.size());
  glance.open = worker.open;
  glance.usable = worker.open && !worker.isolated;
  glance.full = worker.full;
  glance.unknown = worker.unknown > 0;
  glance.due = kUnknown;
  if (first != nullptr) {
    glance.whole = std::max<Nanos>(0, first->expected_ns);
    glance.rest = worker.hand_ns - glance.whole;
    if (first->state == TaskState::kSent) glance.due = std::max(first->sent_ns, worker.last_done) + glance.whole;
  }
  glance.overdue = glance.due != kUnknown && glance.due <= now_;
  if (glance.due != kUnknown && !glance.overdue) {
    dues_.put(worker.position, 0, glance.due);
  } else {
    dues_.take(worker.position);
  }
  changed(worker);
}

void Scheduler::changed(const Worker& worker) {
  rank_ahead(worker);
  for (Source::Queue* queue : worker.at->stuck) {
    queue->in = Source::Queue::In::kReady;
    queue->source->ready.push_back(queue);
  }
  worker.at->stuck.clear();
  const std::uint64_t end = changes_before_ + changes_.size();
  if (!changes_.empty() && changes_.back() == worker.position && followed_ < end) return;
  if (changes_.size() >= 4 * workers_.size() + 64) {  // a ranking that has not followed checks all workers
    changes_before_ = end;
    changes_.clear();
  }
  changes_.push_back(static_cast<std::uint32_t>(worker.position));
}

bool Scheduler::gives_back(const Worker& worker) const {
  if (worker.hand.size() < 2) return false;
  const Task* task = worker.hand.last();
  if (task->state != TaskState::kSent || task->claimed || task->unwanted || task->crashes > 0 || task->home == &worker)
    return false;
  return task->device == kAnyDevice || devices_.at(task->device).workers.size() > 1;
}

void Scheduler::rank_ahead(const Worker& worker) {
  if (!gives_back(worker)) {
    aheads_.take(worker.position);
    return;
  }
  const Glance& glance = glances_[worker.position];
  if (glance.due == kUnknown) {
    aheads_.put(worker.position, 0, -(glance.whole + glance.rest));
  } else if (glance.overdue) {
    aheads_.put(worker.position, 2, -(glance.whole / 4 + glance.rest - glance.due));
  } else {
    aheads_.put(worker.position, 1, -(glance.due + glance.rest));
  }
}

// Must be called after the set of workers has changed.
void Scheduler::start_over() {
  for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i]->position = i;
  dues_.reset(workers_.size());
  aheads_.reset(workers_.size());
  changes_before_ += changes_.size() + 1;
  changes_.clear();
  for (const std::unique_ptr<Ranking>& ranking : rankings_) ranking->stale = true;
  for (const Worker* worker : workers_) look_at(*worker);
}

// Marks tasks as overdue.
void Scheduler::pass_time(Nanos now) {
  if (now < now_) {  // the caller uses another clock
    now_ = now;
    for (const Worker* worker : workers_) {
      if (glances_[worker->position].overdue) look_at(*worker);
    }
  }
  now_ = now;
  while (const Heaps::Entry* due = dues_.first(0)) {
    if (due->key > now) break;
    look_at(*workers_[due->position]);
  }
}

void Scheduler::see_callers(int skip, int avoid_cpu) {
  if (skip == skip_ && avoid_cpu == avoid_cpu_) return;
  for (const int cpu : {skip, avoid_cpu, skip_, avoid_cpu_}) {
    const auto found = pinned_.find(cpu);
    if (found == pinned_.end()) continue;
    for (const Worker* worker : found->second) changed(*worker);
  }
  skip_ = skip;
  avoid_cpu_ = avoid_cpu;
}

Ranking& Scheduler::ranking_of(std::uint32_t kind) {
  if (latest_ranking_ == nullptr || latest_ranking_->kind() != kind) {
    const auto found = std::find_if(rankings_.begin(), rankings_.end(), [&](const auto& one) { return one->kind() == kind; });
    if (found != rankings_.end()) {
      latest_ranking_ = found->get();
    } else {
      if (rankings_.size() >= tuning::kRankings) {
        rankings_.erase(std::min_element(rankings_.begin(), rankings_.end(),
                                         [](const auto& a, const auto& b) { return a->used < b->used; }));
      }
      rankings_.push_back(std::make_unique<Ranking>(kind));
      latest_ranking_ = rankings_.back().get();
    }
  }
  latest_ranking_->used = ++uses_;
  follow(latest_ranking_);
  return *latest_ranking_;
}

void Scheduler::follow(Ranking* ranking) {
  const std::uint64_t end = changes_before_ + changes_.size();
  if (ranking->stale || ranking->followed < changes_before_) {
    const Estimate* all = known(kinds_, ranking->kind());
    ranking->set_mean(all != nullptr ? all->mean : 0);
    ranking->reset(workers_.size());
    ranking->stale = false;
    for (std::size_t i = 0; i < workers_.size(); ++i) refresh(ranking, i);
  } else {
    for (std::uint64_t i = ranking->followed; i < end; ++i) refresh(ranking, changes_[i - changes_before_]);
    for (const std::uint32_t position : ranking->take_loose()) refresh(ranking, position);
  }
  ranking->followed = followed_ = end;
}

void Scheduler::refresh(Ranking* ranking, std::size_t position) {
  ranking->put(position, glances_[position], look_out(*workers_[position], ranking->kind()), skip_, avoid_cpu_);
}

// Updates the mean time of a kind over all workers, which is used for workers without a time for it.
void Scheduler::learn_of_all(std::uint32_t kind, double took) {
  const bool new_kind = known(kinds_, kind) == nullptr;
  Estimate& all = estimate_of(&kinds_, kind);
  all.learn(took);
  for (const std::unique_ptr<Ranking>& ranking : rankings_) {
    if (new_kind) ranking->stale = true;  // the estimate of another kind may have been dropped
    if (ranking->kind() == kind) ranking->set_mean(all.mean);
  }
}

bool Scheduler::others_than(int device) const {
  return std::any_of(workers_.begin(), workers_.end(),
                     [&](const Worker* worker) { return worker->open && worker->device != device && worker->faults == 0; });
}

bool Scheduler::others_work(int device) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const Worker* worker) {
    return worker->answered > 0 && worker->device != device && worker->faults == 0;
  });
}

// ---- choosing ----

bool Scheduler::may_run(const Worker& worker, const Task& task, bool avoid) const {
  if (!worker.open || worker.isolated) return false;
  if (task.device != kAnyDevice && worker.device != task.device) return false;
  if (avoid && worker.device == task.avoid) return false;
  return task.crashes == 0 || worker.hand.empty();  // P6
}

Scheduler::Offer Scheduler::offer(const Worker& worker, const Task& task, Nanos now) const {
  const Glance& glance = glances_[worker.position];
  Offer offer;
  if (!glance.usable || (task.device != kAnyDevice && worker.device != task.device)) return offer;
  if (task.crashes > 0 && glance.in_hand > 0) return offer;  // P6
  const Outlook outlook = look_out(worker, task.kind);
  const bool knows = outlook.expected != kUnknown && !glance.unknown;
  if (glance.in_hand > 0 && !knows && !outlook.queues) return offer;  // P3
  offer.takes = true;
  offer.room = !glance.full && static_cast<int>(glance.in_hand) < outlook.limit;
  offer.expects = std::max<Nanos>(0, outlook.expected);
  offer.finish = glance.free_at(now) + offer.expects +
                 (worker.only_cpu != kNoCpu && worker.only_cpu == avoid_cpu_ ? tuning::kSameProcessorNs : 0);
  return offer;
}

// For tasks that not every worker may run: tasks for one device, with a crash, or that failed because of a device.
Ranking::Choices Scheduler::scan(const Task& task, Nanos now, bool* stuck) {
  const int avoid = task.avoid != kAnyDevice && others_than(task.avoid) ? task.avoid : kAnyDevice;
  Ranking::Choices choices;
  *stuck = true;
  for (const Worker* worker : task.device != kAnyDevice ? devices_[task.device].workers : workers_) {
    const Offer found = offer(*worker, task, now);
    *stuck = *stuck && !found.room;
    const bool skipped = worker->only_cpu != kNoCpu && worker->only_cpu == skip_;
    if (!found.takes || skipped || (avoid != kAnyDevice && worker->device == avoid)) continue;
    const auto in_hand = static_cast<std::uint32_t>(worker->hand.size());
    const Ranking::Choice one{found.finish, found.expects, in_hand, static_cast<std::uint32_t>(worker->position)};
    if (one.finish < choices.any.finish) choices.any = one;
    if (!found.room) continue;
    if (in_hand == 0 && one.finish < choices.idle.finish) choices.idle = one;
    if (one.finish < choices.with_room.finish ||
        (one.finish == choices.with_room.finish && in_hand < choices.with_room.in_hand)) {
      choices.with_room = one;
    }
  }
  return choices;
}

// `stuck`: no worker of the task's device has room until one of them changes.
Worker* Scheduler::pick(const Task& task, Nanos now, bool* stuck) {
  *stuck = false;
  if (options_.random != 0) return pick_at_random(task);
  const bool everywhere = task.device == kAnyDevice && task.avoid == kAnyDevice && task.crashes == 0;
  const Ranking::Choices choices = everywhere ? ranking_of(task.kind).choose(now) : scan(task, now, stuck);
  if (!choices.with_room.found()) return nullptr;
  if (task.home != nullptr) {
    const Offer home = offer(*task.home, task, now);
    const bool skipped = task.home->only_cpu != kNoCpu && task.home->only_cpu == skip_;
    const bool avoided = task.avoid != kAnyDevice && task.home->device == task.avoid;
    if (home.takes && !skipped && !avoided && home.finish - choices.with_room.finish < move_cost(task)) {
      if (home.room) return task.home;
      if (!choices.idle.found()) return nullptr;  // no worker is idle, so it waits for room
    }
  }
  Worker* const with_room = workers_[choices.with_room.position];
  // If more tasks wait, the worker need not be the best one, because all of them will be busy.
  if (choices.with_room.finish <= choices.any.finish + (more_to_come(task) ? choices.any.expects : 0)) return with_room;
  if (choices.idle.found() && worth_it(choices.idle, task, now)) return workers_[choices.idle.position];
  // The better worker may take longer than expected.
  look_again_ =
      std::min(look_again_, now + std::max<Nanos>(tuning::kMoveCostNs, choices.with_room.finish - choices.any.finish));
  return nullptr;
}

Nanos Scheduler::move_cost(const Task& task) const {
  return tuning::kMoveCostNs + to_nanos(tuning::kMoveCostPerByte * static_cast<double>(task.bytes));
}

bool Scheduler::more_to_come(const Task& task) const { return task.source->waiting > 1 || task.source->to_come != 0; }

// P2: returns whether the others would still work on waiting and later tasks when this idle worker has finished the task.
bool Scheduler::worth_it(const Ranking::Choice& idle, const Task& task, Nanos now) {
  double tasks = static_cast<double>(waiting_);
  for (const Source* source : sources_) {
    if (source->to_come == Source::kEndless) return true;
    tasks += static_cast<double>(source->to_come);
  }
  const Ranking& ranking = ranking_of(task.kind);
  double rate = ranking.rate();  // of the other workers
  if (expected(*workers_[idle.position], task) != kUnknown) rate -= 1.0 / static_cast<double>(std::max<Nanos>(1, idle.expects));
  return rate <= 1e-18 || static_cast<double>(idle.finish - now) <= (tasks + ranking.backlog(now)) / rate;
}

Worker* Scheduler::pick_at_random(const Task& task) {
  const bool avoid = task.avoid != kAnyDevice && others_than(task.avoid);
  std::vector<Worker*> candidates;
  for (Worker* worker : workers_) {
    if (!may_run(*worker, task, avoid) || worker->full) continue;
    const int most = options_.in_flight > 0 ? options_.in_flight : tuning::kManyInHand;
    if (static_cast<int>(worker->hand.size()) < most) candidates.push_back(worker);
  }
  if (candidates.empty()) return nullptr;
  if (busy_ > 0 && draw() % 8 == 0) {
    look_again_ = 0;  // at once
    return nullptr;
  }
  return candidates[draw() % candidates.size()];
}

Task* Scheduler::next(Nanos now, int skip, int avoid_cpu) {
  look_again_ = kNever;
  if (waiting_ == 0) return nullptr;
  pass_time(now);
  see_callers(skip, avoid_cpu);
  turns_.clear();
  for (Source* source : sources_) {
    if (source->waiting > 0) turns_.push_back(source);
  }
  if (turns_.size() > 1) {  // P5
    std::stable_sort(turns_.begin(), turns_.end(), [](const Source* a, const Source* b) { return a->served < b->served; });
  }
  for (Source* source : turns_) {
    Worker* worker = nullptr;
    Task* const task = next_of(source, now, &worker);
    if (task == nullptr) continue;
    place(task, worker);
    served_ = std::max(served_, source->served);
    source->served += static_cast<double>(std::max<Nanos>(1000, task->expected_ns)) / source->weight;
    return task;
  }
  return nullptr;
}

// Returns the source's first task that goes to a worker now. Tasks for one device come first, as no other worker can run them.
Task* Scheduler::next_of(Source* source, Nanos now, Worker** worker) {
  using In = Source::Queue::In;
  bool stuck = false;
  for (std::size_t i = 0; i < source->ready.size();) {
    Source::Queue* const queue = source->ready[i];
    Task* const task = queue->tasks.first();
    if (task != nullptr && (*worker = pick(*task, now, &stuck)) != nullptr) return task;
    if (task != nullptr && !stuck) {
      ++i;
      continue;
    }
    queue->in = task == nullptr ? In::kNothing : In::kStuck;
    if (task != nullptr) devices_[task->device].stuck.push_back(queue);
    source->ready[i] = source->ready.back();
    source->ready.pop_back();
  }
  Task* const task = source->tasks.first();
  if (task != nullptr) *worker = pick(*task, now, &stuck);
  return *worker != nullptr ? task : nullptr;
}

void Scheduler::place(Task* task, Worker* worker) {
  leave_queue(task);
  task->state = TaskState::kPlaced;
  task->worker = worker;
  task->claimed = false;
  task->expected_ns = expected(*worker, *task);
  worker->hand_ns += std::max<Nanos>(0, task->expected_ns);
  worker->unknown += task->expected_ns == kUnknown;
  worker->isolated = task->crashes > 0;
  if (worker->hand.empty()) ++busy_, ++busy_at_[static_cast<std::size_t>(worker->only_cpu + 1)];
  worker->hand.push_back(task);
  ++task->source->under_way;
  if (worker->hand.size() == 2) ++ahead_;
  look_at(*worker);
}

void Scheduler::leave_hand(Task* task) {
  Worker* worker = task->worker;
  worker->hand.remove(task);
  --task->source->under_way;
  worker->hand_ns -= std::max<Nanos>(0, task->expected_ns);
  worker->unknown -= task->expected_ns == kUnknown;
  if (task->crashes > 0) worker->isolated = false;
  if (worker->hand.empty()) --busy_, --busy_at_[static_cast<std::size_t>(worker->only_cpu + 1)];
  if (worker->hand.size() == 1) --ahead_;
  task->worker = nullptr;
  task->state = TaskState::kOut;
  look_at(*worker);
}

// ---- queues ----

TaskList& Scheduler::queue_of(Task* task) {
  Source* const source = task->source;
  if (task->device == kAnyDevice) return source->tasks;
  Source::Queue& queue = source->pinned[task->device];
  if (queue.in == Source::Queue::In::kNothing) {
    queue.source = source;
    queue.in = Source::Queue::In::kReady;
    source->ready.push_back(&queue);
  }
  return queue.tasks;
}

void Scheduler::enqueue(Task* task, bool first) {
  Source* source = task->source;
  if (source->under_way++ == 0) source->served = std::max(source->served, served_);  // no credit for the time without tasks
  TaskList& tasks = queue_of(task);
  first ? tasks.push_front(task) : tasks.push_back(task);
  task->state = TaskState::kQueued;
  ++source->waiting;
  ++waiting_;
}

void Scheduler::leave_queue(Task* task) {
  queue_of(task).remove(task);
  --task->source->waiting;
  --task->source->under_way;
  --waiting_;
  task->state = TaskState::kOut;
}

std::vector<Task*> Scheduler::take_queued(int device) {
  std::vector<Task*> taken;
  for (Source* source : sources_) {
    each_queue(source, [&](int of, TaskList* tasks) {
      if (device != kAnyDevice && of != device) return;
      while (Task* task = tasks->first()) {
        leave_queue(task);
        taken.push_back(task);
      }
    });
  }
  return taken;
}

// ---- sources and workers ----

void Scheduler::add(Source* source) {
  source->served = served_;
  sources_.push_back(source);
}

void Scheduler::remove(Source* source) {
  sources_.erase(std::find(sources_.begin(), sources_.end(), source));
  for (auto& [number, queue] : source->pinned) {
    std::vector<Source::Queue*>& stuck = devices_[number].stuck;
    if (queue.in == Source::Queue::In::kStuck) stuck.erase(std::find(stuck.begin(), stuck.end(), &queue));
  }
  source->pinned.clear();
  source->ready.clear();
  for (Worker* worker : workers_) {
    for (Task* task = worker->hand.first(); task != nullptr; task = task->next) {
      if (task->source != source) continue;
      task->source = &departed_;
      ++departed_.under_way;
    }
  }
}

void Scheduler::add(Worker* worker) {
  workers_.push_back(worker);
  glances_.emplace_back();
  glances_.back().only_cpu = worker->only_cpu;
  worker->at = &devices_[worker->device];  // the map's nodes stay where they are
  worker->at->workers.push_back(worker);
  if (worker->only_cpu != kNoCpu) pinned_[worker->only_cpu].push_back(worker);
  const auto cpus = static_cast<std::size_t>(std::max(kNoCpu, worker->only_cpu) + 2);
  if (busy_at_.size() < cpus) busy_at_.resize(cpus);
  start_over();
}

void Scheduler::close(Worker* worker) {
  worker->open = false;
  look_at(*worker);
}

Task* Scheduler::next_for(Worker* worker) {
  if (worker->isolated || worker->full || worker->hand.size() >= static_cast<std::size_t>(tuning::kMostInHand)) return nullptr;
  for (Source* source : sources_) {
    const auto queue = source->pinned.find(worker->device);
    Task* const task = queue == source->pinned.end() ? nullptr : queue->second.tasks.first();
    if (task == nullptr || (task->crashes > 0 && !worker->hand.empty())) continue;
    place(task, worker);
    return task;
  }
  return nullptr;
}

void Scheduler::set_full(Worker* worker, bool full) {
  worker->full = full;
  look_at(*worker);
}

std::vector<Task*> Scheduler::remove(Worker* worker) {
  std::vector<Task*> orphans;
  worker->open = false;
  while (Task* task = worker->hand.first()) {
    leave_hand(task);
    orphans.push_back(task);
  }
  const auto leave = [&](std::vector<Worker*>* list) { list->erase(std::find(list->begin(), list->end(), worker)); };
  leave(&workers_);
  leave(&worker->at->workers);
  if (worker->only_cpu != kNoCpu) leave(&pinned_[worker->only_cpu]);
  full_ -= static_cast<int>(glances_[worker->position].full);
  glances_.erase(glances_.begin() + static_cast<std::ptrdiff_t>(worker->position));
  for (Source* source : sources_) {
    each_queue(source, [&](int, TaskList* tasks) {
      for (Task* task = tasks->first(); task != nullptr; task = task->next) {
        if (task->home == worker) task->home = nullptr;
      }
    });
  }
  for (Worker* other : workers_) {
    for (Task* task = other->hand.first(); task != nullptr; task = task->next) {
      if (task->home == worker) task->home = nullptr;
    }
  }
  for (Task* task : orphans) task->home = nullptr;
  start_over();
  return orphans;
}

// ---- results of tasks ----

void Scheduler::add(Task* task) {
  task->source->latest_kind = task->kind;
  enqueue(task, false);
}

void Scheduler::sent(Task* task, Nanos now) {
  task->state = TaskState::kSent;
  task->sent_ns = now;
  if (task == task->worker->hand.first()) {
    look_at(*task->worker);
  } else {
    rank_ahead(*task->worker);  // nothing else depends on it
  }
}

void Scheduler::not_sent(Task* task) {
  task->worker->full = task->worker->hand.size() > 1;
  leave_hand(task);
  if (!task->unwanted) enqueue(task, true);
}

void Scheduler::withdrawn(Task* task) {
  leave_hand(task);
  if (!task->unwanted) enqueue(task, true);
}

void Scheduler::not_withdrawn(Task* task) {
  task->claimed = true;
  if (task->worker != nullptr) rank_ahead(*task->worker);
}

void Scheduler::answered(Task* task, Nanos began, Nanos done) {
  Worker* worker = task->worker;
  const auto took = static_cast<double>(std::max<Nanos>(0, done - std::max(began, worker->last_done)));
  worker->last_done = std::max(worker->last_done, done);
  ++worker->answered;
  worker->faults = 0;
  worker->full = false;
  leave_hand(task);
  estimate_of(&worker->estimates, task->kind).learn(took);
  learn_of_all(task->kind, took);
  const double ratio = std::clamp(took / known(kinds_, task->kind)->mean, 0.1, 100.0);
  worker->slowness = worker->slowness == 0 ? ratio : worker->slowness + (ratio - worker->slowness) / 8;
  changed(*worker);
}

bool Scheduler::faulted(Task* task) {
  Worker* worker = task->worker;
  const int device = worker->device;
  ++worker->faults;
  worker->full = false;
  leave_hand(task);
  if (task->unwanted || task->device != kAnyDevice || !others_than(device) || task->faults + 1 >= options_.max_attempts) {
    return false;
  }
  ++task->faults;
  task->avoid = device;
  enqueue(task, true);
  return true;
}

void Scheduler::stopped(Task* task) {
  task->worker->full = false;
  leave_hand(task);
  if (!task->unwanted) enqueue(task, true);
}

bool Scheduler::raised(Task* task, Nanos began, Nanos done) {
  const int device = task->worker->device;
  answered(task, began, done);
  if (task->unwanted || task->crashes + task->faults + 1 >= options_.max_attempts) return false;
  ++task->faults;
  task->avoid = device;  // unless it is the only one
  enqueue(task, true);
  return true;
}

bool Scheduler::lose(Task* task, bool begun, bool certain, bool can_run_again) {
  task->crashes += begun ? 1 : 0;
  const bool is_blamed = begun && certain && task->crashes >= options_.max_attempts;
  if (task->unwanted || !can_run_again || is_blamed) return false;
  enqueue(task, true);
  return true;
}

void Scheduler::drop(Task* task) {
  task->unwanted = true;
  if (task->state == TaskState::kQueued) {
    leave_queue(task);
  } else if (task->worker != nullptr) {
    rank_ahead(*task->worker);
  }
}

// ---- taking back ----

Task* Scheduler::take_back(Nanos now, int skip, int avoid_cpu) {
  if (options_.random != 0) return take_back_at_random();
  if (ahead_ == 0 || busy_ == static_cast<int>(workers_.size())) return nullptr;
  pass_time(now);
  see_callers(skip, avoid_cpu);
  // From the worker that will be busy for longest, among those with tasks that can be taken back.
  Nanos latest = 0;
  Task* best = latest_to_give(now, &latest);
  if (best != nullptr && best->device != kAnyDevice && !has_idle(best->device)) best = scan_to_give(now, &latest);
  if (best == nullptr) return nullptr;
  const Nanos soonest = soonest_idle(*best, now);
  if (soonest == kNever) return nullptr;
  const Nanos gain = latest - soonest - move_cost(*best);
  if (gain > 0) return best;
  look_again_ = std::min(look_again_, now + std::max<Nanos>(tuning::kMoveCostNs, -gain));
  return nullptr;
}

Task* Scheduler::latest_to_give(Nanos now, Nanos* latest) const {
  Task* best = nullptr;
  const Nanos times[] = {now, 0, 2 * now};  // see rank_ahead
  for (std::size_t heap = 0; heap < 3; ++heap) {
    const Heaps::Entry* entry = aheads_.first(heap);
    if (entry == nullptr || times[heap] - entry->key <= *latest) continue;
    *latest = times[heap] - entry->key;
    best = workers_[entry->position]->hand.last();
  }
  return best;
}

// The same, if there are tasks for one device.
Task* Scheduler::scan_to_give(Nanos now, Nanos* latest) const {
  Task* best = nullptr;
  *latest = 0;
  for (const Worker* from : workers_) {
    if (!gives_back(*from)) continue;
    Task* const task = from->hand.last();
    const Nanos finish = free_at(*from, now);
    if (finish <= *latest || (task->device != kAnyDevice && !has_idle(task->device))) continue;
    *latest = finish;
    best = task;
  }
  return best;
}

// Returns when an idle worker that would get the task would finish it.
Nanos Scheduler::soonest_idle(const Task& task, Nanos now) {
  if (task.device == kAnyDevice && task.avoid == kAnyDevice) {
    const Ranking::Choice idle = ranking_of(task.kind).choose(now).idle;
    return idle.found() && expected(*workers_[idle.position], task) != kUnknown ? idle.finish : kNever;
  }
  Nanos soonest = kNever;
  for (const Worker* idle : workers_) {
    if (!idle->hand.empty() || idle->full || !may_run(*idle, task, task.avoid != kAnyDevice)) continue;
    if (idle->only_cpu != kNoCpu && idle->only_cpu == skip_)
      continue;  // the task would go back to the worker that it came from
    const Offer found = offer(*idle, task, now);
    if (expected(*idle, task) != kUnknown) soonest = std::min(soonest, found.finish);
  }
  return soonest;
}

bool Scheduler::has_idle(int device) const {
  const std::vector<Worker*>& workers = devices_.at(device).workers;
  return std::any_of(workers.begin(), workers.end(), [](const Worker* worker) { return worker->open && worker->hand.empty(); });
}

Task* Scheduler::take_back_at_random() {
  std::vector<Task*> candidates;
  for (const Worker* from : workers_) {
    for (Task* task = from->hand.first(); task != nullptr; task = task->next) {
      if (task->state == TaskState::kSent && !task->claimed && !task->unwanted) candidates.push_back(task);
    }
  }
  if (candidates.empty() || draw() % 4 != 0) return nullptr;
  return candidates[draw() % candidates.size()];
}

bool Scheduler::hedge(const Task& task, Nanos now, Nanos* look_again, int skip) {
  *look_again = kNever;
  const Worker* at = task.worker;
  if (options_.random != 0 && options_.hedge > 0 && task.state == TaskState::kSent && !task.unwanted && task.crashes == 0) {
    return draw() % 8 == 0;
  }
  if (options_.hedge <= 0 || task.state != TaskState::kSent || task.unwanted || task.crashes > 0 || waiting_ > 0) return false;
  if (busy_ == static_cast<int>(workers_.size())) return false;
  if (at->hand.first() != &task && !at->several && !task.claimed) return false;  // it can still be taken back
  Nanos shortest = kNever;
  for (const Worker* idle : workers_) {
    if (!idle->hand.empty() || idle->full || idle->device == at->device || !may_run(*idle, task, true)) continue;
    if (idle->only_cpu != kNoCpu && idle->only_cpu == skip) continue;
    const Nanos expects = expected(*idle, task);
    if (expects != kUnknown) shortest = std::min(shortest, expects);
  }
  if (shortest == kNever) return false;
  const Nanos began = std::max(task.sent_ns, at->last_done);
  const Nanos due = began + std::max(shortest, task.expected_ns);
  const Nanos enough = began + std::max(tuning::kMoveCostNs, to_nanos(options_.hedge * static_cast<double>(shortest)));
  const Nanos ends = now < due ? due : now + (now - due) + (due - began) / 4;  // as in free_at
  if (now >= enough && now + shortest + move_cost(task) < ends) return true;
  *look_again = now < enough ? enough : std::max(now + 1, due + shortest + move_cost(task) - (due - began) / 4);
  return false;
}

bool Scheduler::wants_more(const Source& source) { return source.waiting == 0 && ranking_of(source.latest_kind).roomy() > 0; }

// ---- the consistency check ----

std::string Scheduler::check() const {
  std::string first;
  const auto wrong = [&](const char* what) {
    if (first.empty()) first = what;
  };
  std::size_t waiting = 0;
  for (const Source* source : sources_) {
    std::size_t here = 0;
    each_queue(const_cast<Source*>(source), [&](int device, const TaskList* tasks) {
      std::size_t count = 0;
      for (const Task* task = tasks->first(); task != nullptr; task = task->next, ++count) {
        if (task->state != TaskState::kQueued || task->worker != nullptr) wrong("a queued task is placed elsewhere");
        if (task->unwanted) wrong("an unwanted task is in a queue");
        if (task->device != device) wrong("a task is in the queue of another device");
      }
      if (count != tasks->size()) wrong("a queue's count is not the number of its tasks");
      here += count;
    });
    if (here != source->waiting) wrong("a source's count is not the number of its queued tasks");
    waiting += here;
  }
  if (waiting != waiting_) wrong("the count of queued tasks is not their number");
  int busy = 0;
  int ahead = 0;
  std::size_t departed = 0;
  for (const Worker* worker : workers_) {
    std::size_t count = 0;
    Nanos expects = 0;
    int crashed = 0;
    for (const Task* task = worker->hand.first(); task != nullptr; task = task->next, ++count) {
      if (task->state < TaskState::kPlaced) wrong("a worker's task is neither placed nor sent");
      if (task->worker != worker) wrong("a worker's task names another worker");
      if (task->device != kAnyDevice && task->device != worker->device) wrong("a task is on a device that it did not ask for");
      if (task->source == &departed_) {
        ++departed;
        if (!task->unwanted) wrong("a task is wanted although its source was removed");
      } else if (std::find(sources_.begin(), sources_.end(), task->source) == sources_.end()) {
        wrong("a task's source was removed");
      }
      expects += std::max<Nanos>(0, task->expected_ns);
      crashed += task->crashes > 0;
    }
    if (count != worker->hand.size()) wrong("a worker's count is not the number of its tasks");
    if (expects != worker->hand_ns) wrong("a worker's expected time is not its tasks' sum");
    if (crashed > 0 && count != 1) wrong("a worker has other tasks beside one that had a crash");
    if ((crashed > 0) != worker->isolated) wrong("a worker is isolated without a task that had a crash, or the reverse");
    busy += count > 0;
    ahead += count > 1;
  }
  for (const Worker* worker : workers_) {
    const Glance& glance = glances_[worker->position];
    if (glance.in_hand != worker->hand.size() || glance.usable != (worker->open && !worker->isolated) ||
        glance.full != worker->full) {
      wrong("the ranking of a worker is out of date");
    }
  }
  if (departed != departed_.under_way) wrong("the count of tasks without a source is not their number");
  if (busy != busy_ || ahead != ahead_) wrong("the count of busy workers is not their number");
  return first;
}

}  // namespace ais::pool
