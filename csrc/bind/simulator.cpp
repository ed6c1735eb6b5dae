// The simulator of csrc/pool for Python: tests and benchmarks/bench_scheduler.py.
#include "pool/simulator.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bind/bind.hpp"

namespace ais::bind {
namespace {

using pool::SimulatedDevice;
using pool::SimulatedSource;

pool::Simulated simulate(const std::vector<SimulatedDevice>& devices, const std::vector<SimulatedSource>& sources,
                         int in_flight, int fewest, int max_attempts, std::uint64_t random, std::uint64_t seed, bool check,
                         int skip_cpu, double hedge) {
  pool::Simulation simulation;
  simulation.options = {in_flight, fewest, max_attempts, hedge, random};
  simulation.devices = devices;
  simulation.sources = sources;
  simulation.seed = seed;
  simulation.check = check;
  simulation.skip = skip_cpu;
  for (const SimulatedSource& source : sources) {
    if (!source.arrivals.empty() && source.arrivals.size() != source.lengths.size()) {
      raise_if_error(Status(Code::kInvalidArgument, "arrivals must have one entry for each of the " +
                                                        std::to_string(source.lengths.size()) + " lengths, got " +
                                                        std::to_string(source.arrivals.size())));
    }
  }
  if (devices.empty()) raise_if_error(Status(Code::kInvalidArgument, "at least one device must be simulated"));
  pool::Simulated result = pool::simulate(simulation);
  if (!result.wrong.empty()) throw std::logic_error(result.wrong);
  return result;
}

}  // namespace

void register_simulator(py::module_& module) {
  py::class_<SimulatedDevice>(module, "SimulatedDevice")
      .def(py::init([](std::int64_t task_ns, double spread, int depth, std::int64_t dies_at_ns, std::int64_t restart_ns,
                       int only_cpu) {
             return SimulatedDevice{task_ns, spread, depth, dies_at_ns < 0 ? pool::kNever : dies_at_ns, restart_ns, only_cpu};
           }),
           py::arg("task_ns") = 10'000'000, py::kw_only(), py::arg("spread") = 0.0, py::arg("depth") = 1,
           py::arg("dies_at_ns") = -1, py::arg("restart_ns") = 50'000'000, py::arg("only_cpu") = -1);
  py::class_<SimulatedSource>(module, "SimulatedSource")
      .def(py::init([](std::vector<double> lengths, std::vector<std::int64_t> arrivals_ns, bool known_end, std::size_t window) {
             return SimulatedSource{std::move(lengths), std::move(arrivals_ns), known_end, window == 0 ? SIZE_MAX : window};
           }),
           py::arg("lengths"), py::kw_only(), py::arg("arrivals_ns") = std::vector<std::int64_t>(),
           py::arg("known_end") = false, py::arg("window") = 0);
  py::class_<pool::Simulated>(module, "Simulated")
      .def_readonly("wall_ns", &pool::Simulated::wall_ns)
      .def_readonly("busy_ns", &pool::Simulated::busy_ns)
      .def_readonly("tasks", &pool::Simulated::tasks)
      .def_readonly("done_ns", &pool::Simulated::done_ns)
      .def_readonly("taken_back", &pool::Simulated::taken_back)
      .def_readonly("crashes", &pool::Simulated::crashes)
      .def_readonly("failed", &pool::Simulated::failed)
      .def_readonly("hedged", &pool::Simulated::hedged)
      .def_readonly("most_ahead", &pool::Simulated::most_ahead)
      .def_readonly("most_in_hand", &pool::Simulated::most_in_hand)
      .def_readonly("idle_beside_waiting", &pool::Simulated::idle_beside_waiting)
      .def_readonly("nanoseconds_a_task", &pool::Simulated::nanoseconds_a_task);
  module.def("simulate", &simulate, py::arg("devices"), py::arg("sources"), py::kw_only(), py::arg("in_flight") = 0,
             py::arg("fewest") = 2, py::arg("max_attempts") = 2, py::arg("random") = 0, py::arg("seed") = 1,
             py::arg("check") = true, py::arg("skip_cpu") = -1, py::arg("hedge") = 0.0);
}

}  // namespace ais::bind
