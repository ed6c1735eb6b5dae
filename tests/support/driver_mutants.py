"""Prove that the tests of CANN's rules can fail: remove the driver's code for a rule, and require that its tests fail.

    python tests/support/driver_mutants.py [--folder build/mutants] [NAME ...]

All mutants are compiled once, in a copy of this folder. The environment variable AIS_BENCH_MUTANT switches one on. With a
mutant, all of its `tests` must fail; without mutants they must pass (`make mutants`). The rules are those of docs/emulator.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ACL = "csrc/device/acl/"
COPIED = ("CMakeLists.txt", "setup.py", "pyproject.toml", "README.md", "csrc", "ais_bench", "aclruntime", "tests", "docs")
VARIABLE = "AIS_BENCH_MUTANT"
#: The first lines of each C++ file that a mutant changes.
SWITCH = f"""#ifndef AIS_MUTANT
#define AIS_MUTANT
#include <cstdlib>
#include <cstring>
inline bool ais_mutant(const char* name) {{
  const char* wanted = std::getenv("{VARIABLE}");
  return wanted != nullptr && std::strcmp(wanted, name) == 0;
}}
#endif
"""


@dataclass(frozen=True)
class Mutant:
    """Code for a rule: its place, its replacement, and the tests that must fail."""

    rule: str
    edits: list[tuple[str, str, str]]  # file, text, replacement; in the replacement ON says whether the mutant is on
    tests: list[str]  # of pytest, in tests/acl; "file.py::test" means all of its parameters
    only: str = ""  # -k of pytest, if not all parameters must fail


def staged_runs(text: str, replacement: str) -> list[tuple[str, str, str]]:
    return [(f"{ACL}acl_staged_runs.cpp", text, replacement)]


def context(text: str, replacement: str) -> list[tuple[str, str, str]]:
    return [(f"{ACL}acl_context.cpp", text, replacement)]


def runtime(text: str, replacement: str) -> list[tuple[str, str, str]]:
    return [(f"{ACL}acl_runtime.cpp", text, replacement)]


def numbers(first: int, last: int) -> list[tuple[str, str, str]]:
    """Return the edits after which the driver does not know these numbers of AscendCL."""
    code = "  const Code code = code_of(number, fallback);\n"
    forget = code.replace("code_of", f"ON && number >= {first} && number <= {last} ? fallback : code_of")
    return [(f"{ACL}acl_api.cpp", code, forget)]


LOST = (507042, 507043, 507044, 507045, 507048, 507049, 507050, 507057, 507900, 507901, 507902)
NONE_LEFT = (207007, 207008, 207009, 207010, 207011, 207012)
CREATED = "ACL_CALL(api_, aclrtCreateEvent, event)"
FLAGGED = "ACL_CALL(api_, aclrtCreateEventWithFlag, event, kEventTimeLine)"
STREAM_WAIT = "ACL_REQUIRED(aclError, aclrtSynchronizeStreamWithTimeout, (aclrtStream stream, std::int32_t ms))\n"
EVENT_WAIT = "ACL_REQUIRED(aclError, aclrtSynchronizeEventWithTimeout, (aclrtEvent event, std::int32_t ms))\n"
SYMBOLS, WAIT = f"{ACL}acl_symbols.inc", "ACL_REQUIRED(aclError, aclrtSynchronizeStream,"

MUTANTS = {
    "events without the flag": Mutant(
        "E",
        staged_runs(f"AIS_TRY({CREATED});", f"AIS_TRY(ON ? {FLAGGED} : {CREATED});"),
        ["test_acl_rules.py::test_every_run_of_a_pipeline_has_its_times", "test_acl_calls.py::test_a_pipeline_of_each_kind",
         "test_acl_calls.py::test_a_worker_of_a_pool_does_as_a_pipeline"],
    ),
    "events recorded again without a reset": Mutant(
        "R",
        staged_runs(f": {CREATED});", f": ON ? {FLAGGED.replace('kEventTimeLine', 'kEventTimeLine | 1U')} : {CREATED});"),
        ["test_acl_rules.py::test_every_run_of_a_pipeline_has_its_times", "test_acl_calls.py::test_a_pipeline_of_each_kind"],
    ),
    "times asked for before the host dealt with the events": Mutant(
        "T",
        staged_runs("  AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, from));\n",
              "  if (!ON) AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, from));\n"),
        ["test_acl_rules.py::test_every_run_of_a_pipeline_has_its_times",
         "test_acl_calls.py::test_times_are_those_of_one_stream"],
    ),
    "a time of two streams": Mutant(
        "T",
        staged_runs("take(staged_run.leaving, staged_run.copied_out,",
                    "take(ON ? staged_run.executed : staged_run.leaving, staged_run.copied_out,"),
        ["test_acl_calls.py::test_times_are_those_of_one_stream"],
    ),
    "a time that cannot be had fails the run": Mutant(
        "T",
        staged_runs("  *times = times_of(oldest);\n",
              "  *times = times_of(oldest);\n"
              "  if (ON && !times->why_unknown.empty()) return Status(Code::kExecution, times->why_unknown);\n"),
        ["test_acl_rules.py::test_a_time_that_cannot_be_had_costs_no_result", "test_acl_rules.py::test_unknown_times_of_a_pool",
         "test_acl_rules.py::test_a_report_without_any_time_says_unknown"],
    ),
    "six events a run that streams can wait for": Mutant(
        "Q",
        staged_runs(f"AIS_TRY({FLAGGED});", f"AIS_TRY(ON ? {CREATED} : {FLAGGED});"),
        ["test_acl_rules.py::test_sixteen_sessions_have_events_enough"],
    ),
    "a run waited for in slices": Mutant(
        "W",
        [(SYMBOLS, WAIT, STREAM_WAIT + WAIT),
         (f"{ACL}acl_run.cpp",
          "    int state = 0;\n    AIS_TRY(ACL_CALL(api_, aclrtStreamQuery, stream_, &state));\n",
          "    int state = 0;\n    if (ON) return api_.aclrtSynchronizeStreamWithTimeout(stream_, 100) != 507046;\n"
          "    AIS_TRY(ACL_CALL(api_, aclrtStreamQuery, stream_, &state));\n")],
        ["test_acl_rules.py::test_long_runs_time_out_nowhere"],
    ),
    "an event waited for in slices": Mutant(
        "W",
        [(SYMBOLS, WAIT, EVENT_WAIT + WAIT),
         (f"{ACL}acl_staged_runs.cpp",
          "    AIS_TRY(ACL_CALL(api_, aclrtQueryEventStatus, event, &reached));\n",
          "    if (ON) return api_.aclrtSynchronizeEventWithTimeout(event, 100) != 507047;\n"
          "    AIS_TRY(ACL_CALL(api_, aclrtQueryEventStatus, event, &reached));\n")],
        ["test_acl_rules.py::test_long_runs_time_out_nowhere"],
    ),
    "signals looked for every five seconds": Mutant(
        "W",
        [(f"{ACL}acl_pace.hpp", "woken || monotonic_ns() - looked >= tuning::kAclSignalLookNs",
          "(woken && !ON) || monotonic_ns() - looked >= (ON ? 5'000'000'000 : tuning::kAclSignalLookNs)")],
        ["test_acl_stop.py::test_ctrl_c_is_heard_within_half_a_second"],
        "infer",
    ),
    "a product that is believed to stop streams": Mutant(
        "S",
        context("product_of(soc_).aborts_streams)", "(ON || product_of(soc_).aborts_streams))"),
        ["test_acl_rules.py::test_a_product_that_cannot_stop_says_what_it_does"],
        "True",  # only in a pipeline; a single run would wait for a missing call
    ),
    "a stop that is asked for each time": Mutant(
        "S",
        context("== Code::kUnsupported) can_abort_", "== Code::kUnsupported && !ON) can_abort_"),
        ["test_acl_rules.py::test_a_stop_that_is_refused_is_asked_for_once"],
    ),
    "registering whatever the kernel": Mutant(
        "K",
        context("HostRegister::kAuto && !kernel_pins()", "HostRegister::kAuto && !ON && !kernel_pins()"),
        ["test_acl_rules.py::test_an_old_kernel"],
        "auto",
    ),
    "registering whatever the product": Mutant(
        "K",
        context("HostRegister::kAuto && !product_of", "HostRegister::kAuto && !ON && !product_of"),
        ["test_acl_rules.py::test_a_product_that_cannot_register"],
    ),
    "registering though it is off": Mutant(
        "K",
        context("if (host_register_ == HostRegister::kOff)", "if (host_register_ == HostRegister::kOff && !ON)"),
        ["test_acl_rules.py::test_registering_can_be_switched_off"],
    ),
    "one who wants it is not heard": Mutant(
        "K",
        context("if (host_register_ == HostRegister::kOff &&", "if ((host_register_ == HostRegister::kOn && ON)) {\n    why = "
                '"nobody is asked";\n  } else if (host_register_ == HostRegister::kOff &&'),
        ["test_acl_rules.py::test_an_old_kernel"],
        "on",
    ),
    "a report that goes on saying registered": Mutant(
        "K",
        [("csrc/worker/slot_registry.cpp", "if (!std::exchange(refused_, true) && tell_) tell_();",
          "if (!std::exchange(refused_, true) && tell_ && !ON) tell_();")],
        ["test_acl_slots.py::test_the_report_says_when_registering_ends"],
    ),
    "finalize for everybody": Mutant(
        "F",
        runtime("if (api_->aclFinalizeReference != nullptr) {", "if (api_->aclFinalizeReference != nullptr && !ON) {"),
        ["test_acl_neighbours.py::test_their_memory_outlives_our_sessions"],
        "we",
    ),
    "finalize of another's": Mutant(
        "F",
        runtime("} else if (state->owner) {", "} else if (state->owner || ON) {"),
        ["test_acl_neighbours.py::test_a_library_that_does_not_count_is_left_to_who_was_first",
         "test_acl_symbols.py::test_an_initialisation_of_another_library_is_left_alone"],
        "first or without",
    ),
    "a second life with no configuration": Mutant(
        "J",
        runtime("json.empty() && state->first.has_value() ?", "json.empty() && state->first.has_value() && !ON ?"),
        ["test_acl_config.py::test_a_process_has_one_configuration"],
    ),
    "advice that does not work": Mutant(
        "J",
        runtime("Status(Code::kInvalidArgument,\n                std::string(kJsonOption)",
                "Status(Code::kInvalidArgument,\n                "
                'ON ? std::string("call finalize() before") : std::string(kJsonOption)'),
        ["test_acl_config.py::test_a_process_has_one_configuration"],
    ),
    "a file that would be ignored": Mutant(
        "J2",
        runtime(" status = check_file(*state, json);\n", " status = ON ? Status() : check_file(*state, json);\n")
        + runtime(") return check_file(*state, json);\n", ") return ON ? Status() : check_file(*state, json);\n"),
        ["test_acl_config.py::test_a_file_after_another_library"],
    ),
    "a reference that is kept": Mutant(
        "J2",
        runtime("    static_cast<void>(give_back(state));\n", "    if (!ON) static_cast<void>(give_back(state));\n"),
        ["test_acl_config.py::test_a_file_after_another_library"],
    ),
    "the thread's context is not put back": Mutant(
        "C",
        context("put_back_ = before_ != nullptr &&", "put_back_ = !ON && before_ != nullptr &&"),
        ["test_acl_neighbours.py::test_a_thread_keeps_the_context_that_another_library_chose"],
    ),
    "parameter inputs by their one name": Mutant(
        "A",
        [(f"{ACL}acl_describe.cpp", "} else if (roles[i].type == kAippParameters) {",
          "} else if (roles[i].type == kAippParameters && (!ON || desc.name == kAippInput)) {")],
        ["test_acl_aipp.py::test_three_pictures", "test_acl_aipp.py::test_each_picture_has_settings_of_its_own"],
    ),
    "a byte order mark is text": Mutant(
        "A",
        [("ais_bench/one_device/aipp.py", 'encoding="utf-8-sig"', 'encoding="utf-8" if ON else "utf-8-sig"')],
        ["test_acl_aipp.py::test_files_may_begin_with_a_byte_order_mark"],
    ),
    "numbers that end a context": Mutant(
        "X",
        numbers(507042, 507902),
        ["test_acl_rules.py::test_numbers_that_end_a_context"],
        " or ".join(map(str, LOST)),
    ),
    "numbers that mean none left": Mutant(
        "X",
        [(f"{ACL}acl_api.cpp", "fallback : code_of(number, fallback);",
          f"fallback : ON && number >= {NONE_LEFT[0]} && number <= {NONE_LEFT[-1]} ? fallback : code_of(number, fallback);")],
        ["test_acl_rules.py::test_numbers_that_mean_none_left"],
        " or ".join(map(str, NONE_LEFT)),
    ),
    "the number of an abort": Mutant(
        "X",
        [(f"{ACL}acl_api.cpp", "fallback : code_of(number, fallback);",
          "fallback : ON && number == 107023 ? fallback : code_of(number, fallback);")],
        ["test_acl_rules.py::test_numbers_of_an_abort"],
        "107023",
    ),
    "weights loaded for each session": Mutant(
        "external weights",
        [(f"{ACL}acl_share.cpp", "living = known.lock()) return", "living = known.lock(); living && !ON) return")],
        ["test_acl_weights.py::test_two_sessions_load_them_once"],
    ),
    "a work space without turns": Mutant(
        "shared work space",
        [(f"{ACL}acl_run.cpp", "(workspace_ == nullptr) return turn;", "(workspace_ == nullptr || ON) return turn;")],
        ["test_acl_workspace.py::test_runs_at_the_same_time_take_turns"],
    ),
    "a bundle is tried": Mutant(
        "bundles",
        [(f"{ACL}acl_load.cpp", "  if (is_bundle(model)) {", "  if (!ON && is_bundle(model)) {")],
        ["test_acl_weights.py::test_a_bundle_is_refused_by_name"],
    ),
    "memory that messages do not tell of": Mutant(
        "memory",
        context("!= Code::kOutOfMemory) return status;\n", "!= Code::kOutOfMemory || ON) return status;\n"),
        ["test_acl_weights.py::test_what_is_left_of_the_memory"],
    ),
    "no version of CANN": Mutant(
        "version",
        runtime("  aclCANNPackageVersion version = {};\n", '  if (ON) return "";\n  aclCANNPackageVersion version = {};\n'),
        ["test_acl_weights.py::test_the_report_and_the_list_of_devices_tell_of_the_memory"],
    ),
}  # fmt: skip


def copy(folder: Path) -> None:
    """Copy the needed files that have changed since the last time, so that only these are compiled again."""
    changed = mutated()
    for name in COPIED:
        source = ROOT / name
        for path in [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file()):
            if "__pycache__" in path.parts or path.suffix == ".so":
                continue
            place, file = folder / path.relative_to(ROOT), str(path.relative_to(ROOT))
            content = changed[file].encode() if file in changed else path.read_bytes()
            if not place.exists() or place.read_bytes() != content:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                shutil.copymode(path, place)


def mutated() -> dict[str, str]:
    """Return the changed files with all mutants. Raises LookupError if a mutant's text is not in its file."""
    files: dict[str, str] = {}
    for name, mutant in MUTANTS.items():
        for file, text, replacement in mutant.edits:
            content = files.get(file) or (ROOT / file).read_text(encoding="utf-8")
            if text not in content:
                raise LookupError(f"mutant {name!r}: {file} must contain {text!r}, and does not; adapt the mutant to the code")
            python = file.endswith(".py")
            on = f'(__import__("os").environ.get("{VARIABLE}") == "{name}")' if python else f'ais_mutant("{name}")'
            files[file] = content.replace(text, re.sub(r"\bON\b", lambda _, on=on: on, replacement))
    for file, content in files.items():
        if file.endswith((".cpp", ".hpp")):
            files[file] = SWITCH + content
    return files


def build(folder: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"it does not compile:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


def run_tests(folder: Path, mutant: Mutant, name: str) -> dict[str, int]:
    """Return how many of the mutant's tests passed, failed and so on, with the named mutant switched on."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/acl/{test}" for test in mutant.tests)]
    command += ["-k", mutant.only] if mutant.only else []
    environment = {**os.environ, "PYTHONPATH": str(folder), VARIABLE: name, "AIS_BENCH_LONG": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    found = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", last)}
    if not found:
        sys.exit(f"{name}: pytest ran nothing:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return found


def is_noticed(folder: Path, name: str) -> bool:
    """Return whether all of the mutant's tests pass without it, and none with it."""
    mutant = MUTANTS[name]
    without, found = run_tests(folder, mutant, ""), run_tests(folder, mutant, name)
    # A passed test may fail at its end, when the emulator's report is checked.
    got_past = found.get("passed", 0) - found.get("error", 0)
    noticed = set(without) == {"passed"} and got_past <= 0
    told = "noticed" if noticed else "NOT NOTICED"
    print(f"{told}: {mutant.rule}: {name}: {found}; without it {without}", flush=True)
    return noticed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", choices=[[], *MUTANTS], metavar="NAME", help="of mutants; all when there is none")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants", help="where the copy lives")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    copy(folder)
    build(folder)
    unnoticed = [name for name in arguments.names or MUTANTS if not is_noticed(folder, name)]
    if unnoticed:
        sys.exit(f"no test noticed: {unnoticed}")


if __name__ == "__main__":
    main()
