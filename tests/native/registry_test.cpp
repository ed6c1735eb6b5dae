// Random tasks over slots. At every step: the registry never registers overlapping ranges, never unregisters memory that a copy
// uses, and the device never copies from or to pages that the parent has released.
#include <cstdint>
#include <cstdio>
#include <map>
#include <random>
#include <vector>

#include "check.hpp"
#include "worker/slot_registry.hpp"

namespace {

using ais::Code;
using ais::Result;
using ais::Status;
namespace device = ais::device;

constexpr std::uintptr_t kPage = 4096;
constexpr std::uintptr_t kSlotBytes = 256 * kPage;
constexpr std::uintptr_t kArena = std::uintptr_t{1} << 40;  // the memory is never accessed
constexpr int kSlots = 6;

// A slot has new pages after each release by the parent.
struct Slot {
  std::uint64_t pages = 0;
  int tasks = 0;
};

struct Direct {  // memory that the device copies directly
  std::uintptr_t begin;
  std::uintptr_t end;
};

class FakeDevice final : public device::Device {
 public:
  struct Known {
    std::uintptr_t end;
    std::uint64_t pages;  // of its slot, when it was registered
  };
  int id() const override { return 0; }
  std::string runtime() const override { return "fake"; }
  bool host_visible() const override { return false; }
  Result<device::Buffer> allocate(std::size_t) override { return Status(Code::kUnsupported, "no memory here"); }
  Status copy_to_device(void*, const void*, std::size_t) override { return Status(); }
  Status copy_to_host(void*, const void*, std::size_t) override { return Status(); }
  Status copy_on_device(void*, const void*, std::size_t) override { return Status(); }
  Result<std::shared_ptr<device::Model>> load(const device::ModelSource&, const device::Options&) override {
    return Status(Code::kUnsupported, "no models here");
  }

  Status register_host(void* host, std::size_t bytes) override {
    const auto begin = reinterpret_cast<std::uintptr_t>(host);
    CHECK(begin % kPage == 0 && bytes % kPage == 0 && bytes != 0);
    CHECK(slot_of(begin) == slot_of(begin + bytes - 1));
    for (const auto& [other, range] : known) CHECK(other >= begin + bytes || range.end <= begin);
    known[begin] = {begin + bytes, slots[slot_of(begin)].pages};
    ++registrations;
    return Status();
  }
  Status unregister_host(void* host) override {
    const auto found = known.find(reinterpret_cast<std::uintptr_t>(host));
    CHECK(found != known.end());
    for (const auto& [task, list] : direct) {
      for (const Direct& copy : list) CHECK(copy.begin >= found->second.end || copy.end <= found->first);
    }
    known.erase(found);
    return Status();
  }

  static int slot_of(std::uintptr_t address) { return static_cast<int>((address - kArena) / kSlotBytes); }
  const Known* covering(std::uintptr_t begin, std::uintptr_t end) const {
    auto after = known.upper_bound(begin);
    if (after == known.begin()) return nullptr;
    const Known& range = (--after)->second;
    return range.end >= end ? &range : nullptr;
  }

  std::map<std::uintptr_t, Known> known;
  std::map<std::uint64_t, std::vector<Direct>> direct;  // by task
  std::vector<Slot> slots = std::vector<Slot>(kSlots);
  std::uint64_t registrations = 0;
};

struct Task {
  ais::worker::SlotRegistry::User user;
  std::vector<int> slots;
};

class Torment {
 public:
  explicit Torment(unsigned seed) : random_(seed), registry_(&fake_) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      const int choice = pick(10);
      if (choice == 0) {
        give_back();
      } else if (choice < 6 && tasks_.size() < 4) {
        start();
      } else if (!tasks_.empty()) {
        end(static_cast<std::size_t>(pick(static_cast<int>(tasks_.size()))));
      }
    }
    while (!tasks_.empty()) end(0);
    CHECK(fake_.registrations > 10 && copied_directly_ > 100);
    registry_.unregister_all();
    CHECK(fake_.known.empty());
  }

 private:
  int pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }

  // The parent releases the memory of a free slot, and counts this before the worker gets the slot again.
  void give_back() {
    Slot& slot = fake_.slots[pick(kSlots)];
    if (slot.tasks != 0) return;
    ++slot.pages;
    ++punched_;
  }

  // Uses one or two slots (tasks may share feeds), with consecutive tensors in each.
  void start() {
    Task task;
    task.user = {++numbers_, punched_, {}};
    for (int count = 1 + pick(2); count > 0; --count) {
      const int slot = pick(kSlots);
      ++fake_.slots[slot].tasks;
      task.slots.push_back(slot);
      std::uintptr_t at = kArena + static_cast<std::uintptr_t>(slot) * kSlotBytes + (pick(4) == 0 ? 64 * pick(1000) : 0);
      const std::uintptr_t end = kArena + static_cast<std::uintptr_t>(slot + 1) * kSlotBytes;
      for (int tensors = 1 + pick(3); tensors > 0 && at + 1000 < end; --tensors) {
        const auto bytes = std::min<std::uintptr_t>(end - at, 64 * (1 + static_cast<std::uintptr_t>(pick(4000))));
        use(&task, at, bytes);
        at += bytes;
      }
    }
    tasks_.push_back(std::move(task));
  }

  // A pipeline copies memory directly if it is registered when the run starts.
  void use(Task* task, std::uintptr_t at, std::uintptr_t bytes) {
    registry_.use(&task->user, reinterpret_cast<const void*>(at), bytes);
    const FakeDevice::Known* range = fake_.covering(at, at + bytes);
    if (range == nullptr) return;
    CHECK(range->pages == fake_.slots[FakeDevice::slot_of(at)].pages);
    fake_.direct[task->user.task].push_back({at, at + bytes});
    ++copied_directly_;
  }

  void end(std::size_t index) {
    Task task = std::move(tasks_[index]);
    tasks_.erase(tasks_.begin() + static_cast<std::ptrdiff_t>(index));
    fake_.direct.erase(task.user.task);
    registry_.end(task.user);
    for (const int slot : task.slots) --fake_.slots[slot].tasks;
  }

  std::mt19937 random_;
  FakeDevice fake_;
  ais::worker::SlotRegistry registry_;
  std::vector<Task> tasks_;
  std::uint64_t numbers_ = 0;
  std::uint64_t punched_ = 0;
  std::uint64_t copied_directly_ = 0;
};

}  // namespace

TEST(random_tasks) {
  for (unsigned seed = 1; seed <= 40; ++seed) Torment(seed).run(4000);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
