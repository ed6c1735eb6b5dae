// The executor between threads that make feeds and threads that take outputs, on a fake device.
#include "worker/executor.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "check.hpp"
#include "shm/lane.hpp"

using namespace ais;

namespace {

template <typename T>
T take(Result<T> result) {
  if (!result.ok()) check::fail(__FILE__, __LINE__, result.status().message());
  return result.take();
}

// Adds one to each byte. If the first byte is 250, the run fails; if it is 251, the device is lost.
class PlayedModel : public device::Model {
 public:
  PlayedModel() {
    device::TensorDesc desc;
    desc.name = "x";
    desc.dtype = DType::kUInt8;
    desc.shape = {64};
    desc.bytes = 64;
    info_.inputs = {desc};
    info_.outputs = {desc};
  }
  const device::ModelInfo& info() const override { return info_; }
  Status execute(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs) override {
    const auto* in = static_cast<const std::uint8_t*>(inputs[0].data);
    if (in[0] == 250) return Status(Code::kExecution, "as asked");
    if (in[0] == 251) return Status(Code::kDeviceLost, "as asked");
    auto* out = static_cast<std::uint8_t*>((*outputs)[0].data);
    for (std::size_t i = 0; i < inputs[0].bytes; ++i) out[i] = static_cast<std::uint8_t>(in[i] + 1);
    (*outputs)[0].bytes = inputs[0].bytes;
    return Status();
  }
  Result<std::unique_ptr<device::Binding>> bind(const std::vector<TensorView>&, std::vector<device::Output>) override {
    return Status(Code::kUnsupported, "not played");
  }
  std::string cancel() override {
    ++cancels;
    return "";
  }
  static inline std::atomic<std::uint64_t> cancels{0};

 private:
  device::ModelInfo info_;
};

class PlayedDevice : public device::Device {
 public:
  int id() const override { return 0; }
  std::string runtime() const override { return "played"; }
  bool host_visible() const override { return true; }
  Result<device::Buffer> allocate(std::size_t bytes) override {
    return device::Buffer{
        std::shared_ptr<void>(new std::uint8_t[bytes], [](void* data) { delete[] static_cast<std::uint8_t*>(data); }), bytes};
  }
  Status copy_to_device(void* to, const void* from, std::size_t bytes) override { return copy(to, from, bytes); }
  Status copy_to_host(void* to, const void* from, std::size_t bytes) override { return copy(to, from, bytes); }
  Status copy_on_device(void* to, const void* from, std::size_t bytes) override { return copy(to, from, bytes); }
  Status register_host(void*, std::size_t) override { return Status(Code::kUnsupported, "not played"); }
  Status unregister_host(void*) override { return Status(Code::kUnsupported, "not played"); }
  Result<std::shared_ptr<device::Model>> load(const device::ModelSource&, const device::Options&) override {
    return std::shared_ptr<device::Model>(std::make_shared<PlayedModel>());
  }

 private:
  static Status copy(void* to, const void* from, std::size_t bytes) {
    std::memcpy(to, from, bytes);
    return Status();
  }
};

class PlayedRuntime : public device::Runtime {
 public:
  std::string name() const override { return "played"; }
  std::string version() const override { return "1"; }
  Result<int> device_count() override { return 1; }
  Result<std::shared_ptr<device::Device>> open(int, const device::Options&) override {
    return std::shared_ptr<device::Device>(std::make_shared<PlayedDevice>());
  }
  Status finalize() override { return Status(); }
};

struct Job : worker::Executor::Job, session::OutputSink {
  std::vector<std::uint8_t> made;     // the feeds, in memory of a callable
  std::vector<std::uint8_t> outputs;  // the outputs, in memory of a callable
  void* reserve(std::size_t, const device::TensorDesc&, const Shape&, std::size_t bytes) override {
    outputs.resize(bytes);
    return outputs.data();
  }
};

// A lane, its worker's end, and an executor that serves it with two threads on either side.
struct Stages {
  Stages() : bell(take(shm::Bell::create())), lane(take(shm::Lane::create(bell, {0, std::size_t{1} << 30, 0}))) {
    port = take(shm::Port::attach(shm::Fd(dup(lane->region()->fd())), shm::Fd(dup(bell->fd()))));
    session::SessionConfig config;
    config.source.path = "played";
    session = take(session::Session::open(&runtime, config));
    executor = std::make_unique<worker::Executor>(session, port.get());
  }

  void prepare(bool with_sink) {
    while (true) {
      auto job = std::make_unique<Job>();
      {
        const std::lock_guard<std::mutex> lock(turn);
        if (take(port->next(shm::kNoDeadline, &job->task)) == shm::Next::kClosed) return;
      }
      const auto* fed = static_cast<const std::uint8_t*>(job->task.feeds[0].data);
      job->made.assign(fed, fed + job->task.feeds[0].bytes);
      session::Feed feed;
      feed.view = {job->made.data(), job->made.size(), DType::kUInt8, {static_cast<std::int64_t>(job->made.size())}};
      job->feeds.push_back(std::move(feed));
      if (with_sink) job->sink = job.get();
      executor->submit(std::move(job));
      executor->take_spent();
    }
  }

  void finish() {
    while (auto next = executor->next_done()) {
      Job& job = static_cast<Job&>(*next);
      const auto length = static_cast<std::int64_t>(job.outputs.size());
      void* room = job.task.writer.reserve(0, DType::kUInt8, &length, 1, job.outputs.size());
      CHECK(room != nullptr);
      std::memcpy(room, job.outputs.data(), job.outputs.size());
      CHECK_OK(port->finish(&job.task, shm::Kind::kTensors, job.times));
    }
  }

  // Serves until the lane is closed. Returns the result of run().
  Status serve() {
    Status status;
    std::thread device([&] { status = executor->run([] {}); });
    std::thread with([&] { prepare(true); });
    std::thread without([&] { prepare(false); });
    std::vector<std::thread> finishers;
    for (int i = 0; i < 2; ++i) finishers.emplace_back([&] { finish(); });
    with.join();
    without.join();
    executor->end();
    device.join();
    for (std::thread& thread : finishers) thread.join();
    return status;
  }

  void submit(std::uint64_t number, std::uint8_t first) {
    auto draft = take(lane->begin(256));
    CHECK(draft.has_value());
    shm::FrameWriter writer(lane->region()->data(), draft->feeds());
    const std::int64_t length = 64;
    void* room = writer.reserve(0, DType::kUInt8, &length, 1, 64);
    std::memset(room, first, 64);
    shm::Span table;
    CHECK(writer.finish(&table));
    CHECK_OK(lane->publish(std::move(*draft), table, writer.used(), 0, shm::Kind::kTensors, 0, monotonic_ns(),
                           {reinterpret_cast<void*>(number), nullptr}));
  }

  PlayedRuntime runtime;
  std::shared_ptr<shm::Bell> bell;
  std::unique_ptr<shm::Lane> lane;
  std::unique_ptr<shm::Port> port;
  std::shared_ptr<session::Session> session;
  std::mutex turn;
  std::unique_ptr<worker::Executor> executor;
};

}  // namespace

TEST(every_task_is_answered_once_and_right) {
  constexpr std::uint64_t kTasks = 4000;
  Stages stages;
  std::thread worker([&] { CHECK_OK(stages.serve()); });
  std::atomic<bool> over{false};
  std::thread other([&] {  // cancels tasks that are in progress, and others
    for (std::uint64_t number = 0; !over; ++number) {
      const std::uint64_t seq = number % kTasks * shm::kRingSlots + number % shm::kMostInFlight;
      stages.executor->cancel(seq);
      stages.lane->claimed(seq);
    }
  });
  std::set<std::uint64_t> open;
  shm::Lane::Reply reply;
  for (std::uint64_t number = 1; number <= kTasks || !open.empty();) {
    if (number <= kTasks && open.size() < 40) {
      stages.submit(number, static_cast<std::uint8_t>(number % 251));
      open.insert(number++);
      continue;
    }
    const std::uint32_t ticket = stages.bell->doorbell().ticket();
    if (!take(stages.lane->take(&reply))) {
      CHECK(stages.bell->doorbell().wait(ticket, monotonic_ns() + std::chrono::nanoseconds(check::kPatience).count(), 0) !=
            shm::Wake::kTimeout);
      continue;
    }
    const auto answered = reinterpret_cast<std::uint64_t>(reply.token.task);
    CHECK(open.erase(answered) == 1);
    const auto first = static_cast<std::uint8_t>(answered % 251);
    if (first == 250) {
      CHECK(reply.kind == shm::Kind::kError);
    } else {
      CHECK(reply.kind == shm::Kind::kTensors);
      CHECK(static_cast<const std::uint8_t*>(reply.tensors.at(0).data)[63] == static_cast<std::uint8_t>(first + 1));
    }
    reply.result.release();
  }
  over = true;
  other.join();
  stages.lane->close();
  worker.join();
  CHECK(stages.lane->in_flight() == 0);
}

TEST(a_lost_device_ends_the_run_and_no_thread_waits) {
  Stages stages;
  stages.submit(1, 1);
  stages.submit(2, 251);
  for (std::uint64_t number = 3; number < 20; ++number) stages.submit(number, 1);
  stages.lane->close();
  CHECK(stages.serve().code() == Code::kDeviceLost);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
