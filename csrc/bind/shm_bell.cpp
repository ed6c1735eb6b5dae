// Doorbell and Stats for Python.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "base/process.hpp"
#include "bind/bind.hpp"
#include "bind/shm.hpp"
#include "shm/bell.hpp"
#include "shm/stats.hpp"

namespace ais::bind {
namespace {

bool wait(const shm::Bell& bell, std::uint32_t ticket, const std::optional<double>& timeout, double spin_us) {
  const std::int64_t deadline_ns = deadline_after(timeout);
  shm::Wake wake;
  {
    const NoGil release;
    wake = bell.doorbell().wait(ticket, deadline_ns, static_cast<std::int64_t>(spin_us * 1000));
  }
  if (wake == shm::Wake::kInterrupted && PyErr_CheckSignals() != 0) throw py::error_already_set();
  return wake != shm::Wake::kTimeout;
}

py::dict stats_dict(const shm::Stats& stats) {
  const shm::Stats::Snapshot snapshot = stats.snapshot();
  py::dict result;
  for (std::size_t i = 0; i < snapshot.stages.size(); ++i) {
    const shm::Histogram& stage = snapshot.stages[i];
    py::dict row;
    row["count"] = stage.count();
    row["mean"] = stage.mean() * 1e-6;
    row["p50"] = stage.quantile(0.50) * 1e-6;
    row["p90"] = stage.quantile(0.90) * 1e-6;
    row["p99"] = stage.quantile(0.99) * 1e-6;
    row["max"] = static_cast<double>(stage.max()) * 1e-6;
    result[shm::kStageNames[i]] = row;
  }
  return result;
}

void register_bell(py::module_& module) {
  py::class_<shm::Bell, std::shared_ptr<shm::Bell>>(module, "Doorbell")
      .def(py::init([] { return value_or_raise(shm::Bell::create()); }))
      .def_property_readonly("fd", &shm::Bell::fd)
      .def("ticket", [](const shm::Bell& bell) { return bell.doorbell().ticket(); })
      .def("wait", &wait, py::arg("ticket"), py::arg("timeout") = py::none(), py::arg("spin_us") = 0.0)
      .def("ring", [](const shm::Bell& bell) { bell.doorbell().ring(); });
}

void register_stats(py::module_& module) {
  using shm::Stats;
  py::class_<Stats, std::shared_ptr<Stats>>(module, "Stats")
      .def(py::init())
      .def_property_readonly("tasks", [](const Stats& stats) { return stats.snapshot().tasks; })
      .def_property_readonly("failures", [](const Stats& stats) { return stats.snapshot().failures; })
      .def_property_readonly("busy_ns", [](const Stats& stats) { return stats.snapshot().busy_ns; })
      .def("occupied",
           [](const Stats& stats) {
             const Stats::Snapshot all = stats.snapshot();
             const shm::Occupied& one = all.occupied;
             return py::make_tuple(all.before_ns, one.queued, one.copy_in, one.callables, one.execute, one.copy_out);
           })
      .def(
          "add", [](Stats& stats, const Stats& other) { stats.add(other.snapshot()); }, py::arg("other"))
      .def("reset", &Stats::reset)
      .def("to_dict", &stats_dict);
}

}  // namespace

std::int64_t deadline_after(const std::optional<double>& timeout_s) {
  constexpr double kForever = 1e9;  // thirty years; more would not fit in nanoseconds
  if (!timeout_s || *timeout_s > kForever || std::isnan(*timeout_s)) return shm::kNoDeadline;
  return monotonic_ns() + static_cast<std::int64_t>(std::max(*timeout_s, 0.0) * 1e9);
}

void register_shm_bell(py::module_& module) {
  register_bell(module);
  register_stats(module);
}

}  // namespace ais::bind
