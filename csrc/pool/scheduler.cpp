// The policy, see scheduler.hpp.
#include "pool/scheduler.hpp"

#include <algorithm>
#include <string>

namespace ais::pool {
namespace {

constexpr std::size_t kKindsKept = 24;  // estimates a worker keeps; the one that was not used for longest goes
constexpr double kLearn = 0.25;         // weight of the newest time
constexpr double kOutlier = 8;          // one time counts as so many times the mean at most

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
  ns = std::min(ns, kOutlier * mean);
  late += kLearn * (std::max(0.0, ns - mean) - late);
  mean += kLearn * (ns - mean);
}

Scheduler::Scheduler(const Options& options) : options_(options), state_(options.random * 0x9e3779b97f4a7c15u + 1) {}

Scheduler::~Scheduler() = default;

std::uint64_t Scheduler::draw() {  // xorshift
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return state_;
}

// ---- what is known of times ----

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
  if (estimates->size() < kKindsKept) {
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

Scheduler::Outlook Scheduler::look_out(const Worker& worker, std::uint32_t kind) const {
  Outlook outlook;
  const Estimate* own = known(worker.estimates, kind);
  const Estimate* all = own == nullptr ? known(kinds_, kind) : nullptr;
  if (own != nullptr) {
    outlook.lasting = true;
    outlook.expected = to_nanos(own->mean / worker.weight);
    const auto more = static_cast<int>(std::min<double>(kMostInFlight, static_cast<double>(kWorkInHand) / (own->mean + 1)));
    const bool uneven = own->late > own->mean / 2 && more < kManyInFlight;
    outlook.limit = std::min(kMostInFlight, (uneven ? std::min(options_.fewest, 2) : options_.fewest) + more);
  } else if (all != nullptr) {
    outlook.expected = to_nanos(all->mean * (worker.slowness > 0 ? worker.slowness : 1.0) / worker.weight);
  }
  if (own == nullptr && worker.several) outlook.limit = options_.fewest;
  if (options_.in_flight > 0) outlook.limit = options_.in_flight;
  return outlook;
}

Nanos Scheduler::expected(const Worker& worker, const Task& task) const { return look_out(worker, task.kind).expected; }

int Scheduler::limit(const Worker& worker, std::uint32_t kind) const { return look_out(worker, kind).limit; }

Nanos Scheduler::free_at(const Glance& glance, Nanos now) {
  if (glance.in_hand == 0) return now;
  if (glance.due == kUnknown) return now + glance.whole + glance.rest;  // the first is on its way there
  if (now < glance.due) return glance.due + glance.rest;
  return now + (now - glance.due) + glance.whole / 4 + glance.rest;
}

Nanos Scheduler::free_at(const Worker& worker, Nanos now) const { return free_at(glances_[worker.position], now); }

// After every change to a worker: what choosing looks at, side by side for all workers.
void Scheduler::look_at(const Worker& worker) {
  Glance& glance = glances_[worker.position];
  const Task* first = worker.hand.first();
  glance.in_hand = static_cast<std::uint32_t>(worker.hand.size());
  glance.usable = worker.open && !worker.isolated;
  glance.full = worker.full;
  glance.unknown = worker.unknown > 0;
  if (first == nullptr) return;
  glance.whole = std::max<Nanos>(0, first->expected_ns);
  glance.rest = worker.hand_ns - glance.whole;
  glance.due = first->place == Place::kSent ? std::max(first->sent_ns, worker.last_done) + glance.whole : kUnknown;
}

Scheduler::Glance& Scheduler::glance_for(const Worker& worker, std::uint32_t kind) {
  Glance& glance = glances_[worker.position];
  if (glance.kind == kind && glance.valid) return glance;
  const Outlook outlook = look_out(worker, kind);
  glance.kind = kind;
  glance.valid = outlook.lasting;
  glance.expected = outlook.expected;
  glance.limit = static_cast<std::uint32_t>(outlook.limit);
  return glance;
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

Worker* Scheduler::pick(const Task& task, Nanos now, int skip, int shun) {
  if (options_.random != 0) return pick_at_random(task);
  const int avoid = task.avoid != kAnyDevice && others_than(task.avoid) ? task.avoid : kAnyDevice;
  Choice any;        // that would finish it first
  Choice with_room;  // of those that can take it now
  Choice idle;       // of those that have nothing to do
  Choice home;
  Nanos any_expects = 0;
  std::uint32_t fewest = 0;
  for (Worker* worker : workers_) {
    const Glance& glance = glance_for(*worker, task.kind);
    if (!glance.usable || (task.device != kAnyDevice && glance.device != task.device) || glance.device == avoid) continue;
    const bool pinned = glance.only_cpu != kNoCpu;
    if (pinned && glance.only_cpu == skip) continue;
    if (task.crashes > 0 && glance.in_hand > 0) continue;  // P6
    const bool knows = glance.expected != kUnknown && !glance.unknown;
    if (glance.in_hand > 0 && !knows && options_.in_flight == 0 && !worker->several) continue;  // P3
    const Nanos expects = std::max<Nanos>(0, glance.expected);
    const Nanos finish = free_at(glance, now) + expects + (pinned && glance.only_cpu == shun ? kSameProcessor : 0);
    if (finish < any.finish) {
      any = {worker, finish};
      any_expects = expects;
    }
    if (glance.full || glance.in_hand >= glance.limit) continue;
    if (worker == task.home) home = {worker, finish};
    if (glance.in_hand == 0 && finish < idle.finish) idle = {worker, finish};
    if (finish < with_room.finish || (finish == with_room.finish && glance.in_hand < fewest)) {
      with_room = {worker, finish};
      fewest = glance.in_hand;
    }
  }
  if (with_room.worker == nullptr) return nullptr;
  if (home.worker != nullptr && home.finish - with_room.finish < move_cost(task)) return home.worker;
  // While more tasks wait, a worker that will be busy anyway need not be the very best one.
  if (with_room.finish <= any.finish + (more_to_come(task) ? any_expects : 0)) return with_room.worker;
  if (idle.worker != nullptr && worth_it(*idle.worker, task, now, idle.finish)) return idle.worker;
  // The better one may take longer than expected.
  look_again_ = std::min(look_again_, now + std::max<Nanos>(kMoveCost, with_room.finish - any.finish));
  return nullptr;
}

Nanos Scheduler::move_cost(const Task& task) const {
  return kMoveCost + to_nanos(kMoveCostPerByte * static_cast<double>(task.bytes));
}

bool Scheduler::more_to_come(const Task& task) const { return task.source->waiting > 1 || task.source->to_come != 0; }

// P2: whether the others would still be at what waits and is to come when this idle worker had finished the task.
bool Scheduler::worth_it(const Worker& worker, const Task& task, Nanos now, Nanos finish) const {
  double tasks = static_cast<double>(waiting_);
  for (const Source* source : sources_) {
    if (source->to_come == Source::kEndless) return true;
    tasks += static_cast<double>(source->to_come);
  }
  double backlog = 0;
  double rate = 0;
  for (const Worker* other : workers_) {
    if (other == &worker || !other->open) continue;
    const Nanos each = expected(*other, task);
    if (each == kUnknown) continue;
    backlog += static_cast<double>(free_at(*other, now) - now) / static_cast<double>(std::max<Nanos>(1, each));
    rate += 1.0 / static_cast<double>(std::max<Nanos>(1, each));
  }
  return rate == 0 || static_cast<double>(finish - now) <= (tasks + backlog) / rate;
}

Worker* Scheduler::pick_at_random(const Task& task) {
  const bool avoid = task.avoid != kAnyDevice && others_than(task.avoid);
  std::vector<Worker*> candidates;
  for (Worker* worker : workers_) {
    if (!may_run(*worker, task, avoid) || worker->full) continue;
    const int most = options_.in_flight > 0 ? options_.in_flight : kManyInFlight;
    if (static_cast<int>(worker->hand.size()) < most) candidates.push_back(worker);
  }
  if (candidates.empty()) return nullptr;
  if (busy_ > 0 && draw() % 8 == 0) {
    look_again_ = 0;  // at once
    return nullptr;
  }
  return candidates[draw() % candidates.size()];
}

Task* Scheduler::next(Nanos now, int skip, int shun) {
  look_again_ = kNever;
  if (waiting_ == 0) return nullptr;
  turns_.clear();
  for (Source* source : sources_) {
    if (source->waiting > 0) turns_.push_back(source);
  }
  if (turns_.size() > 1) {  // P5
    std::stable_sort(turns_.begin(), turns_.end(), [](const Source* a, const Source* b) { return a->served < b->served; });
  }
  for (Source* source : turns_) {
    for (Source::Queue& queue : source->queues) {
      Task* task = queue.tasks.first();
      if (task == nullptr) continue;
      Worker* worker = pick(*task, now, skip, shun);
      if (worker == nullptr) continue;
      place(task, worker);
      served_ = std::max(served_, source->served);
      source->served += static_cast<double>(std::max<Nanos>(1000, task->expected_ns)) / source->weight;
      return task;
    }
  }
  return nullptr;
}

void Scheduler::place(Task* task, Worker* worker) {
  leave_queue(task);
  task->place = Place::kPlaced;
  task->worker = worker;
  task->claimed = false;
  task->expected_ns = expected(*worker, *task);
  worker->hand_ns += std::max<Nanos>(0, task->expected_ns);
  worker->unknown += task->expected_ns == kUnknown;
  worker->isolated = task->crashes > 0;
  if (worker->hand.empty()) ++busy_;
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
  if (worker->hand.empty()) --busy_;
  if (worker->hand.size() == 1) --ahead_;
  task->worker = nullptr;
  task->place = Place::kOut;
  look_at(*worker);
}

// ---- queues ----

Source::Queue& Scheduler::queue_of(Task* task) {
  std::vector<Source::Queue>& queues = task->source->queues;
  for (Source::Queue& queue : queues) {
    if (queue.device == task->device) return queue;
  }
  // Tasks for one device come before those for any: no other worker can do them.
  return *queues.insert(task->device == kAnyDevice ? queues.end() : queues.begin(), {task->device, {}});
}

void Scheduler::enqueue(Task* task, bool first) {
  Source* source = task->source;
  if (source->under_way++ == 0) source->served = std::max(source->served, served_);  // no credit for having been away
  TaskList& tasks = queue_of(task).tasks;
  first ? tasks.push_front(task) : tasks.push_back(task);
  task->place = Place::kQueued;
  ++source->waiting;
  ++waiting_;
}

void Scheduler::leave_queue(Task* task) {
  queue_of(task).tasks.remove(task);
  --task->source->waiting;
  --task->source->under_way;
  --waiting_;
  task->place = Place::kOut;
}

std::vector<Task*> Scheduler::take_queued(int device) {
  std::vector<Task*> taken;
  for (Source* source : sources_) {
    for (Source::Queue& queue : source->queues) {
      if (device != kAnyDevice && queue.device != device) continue;
      while (Task* task = queue.tasks.first()) {
        leave_queue(task);
        taken.push_back(task);
      }
    }
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
  for (Worker* worker : workers_) {
    for (Task* task = worker->hand.first(); task != nullptr; task = task->next) {
      if (task->source != source) continue;
      task->source = &departed_;
      ++departed_.under_way;
    }
  }
}

void Scheduler::add(Worker* worker) {
  worker->position = workers_.size();
  workers_.push_back(worker);
  Glance glance;
  glance.device = worker->device;
  glance.only_cpu = worker->only_cpu;
  glances_.push_back(glance);
  look_at(*worker);
}

void Scheduler::close(Worker* worker) {
  worker->open = false;
  look_at(*worker);
}

Task* Scheduler::next_for(Worker* worker) {
  if (worker->isolated || worker->full || worker->hand.size() >= static_cast<std::size_t>(kMostInFlight)) return nullptr;
  for (Source* source : sources_) {
    for (Source::Queue& queue : source->queues) {
      Task* task = queue.device == worker->device ? queue.tasks.first() : nullptr;
      if (task == nullptr || (task->crashes > 0 && !worker->hand.empty())) continue;
      place(task, worker);
      return task;
    }
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
  workers_.erase(std::find(workers_.begin(), workers_.end(), worker));
  glances_.erase(glances_.begin() + static_cast<std::ptrdiff_t>(worker->position));
  for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i]->position = i;
  for (Source* source : sources_) {
    for (Source::Queue& queue : source->queues) {
      for (Task* task = queue.tasks.first(); task != nullptr; task = task->next) {
        if (task->home == worker) task->home = nullptr;
      }
    }
  }
  for (Worker* other : workers_) {
    for (Task* task = other->hand.first(); task != nullptr; task = task->next) {
      if (task->home == worker) task->home = nullptr;
    }
  }
  for (Task* task : orphans) task->home = nullptr;
  return orphans;
}

// ---- what happens to tasks ----

void Scheduler::add(Task* task) {
  task->source->latest_kind = task->kind;
  enqueue(task, false);
}

void Scheduler::sent(Task* task, Nanos now) {
  task->place = Place::kSent;
  task->sent_ns = now;
  look_at(*task->worker);
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

void Scheduler::not_withdrawn(Task* task) { task->claimed = true; }

void Scheduler::answered(Task* task, Nanos began, Nanos done) {
  Worker* worker = task->worker;
  const auto took = static_cast<double>(std::max<Nanos>(0, done - std::max(began, worker->last_done)));
  worker->last_done = std::max(worker->last_done, done);
  ++worker->answered;
  roomy_ = worker->position;
  worker->faults = 0;
  worker->full = false;
  leave_hand(task);
  estimate_of(&worker->estimates, task->kind).learn(took);
  glances_[worker->position].valid = false;
  Estimate& all = estimate_of(&kinds_, task->kind);
  all.learn(took);
  const double ratio = std::clamp(took / all.mean, 0.1, 100.0);
  worker->slowness = worker->slowness == 0 ? ratio : worker->slowness + (ratio - worker->slowness) / 8;
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
  const bool guilty = begun && certain && task->crashes >= options_.max_attempts;
  if (task->unwanted || !can_run_again || guilty) return false;
  enqueue(task, true);
  return true;
}

void Scheduler::drop(Task* task) {
  task->unwanted = true;
  if (task->place == Place::kQueued) leave_queue(task);
}

// ---- taking back ----

Task* Scheduler::take_back(Nanos now, int skip, int shun) {
  if (options_.random != 0) return take_back_at_random();
  if (ahead_ == 0 || busy_ == static_cast<int>(workers_.size())) return nullptr;
  // From the worker that will be busy for longest, of those that have something to give.
  Task* best = nullptr;
  Nanos latest = 0;
  for (const Worker* from : workers_) {
    if (from->hand.size() < 2) continue;
    Task* task = from->hand.last();
    if (task->place != Place::kSent || task->claimed || task->unwanted || task->crashes > 0 || task->home == from) continue;
    if (task->device != kAnyDevice && options_.random == 0 && !has_idle(task->device)) continue;
    const Nanos finish = free_at(*from, now);
    if (finish > latest) {
      latest = finish;
      best = task;
    }
  }
  if (best == nullptr) return nullptr;
  Nanos soonest = kNever;
  for (const Worker* idle : workers_) {
    if (!idle->hand.empty() || !may_run(*idle, *best, best->avoid != kAnyDevice)) continue;
    const bool pinned = idle->only_cpu != kNoCpu;
    if (idle->full || (pinned && idle->only_cpu == skip)) continue;  // it would go back to where it came from
    const Nanos expects = expected(*idle, *best);
    const Nanos later = pinned && idle->only_cpu == shun ? kSameProcessor : 0;
    if (expects != kUnknown) soonest = std::min(soonest, now + expects + later);
  }
  if (soonest == kNever) return nullptr;
  const Nanos gain = latest - soonest - move_cost(*best);
  if (gain > 0) return best;
  look_again_ = std::min(look_again_, now + std::max<Nanos>(kMoveCost, -gain));
  return nullptr;
}

bool Scheduler::has_idle(int device) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const Worker* worker) {
    return worker->open && worker->hand.empty() && (device == kAnyDevice || worker->device == device);
  });
}

Task* Scheduler::take_back_at_random() {
  std::vector<Task*> candidates;
  for (const Worker* from : workers_) {
    for (Task* task = from->hand.first(); task != nullptr; task = task->next) {
      if (task->place == Place::kSent && !task->claimed && !task->unwanted) candidates.push_back(task);
    }
  }
  if (candidates.empty() || draw() % 4 != 0) return nullptr;
  return candidates[draw() % candidates.size()];
}

bool Scheduler::hedge(const Task& task, Nanos now, Nanos* look_again, int skip) {
  *look_again = kNever;
  const Worker* at = task.worker;
  if (options_.random != 0 && options_.hedge > 0 && task.place == Place::kSent && !task.unwanted && task.crashes == 0) {
    return draw() % 8 == 0;
  }
  if (options_.hedge <= 0 || task.place != Place::kSent || task.unwanted || task.crashes > 0 || waiting_ > 0) return false;
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
  const Nanos enough = began + std::max(kMoveCost, to_nanos(options_.hedge * static_cast<double>(shortest)));
  const Nanos ends = now < due ? due : now + (now - due) + (due - began) / 4;  // as in free_at
  if (now >= enough && now + shortest + move_cost(task) < ends) return true;
  *look_again = now < enough ? enough : std::max(now + 1, due + shortest + move_cost(task) - (due - began) / 4);
  return false;
}

bool Scheduler::wants_more(const Source& source) {
  if (source.waiting > 0 || workers_.empty()) return false;
  const auto has_room = [&](std::size_t position) {
    const Glance& glance = glance_for(*workers_[position], source.latest_kind);
    return glance.usable && !glance.full && glance.in_hand < glance.limit;
  };
  // Mostly the one that had room the last time, or has answered since.
  if (roomy_ < workers_.size() && has_room(roomy_)) return true;
  for (roomy_ = 0; roomy_ < workers_.size(); ++roomy_) {
    if (has_room(roomy_)) return true;
  }
  return false;
}

// ---- the books ----

std::string Scheduler::check() const {
  std::string first;
  const auto wrong = [&](const char* what) {
    if (first.empty()) first = what;
  };
  std::size_t waiting = 0;
  for (const Source* source : sources_) {
    std::size_t here = 0;
    for (const Source::Queue& queue : source->queues) {
      std::size_t count = 0;
      for (const Task* task = queue.tasks.first(); task != nullptr; task = task->next, ++count) {
        if (task->place != Place::kQueued || task->worker != nullptr) wrong("a task in a queue is elsewhere, too");
        if (task->unwanted) wrong("a task that nobody wants waits");
        if (task->device != queue.device) wrong("a task is in the queue of another device");
      }
      if (count != queue.tasks.size()) wrong("a queue counts wrong");
      here += count;
    }
    if (here != source->waiting) wrong("a source counts wrong");
    waiting += here;
  }
  if (waiting != waiting_) wrong("waiting tasks are counted wrong");
  int busy = 0;
  int ahead = 0;
  std::size_t departed = 0;
  for (const Worker* worker : workers_) {
    std::size_t count = 0;
    Nanos expects = 0;
    int suspects = 0;
    for (const Task* task = worker->hand.first(); task != nullptr; task = task->next, ++count) {
      if (task->place != Place::kPlaced && task->place != Place::kSent) wrong("a task in hand is elsewhere, too");
      if (task->worker != worker) wrong("a task in hand names another worker");
      if (task->device != kAnyDevice && task->device != worker->device) wrong("a task is on a device that it did not ask for");
      if (task->source == &departed_) {
        ++departed;
        if (!task->unwanted) wrong("a task is wanted although its source is gone");
      } else if (std::find(sources_.begin(), sources_.end(), task->source) == sources_.end()) {
        wrong("a task's source is gone");
      }
      expects += std::max<Nanos>(0, task->expected_ns);
      suspects += task->crashes > 0;
    }
    if (count != worker->hand.size()) wrong("a worker counts wrong");
    if (expects != worker->hand_ns) wrong("expected times are summed wrong");
    if (suspects > 0 && count != 1) wrong("a suspect is not alone");
    if ((suspects > 0) != worker->isolated) wrong("a worker is isolated without a suspect");
    busy += count > 0;
    ahead += count > 1;
  }
  for (const Worker* worker : workers_) {
    const Glance& glance = glances_[worker->position];
    if (glance.in_hand != worker->hand.size() || glance.usable != (worker->open && !worker->isolated) ||
        glance.full != worker->full) {
      wrong("what choosing looks at is out of date");
    }
  }
  if (departed != departed_.under_way) wrong("tasks of sources that are gone are counted wrong");
  if (busy != busy_ || ahead != ahead_) wrong("busy workers are counted wrong");
  return first;
}

}  // namespace ais::pool
