// The extension module: ais_bench._native.
#include "bind/bind.hpp"

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native parts of ais_bench. Private: import from ais_bench.session.";
  ais::bind::register_arrays(module);
  ais::bind::register_errors(module);
  ais::bind::register_process(module);
  ais::bind::register_runtimes(module);
  ais::bind::register_tensor(module);
  ais::bind::register_time_span(module);
  ais::bind::register_session(module);
  ais::bind::register_simulator(module);
  ais::bind::register_scheduler(module);
  ais::bind::register_shm_bell(module);
  ais::bind::register_shm_lane(module);
  ais::bind::register_shm_channel(module);
  ais::bind::register_pool(module);
}
