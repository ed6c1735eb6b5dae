# The tasks of contributors. `make` lists them. Each target makes the virtual environment that it needs.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc)
# Many tests wait for processes that start, end or hang, so more tests than processors run at once.
TEST_JOBS ?= $(shell expr $(JOBS) + \( $(JOBS) + 1 \) / 2)
BIN := $(VENV)/bin
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.inc')
PIP := $(BIN)/python -m pip install --quiet
COMPILE := $(BIN)/python setup.py --quiet build_ext --inplace
# A wheel with three models of PP-OCR. Only its data is used, so its limits for Python versions do not matter.
OCR_MODELS := --no-deps --ignore-requires-python 'rapidocr-onnxruntime==1.4.4'

.DEFAULT_GOAL := help
.PHONY: help demo test random openvino cluster long endurance library emulator lint stubs check bench docs wheel wheels asan tsan mutants native-test model clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The virtual environment, with the packages for the build.
$(VENV)/.python: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --group build
	touch $@

# An editable install of this folder, with its dependencies. It compiles nothing: `library` and `emulator` do.
$(VENV)/.installed: $(VENV)/.python setup.py
	AIS_BENCH_WITHOUT_LIBRARIES=1 $(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) --group test
	$(PIP) $(OCR_MODELS)
	touch $@

library: $(VENV)/.installed ## compile the changed files of the extension: seconds after an edit
	AIS_BENCH_WITHOUT_EMULATOR=1 $(COMPILE)

emulator: $(VENV)/.installed ## compile the changed files of the extension and the emulator
	$(COMPILE)

# The download of packages leaves processors idle, so the compiler runs beside it.
demo: $(VENV)/.python ## the main example: recognise lines of text on all devices, score, report (set ARGS for the number of lines)
	@set -e; AIS_BENCH_WITHOUT_EMULATOR=1 $(COMPILE) & trap "kill $$! 2>/dev/null || true" EXIT; \
	  $(MAKE) $(VENV)/.installed; $(PIP) --group demo; $(PIP) $(OCR_MODELS); wait $$!
	$(BIN)/python examples/evaluate_ocr.py $(ARGS)

bench: emulator $(VENV)/.test ## run every benchmark beside its baseline, and print ratios; use an idle machine
	$(PIP) --group bench
	$(BIN)/python benchmarks/bench_single.py
	$(BIN)/python benchmarks/bench_transport.py
	$(BIN)/python benchmarks/bench_scheduler.py
	$(BIN)/python benchmarks/bench_parent.py
	$(BIN)/python benchmarks/bench_pool.py
	$(BIN)/python benchmarks/bench_large.py
	$(BIN)/python benchmarks/bench_npu.py
	$(BIN)/python benchmarks/bench_callables.py
	$(BIN)/python benchmarks/bench_affinity.py
	$(BIN)/python benchmarks/bench_weights.py
	$(BIN)/python benchmarks/bench_standin.py

# The tests start thousands of interpreters. With PYTHONDONTWRITEBYTECODE in the environment each would compile the package again.
test: emulator $(VENV)/.test ## run the tests (set ARGS for pytest)
	$(BIN)/python -m compileall -q ais_bench aclruntime tests
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadgroup $(ARGS)

RANDOM_TESTS := $(addprefix tests/pool/test_pool_,interrupts.py life.py results.py scarcity.py signals.py)
random: emulator $(VENV)/.test ## run the pool's tests while the scheduler decides at random (set SEED, and ARGS for pytest)
	AIS_BENCH_POOL_RANDOM=$(or $(SEED),1) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(RANDOM_TESTS) $(ARGS)

# A separate environment, because onnxruntime-openvino and onnxruntime contain the same package. It uses the extension of this folder.
# The tests of one and of several devices run there with the provider as their only runtime. Those of callables and of feeds, which
# never reach a device's code, are left out for time.
SHARED_TESTS := $(addprefix tests/one_device/,test_contract_feeds.py test_contract_life.py test_contract_loading.py \
    test_contract_outputs.py test_errors_session.py test_openness.py test_state.py test_times.py) \
  $(addprefix tests/session/,test_batch_axis.py test_errors_named.py test_forked_child.py test_multi_device.py \
    test_multi_device_callers.py test_multi_device_details.py test_multi_device_errors.py test_multi_device_extremes.py)
OPENVINO_CACHE := -o cache_dir=$(VENV)-openvino/pytest # what failed last; `make test` may run beside it
openvino: emulator ## run the tests of the OpenVINO provider, on any x86 processor (set ARGS for pytest)
	test -x $(VENV)-openvino/bin/python || $(PYTHON) -m venv $(VENV)-openvino
	$(VENV)-openvino/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-openvino/bin/python -m pip install --quiet --group openvino
	$(VENV)-openvino/bin/python -m pip install --quiet $(OCR_MODELS)
	echo $(CURDIR) > $$($(VENV)-openvino/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ais_bench.pth
	$(VENV)-openvino/bin/python -m pytest $(OPENVINO_CACHE) -n $(TEST_JOBS) tests/providers/test_openvino.py $(ARGS)
	AIS_BENCH_TEST_PROVIDER=openvino $(VENV)-openvino/bin/python -m pytest $(OPENVINO_CACHE) -n $(TEST_JOBS) $(SHARED_TESTS) $(ARGS)

cluster: emulator $(VENV)/.test ## all tests of clusters, five minutes; `make test` runs those that take less than two
	AIS_BENCH_LONG=1 $(BIN)/python -m pytest tests/cluster $(ARGS)

long: emulator $(VENV)/.test ## run the tests that `make test` leaves out: further cases of tests of which it runs some, and slow programs
	AIS_BENCH_LONG=1 AIS_BENCH_EXAMPLES=4 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadgroup -m "long or random or any_runtime" $(ARGS)

endurance: emulator $(VENV)/.test ## run long evaluations: 100,000 samples while a worker is killed every second, 1,000 interruptions (an hour)
	AIS_BENCH_ENDURANCE=1 AIS_BENCH_INTERRUPTIONS=1000 $(BIN)/python -m pytest -s -o faulthandler_timeout=0 tests/evaluate/test_evaluate_endurance.py $(ARGS)

native-test: ## run the native tests: plain, under ThreadSanitizer, and under AddressSanitizer with UndefinedBehaviorSanitizer
	$(MAKE) --directory tests/native --jobs $(JOBS) all

model: ## check every order of steps of the claim protocol with a model checker (needs Debian's package spin)
	tests/model/check.sh tests/model/claim.pml build/model

# The extension under AddressSanitizer and UndefinedBehaviorSanitizer, in a separate environment. Leaks are not reported, because
# the interpreter keeps memory on purpose; tests/one_device/test_memory_flat.py checks ours. Some tests are left out because they
# contradict a sanitizer: memory that stays flat or is limited, memory that does not exist, crashes on purpose, and the fork of a
# process whose threads allocate, which gcc 12's sanitizer does not always survive. The tests run in an empty folder; in this
# folder their scripts would import the package without sanitizers. Tests with Ray are left out because Ray starts other programs,
# which have no sanitizer.
ASAN_LEAVES_OUT := little_address_space or no_memory_can_hold or memory_flat or memory_stays_flat or keeps_memory_constant \
  or host_code_cannot_touch or kills_two_workers_is_named or last_lines_of_a_worker or forked_child_that_only_runs or test_ray
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1
asan: ## run the test suite on an extension with sanitizers (set ARGS for pytest)
	test -x $(VENV)-asan/bin/python || $(PYTHON) -m venv $(VENV)-asan
	$(VENV)-asan/bin/python -m pip install --quiet --upgrade pip
	mkdir -p build/asan/run
	$(VENV)-asan/bin/python -m pip install --quiet --group build --group test
	AIS_BENCH_BUILD_DIR=build/asan AIS_BENCH_CFLAGS="$(SANITIZE)" AIS_BENCH_LDFLAGS="$(SANITIZE)" $(VENV)-asan/bin/python -m pip install --quiet --no-cache-dir --no-build-isolation .
	cd build/asan/run && \
	  LD_PRELOAD="$(foreach library,asan ubsan stdc++,$(shell g++ -print-file-name=lib$(library).so))" PYTHONMALLOC=malloc \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(abspath $(VENV)-asan/bin/pytest) -c $(CURDIR)/pyproject.toml --rootdir $(CURDIR) $(CURDIR)/tests \
	  -n $(JOBS) -k "not ($(ASAN_LEAVES_OUT))" $(ARGS)

# The driver of AscendCL, sessions and the emulator under ThreadSanitizer, as a native program, because a Python interpreter that is
# not compiled for it would hide how threads wait for each other. Accesses of ONNX Runtime are ignored for the same reason
# (tests/native/tsan.supp). `native-test` covers the pool's use of shared memory.
TSAN := -fsanitize=thread -fno-omit-frame-pointer -g
tsan: emulator $(VENV)/.test ## run sessions on the emulator from many threads, under ThreadSanitizer (set ARGS for the names of tests)
	cmake -G Ninja -S . -B build/tsan -DCMAKE_CXX_FLAGS="$(TSAN)" -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -Dpybind11_DIR=$(shell $(BIN)/python -c 'import pybind11; print(pybind11.get_cmake_dir())' 2>/dev/null) > build/tsan.log
	cmake --build build/tsan --target acl_test ascendcl_emulator
	$(BIN)/python tests/native/acl_models.py build/tsan/models
	ACL_TEST_LIBRARY=$(abspath build/tsan/libascendcl_emulator.so) ACL_TEST_MODELS=$(abspath build/tsan/models) \
	  AIS_BENCH_ORT_LIBRARY=$$($(BIN)/python -c 'from ais_bench.emulator.machine import find_onnxruntime; print(find_onnxruntime())') \
	  TSAN_OPTIONS="suppressions=tests/native/tsan.supp halt_on_error=1 second_deadlock_stack=1" build/tsan/acl_test $(ARGS)

mutants: emulator $(VENV)/.test ## remove the driver's code for each of CANN's rules, and check that its tests fail (set ARGS for names; slow)
	AIS_BENCH_CFLAGS=-O0 $(BIN)/python tests/support/driver_mutants.py $(ARGS)

lint: $(VENV)/.python ## check formatting, lint and types; needs no compiled extension
	$(PIP) --group lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tools examples benchmarks
	@echo clang-format --dry-run --Werror csrc
	@$(BIN)/clang-format --dry-run --Werror $(filter %.cpp %.hpp,$(SOURCES))

stubs: library ## compare the type stubs with the extension
	$(PIP) --group lint
	$(BIN)/python -m mypy.stubtest ais_bench._native --mypy-config-file pyproject.toml --allowlist tests/project/stubtest_allowlist.txt --ignore-unused-allowlist

docs: $(VENV)/.python ## build the documentation as a site into build/site
	$(PIP) --group docs
	$(BIN)/python -m mkdocs build --quiet --strict

wheels: $(VENV)/.python ## build manylinux_2_28 wheels for every interpreter of this machine into dist/, check and test them (set ARGS)
	$(PIP) --group wheels
	$(BIN)/python tools/build_wheels.py $(ARGS)

wheel: ## build a wheel for this machine into dist/
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean: ## remove all build results
	rm -rf build dist *.egg-info $(VENV) $(VENV)-asan $(VENV)-openvino ais_bench/*.so ais_bench/emulator/*.so
