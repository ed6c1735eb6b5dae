// Sessions on the emulator from many threads: the driver of AscendCL, the session above it and the emulator under
// ThreadSanitizer (`make tsan`). ACL_TEST_LIBRARY is the emulator's library, ACL_TEST_MODELS the folder that acl_models.py
// made.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "session/pipeline.hpp"
#include "session/session.hpp"
#include "session/tensor.hpp"

using namespace ais;
using session::Session;

namespace {

constexpr int kThreads = 4;
constexpr int kRuns = 25;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) check::fail(__FILE__, __LINE__, std::string(name) + " is not set");
  return value;
}

device::Runtime* runtime() {
  auto opened = device::open_runtime("acl", {variable("ACL_TEST_LIBRARY")});
  CHECK_OK(opened.status());
  return opened.take();
}

std::shared_ptr<Session> open(const std::string& model, int device_id = 0, const device::Options& options = {}) {
  session::SessionConfig config;
  config.source.path = variable("ACL_TEST_MODELS") + "/" + model;
  config.device_id = device_id;
  config.options = options;
  auto opened = Session::open(runtime(), config);
  CHECK_OK(opened.status());
  return opened.take();
}

// Receives outputs on the host.
class Sink final : public session::OutputSink {
 public:
  void* reserve(std::size_t index, const device::TensorDesc&, const Shape&, std::size_t bytes) override {
    if (index >= outputs.size()) outputs.resize(index + 1);
    outputs[index].assign(bytes / sizeof(float), -1.0F);
    return outputs[index].data();
  }
  std::vector<std::vector<float>> outputs;
};

// A run with one input of `rows` times 3 with the value `value`; the models multiply it by 0, 1, 2, ...
struct Run {
  explicit Run(float value, std::int64_t rows = 2) : data(static_cast<std::size_t>(rows) * 3, value) {
    feed.view = {data.data(), data.size() * sizeof(float), DType::kFloat32, {rows, 3}};
  }
  // Returns whether the sink has the model's result: x @ w, with w = 0, 1, 2, ... in rows of `width`.
  bool is(const Sink& sink) const {
    const std::size_t rows = data.size() / 3;
    if (sink.outputs.size() != 1 || sink.outputs[0].size() % rows != 0) return false;
    const std::size_t width = sink.outputs[0].size() / rows;
    for (std::size_t i = 0; i < sink.outputs[0].size(); ++i) {
      if (sink.outputs[0][i] != data[0] * static_cast<float>(3 * (i % width) + 3 * width)) return false;
    }
    return true;
  }
  std::vector<float> data;
  session::Feed feed;
};

Status infer(Session* session, const Run& run, Sink* sink, session::Mode mode = session::Mode::kStatic) {
  return session->run({run.feed}, {mode, false}, sink);
}

template <typename Body>
void in_threads(Body body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

void pipeline(const std::shared_ptr<Session>& session, int runs) {
  auto opened = session::SessionPipeline::open(session);
  CHECK_OK(opened.status());
  auto lanes = opened.take();
  std::vector<Run> given;
  for (int i = 0; i < runs; ++i) given.emplace_back(static_cast<float>(i));
  std::vector<Sink> sinks(given.size());
  std::size_t finished = 0;
  const auto finish = [&] {
    CHECK_OK(lanes->finish(nullptr));
    CHECK(given[finished].is(sinks[finished]));
    ++finished;
  };
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (lanes->under_way() == lanes->depth()) finish();
    CHECK_OK(lanes->submit({given[i].feed}, {session::Mode::kStatic, false}, &sinks[i]));
  }
  while (finished < given.size()) finish();
}

}  // namespace

TEST(threads_share_a_session) {
  const auto session = open("static.om");
  in_threads([&](int thread) {
    for (int i = 0; i < kRuns; ++i) {
      const Run run(static_cast<float>(thread + i));
      Sink sink;
      CHECK_OK(infer(session.get(), run, &sink));
      CHECK(run.is(sink));
    }
  });
}

TEST(gears_change_between_threads) {
  const auto session = open("batch.om");
  in_threads([&](int thread) {
    for (int i = 0; i < kRuns; ++i) {
      const Run run(1, std::int64_t{1} << ((thread + i) % 3));
      Sink sink;
      CHECK_OK(infer(session.get(), run, &sink, session::Mode::kBatch));
      CHECK(run.is(sink));
    }
  });
}

TEST(outputs_of_unknown_size) {
  const auto session = open("shape.om");
  in_threads([&](int thread) {
    for (int i = 0; i < kRuns; ++i) {
      const Run run(1, 1 + (thread * 7 + i) % 40);
      Sink sink;
      CHECK_OK(infer(session.get(), run, &sink, session::Mode::kShape));
      CHECK(run.is(sink));
    }
  });
}

TEST(pipelines_beside_runs) {
  const auto session = open("static.om");
  in_threads([&](int thread) {
    for (int i = 0; i < 5; ++i) {
      if (thread % 2 == 0) {
        pipeline(session, kRuns);
      } else {
        const Run run(3);
        Sink sink;
        CHECK_OK(infer(session.get(), run, &sink));
        CHECK(run.is(sink));
      }
    }
  });
}

TEST(sessions_come_and_go_and_share_weights) {
  in_threads([&](int thread) {
    for (int i = 0; i < 5; ++i) {
      const auto session = open("external.om", thread % 2);
      const Run run(1);
      Sink sink;
      CHECK_OK(infer(session.get(), run, &sink));
      CHECK(run.is(sink));
      if (i % 2 == 0) session->close();
    }
  });
}

TEST(sessions_share_a_workspace) {
  in_threads([&](int thread) {
    for (int i = 0; i < 3; ++i) {
      const auto session = open(thread % 2 == 0 ? "static.om" : "external.om", 0, {{"share_workspace", "1"}});
      for (int runs = 0; runs < 5; ++runs) {
        const Run run(static_cast<float>(thread + runs));
        Sink sink;
        CHECK_OK(infer(session.get(), run, &sink));
        CHECK(run.is(sink));
      }
      pipeline(session, 5);
      if (i % 2 == 0) session->close();
    }
  });
}

TEST(a_session_is_freed_while_others_run) {
  const auto session = open("static.om");
  std::atomic<int> running{0};
  std::thread closer([&] {
    while (running.load() < kThreads) std::this_thread::yield();
    session->close();
  });
  in_threads([&](int) {
    while (true) {
      const Run run(1);
      Sink sink;
      const Status status = infer(session.get(), run, &sink);
      if (status.code() == Code::kClosed) return;
      CHECK_OK(status);
      CHECK(run.is(sink));
      ++running;
    }
  });
  closer.join();
}

TEST(runs_are_cancelled) {
  const auto session = open("static.om");
  std::atomic<bool> done{false};
  std::thread canceller([&] {
    while (!done.load()) {
      CHECK(session->cancel().ok());
      std::this_thread::yield();
    }
  });
  in_threads([&](int) {
    for (int i = 0; i < kRuns; ++i) {
      const Run run(1);
      Sink sink;
      const Status status = infer(session.get(), run, &sink);
      CHECK(status.ok() ? run.is(sink) : status.code() == Code::kCancelled);
    }
  });
  done = true;
  canceller.join();
  const Run run(1);
  Sink sink;
  CHECK_OK(infer(session.get(), run, &sink));
}

TEST(tensors_move_from_many_threads) {
  auto opened = runtime()->open(1, {});
  CHECK_OK(opened.status());
  const std::shared_ptr<device::Device> device = opened.take();
  in_threads([&](int thread) {
    for (int i = 0; i < kRuns; ++i) {
      auto made = session::Tensor::on_host(DType::kFloat32, {64});
      CHECK_OK(made.status());
      session::Tensor tensor = made.take();
      auto* values = static_cast<float*>(tensor.data());
      for (int v = 0; v < 64; ++v) values[v] = static_cast<float>(thread * v);
      CHECK_OK(tensor.to_device(device));
      CHECK_OK(tensor.to_host());
      for (int v = 0; v < 64; ++v) CHECK(static_cast<float*>(tensor.data())[v] == static_cast<float>(thread * v));
    }
  });
}

TEST(finalize_ends_what_runs) {
  std::vector<std::shared_ptr<Session>> sessions;
  for (int i = 0; i < kThreads; ++i) sessions.push_back(open(i % 2 == 0 ? "static.om" : "external.om", i % 2));
  std::atomic<int> running{0};
  std::thread ender([&] {
    while (running.load() < kThreads) std::this_thread::yield();
    Session::close_all();
    CHECK_OK(runtime()->finalize());
  });
  in_threads([&](int thread) {
    for (bool first = true;; first = false) {
      const Run run(1);
      Sink sink;
      const Status status = infer(sessions[static_cast<std::size_t>(thread)].get(), run, &sink);
      if (status.code() == Code::kClosed) break;
      CHECK_OK(status);
      CHECK(run.is(sink));
      if (first) ++running;
    }
  });
  ender.join();
  const auto again = open("static.om");  // after everything was released
  const Run run(2);
  Sink sink;
  CHECK_OK(infer(again.get(), run, &sink));
  again->close();
  CHECK_OK(runtime()->finalize());
}

// Without the exit handlers of ONNX Runtime, which is not compiled for the sanitizer.
int main(int argc, char** argv) {
  const int result = check::run(argc, argv);
  std::fflush(nullptr);
  std::_Exit(result);
}
