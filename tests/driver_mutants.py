"""Proves that the tests of CANN's rules can fail: takes what keeps a rule out of the driver, and demands that its tests notice.

    python tests/driver_mutants.py [--folder build/mutants] [NAME ...]

Each mutant is a change of the sources in a copy of this folder, compiled there; what is named by `tests` has to fail, all of it
(`make mutants`). The rules are those of docs/emulator.md. A run over all takes as long as compiling a few files for each does.
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

ROOT = Path(__file__).resolve().parent.parent
ACL = "csrc/device/acl/"
COPIED = ("CMakeLists.txt", "setup.py", "pyproject.toml", "README.md", "csrc", "ais_bench", "aclruntime", "tests", "docs")


@dataclass(frozen=True)
class Mutant:
    """One thing that keeps a rule: where it stands, what stands there instead, and the tests that must notice."""

    rule: str
    edits: list[tuple[str, str, str]]  # file, text, replacement
    tests: list[str]  # of pytest; "file.py::test" stands for all of its parameters
    only: str = ""  # -k of pytest, where not all parameters are concerned


def lanes(text: str, replacement: str) -> list[tuple[str, str, str]]:
    return [(f"{ACL}acl_lanes.cpp", text, replacement)]


def context(text: str, replacement: str) -> list[tuple[str, str, str]]:
    return [(f"{ACL}acl_context.cpp", text, replacement)]


def runtime(text: str, replacement: str) -> list[tuple[str, str, str]]:
    return [(f"{ACL}acl_runtime.cpp", text, replacement)]


def numbers(*known: int) -> list[tuple[str, str, str]]:
    """The driver does not know these numbers."""
    return [(f"{ACL}acl_errors.inc", f"ACL_ERROR({number}, ", f"// ACL_ERROR({number}, ") for number in known]


LOST = (507042, 507043, 507044, 507045, 507048, 507049, 507050, 507057, 507900, 507901, 507902)
NONE_LEFT = (207007, 207008, 207009, 207010, 207011, 207012)
CREATED = "AIS_TRY(ACL_CALL(api_, aclrtCreateEvent, event));"
WAIT_SYMBOLS = [
    (
        f"{ACL}acl_symbols.inc",
        "ACL_REQUIRED(aclError, aclrtSynchronizeStream,",
        "ACL_REQUIRED(aclError, aclrtSynchronizeStreamWithTimeout, (aclrtStream stream, std::int32_t ms))\n"
        "ACL_REQUIRED(aclError, aclrtSynchronizeEventWithTimeout, (aclrtEvent event, std::int32_t ms))\n"
        "ACL_REQUIRED(aclError, aclrtSynchronizeStream,",
    )
]

MUTANTS = {
    "events without the flag": Mutant(
        "E",
        lanes(CREATED, "AIS_TRY(ACL_CALL(api_, aclrtCreateEventWithFlag, event, kEventTimeLine));"),
        ["test_acl_rules.py::test_every_run_of_a_pipeline_has_its_times", "test_acl_calls.py::test_a_pipeline_of_each_kind",
         "test_acl_calls.py::test_a_worker_of_a_pool_does_as_a_pipeline"],
    ),
    "events recorded again without a reset": Mutant(
        "R",
        lanes(CREATED, "AIS_TRY(ACL_CALL(api_, aclrtCreateEventWithFlag, event, kEventTimeLine | 1U));"),
        ["test_acl_rules.py::test_every_run_of_a_pipeline_has_its_times"],
    ),
    "times asked for before the host dealt with the events": Mutant(
        "T",
        lanes("  AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, from));\n", "")
        + lanes("  AIS_TRY(ACL_CALL(api_, aclrtSynchronizeEvent, to));\n", ""),
        ["test_acl_rules.py::test_every_run_of_a_pipeline_has_its_times"],
    ),
    "a time of two streams": Mutant(
        "T",
        lanes("take(lane.leaving, lane.copied_out,", "take(lane.executed, lane.copied_out,"),
        ["test_acl_calls.py::test_times_are_those_of_one_stream"],
    ),
    "a time that cannot be had fails the run": Mutant(
        "T",
        lanes(
            "  *times = times_of(oldest);\n",
            "  *times = times_of(oldest);\n"
            "  if (!times->why_unknown.empty()) return Status(Code::kExecution, times->why_unknown);\n",
        ),
        ["test_acl_rules.py::test_a_time_that_cannot_be_had_costs_no_result", "test_acl_rules.py::test_unknown_times_of_a_pool",
         "test_acl_rules.py::test_a_report_without_any_time_says_unknown"],
    ),
    "six events a run that streams can wait for": Mutant(
        "Q",
        lanes("ACL_CALL(api_, aclrtCreateEventWithFlag, event, kEventTimeLine)", "ACL_CALL(api_, aclrtCreateEvent, event)"),
        ["test_acl_rules.py::test_sixteen_sessions_have_events_enough"],
    ),
    "a run waited for in slices": Mutant(
        "W",
        [
            *WAIT_SYMBOLS,
            (
                f"{ACL}acl_loaded.cpp",
                "AIS_TRY(ACL_CALL(api_, aclrtStreamQuery, stream_, &state));\n    return state == kStreamIdle;",
                "const aclError number = api_.aclrtSynchronizeStreamWithTimeout(stream_, 100);\n"
                "    state = number;\n    return state != 507046;",
            ),
        ],
        ["test_acl_rules.py::test_long_runs_time_out_nowhere"],
    ),
    "an event waited for in slices": Mutant(
        "W",
        [
            *WAIT_SYMBOLS,
            (
                f"{ACL}acl_lanes.cpp",
                "AIS_TRY(ACL_CALL(api_, aclrtQueryEventStatus, event, &reached));\n    return reached == kEventReached;",
                "reached = api_.aclrtSynchronizeEventWithTimeout(event, 100);\n    return reached != 507047;",
            ),
        ],
        ["test_acl_rules.py::test_long_runs_time_out_nowhere"],
    ),
    "a wait that nobody can end": Mutant(
        "W",
        [(f"{ACL}acl_pace.hpp", "AIS_TRY(unwanted(look));", "if (look && look != woken) AIS_TRY(unwanted(look));"),
         (f"{ACL}acl_pace.hpp", "kLookForSignalsNs = 100'000'000", "kLookForSignalsNs = 5'000'000'000")],
        ["test_acl_stop.py::test_ctrl_c_is_heard_within_half_a_second"],
    ),
    "a product that is believed to stop streams": Mutant(
        "S",
        context("api.aclrtStreamAbort != nullptr && product_of(soc_).aborts_streams", "api.aclrtStreamAbort != nullptr"),
        ["test_acl_rules.py::test_a_product_that_cannot_stop_says_what_it_does"],
    ),
    "a stop that is asked for each time": Mutant(
        "S",
        context("if (status.code() == Code::kUnsupported) can_abort_ = false;", "static_cast<void>(status);"),
        ["test_acl_rules.py::test_a_stop_that_is_refused_is_asked_for_once"],
    ),
    "registering whatever the kernel": Mutant(
        "K",
        context("host_register_ == HostRegister::kAuto && !kernel_pins()", "false"),
        ["test_acl_rules.py::test_an_old_kernel"],
        "auto",
    ),
    "registering whatever the product": Mutant(
        "K",
        context("host_register_ == HostRegister::kAuto && !product_of(soc_).registers_host", "false"),
        ["test_acl_rules.py::test_a_product_that_cannot_register"],
    ),
    "registering though it is off": Mutant(
        "K",
        context("host_register_ == HostRegister::kOff", "false"),
        ["test_acl_rules.py::test_registering_can_be_switched_off"],
    ),
    "one who wants it is not heard": Mutant(
        "K",
        context("host_register_ == HostRegister::kAuto && !kernel_pins()", "!kernel_pins()"),
        ["test_acl_rules.py::test_an_old_kernel"],
        "on",
    ),
    "a report that goes on saying registered": Mutant(
        "K",
        [("csrc/worker/slot_registry.cpp", "if (!std::exchange(refused_, true) && tell_) tell_();", "refused_ = true;")],
        ["test_acl_slots.py::test_the_report_says_when_registering_ends"],
    ),
    "finalize for everybody": Mutant(
        "F",
        runtime("if (api_->aclFinalizeReference != nullptr) {\n    std::uint64_t left", "if (false) {\n    std::uint64_t left"),
        ["test_acl_neighbours.py::test_their_memory_outlives_our_sessions"],
        "we",
    ),
    "finalize of another's": Mutant(
        "F",
        runtime("} else if (state->owner) {", "} else {"),
        ["test_acl_neighbours.py::test_a_library_that_does_not_count_is_left_to_who_was_first",
         "test_acl_symbols.py::test_an_initialisation_of_another_library_is_left_alone"],
        "first or (another_library and without)",
    ),
    "a second life with no configuration": Mutant(
        "J",
        runtime("json.empty() && state->first.has_value() ? state->first->path : json", "json"),
        ["test_acl_config.py::test_a_process_has_one_configuration"],
    ),
    "advice that does not work": Mutant(
        "J",
        runtime("reads one file per process, at the first initialisation, also after \"\n                    \"finalize(); \"",
                "reads one file per process; call finalize() before; \""),
        ["test_acl_config.py::test_a_process_has_one_configuration"],
    ),
    "a file that would be ignored": Mutant(
        "J2",
        runtime("  Status status = check_file(*state, json);\n", "  Status status;\n"),
        ["test_acl_config.py::test_a_file_after_another_library"],
    ),
    "a reference that is kept": Mutant(
        "J2",
        runtime("    static_cast<void>(give_back(state));\n    state->initialised = false;", "    state->initialised = false;"),
        ["test_acl_config.py::test_a_file_after_another_library"],
    ),
    "the thread's context is not put back": Mutant(
        "C",
        context("put_back_ = before_ != nullptr && (t_scopes > 1 || !is_own(before_));", "put_back_ = false;"),
        ["test_acl_neighbours.py::test_a_thread_keeps_the_context_that_another_library_chose"],
    ),
    "parameter inputs by their one name": Mutant(
        "A",
        [(f"{ACL}acl_describe.cpp", "} else if (roles[i].type == kAippParameters) {", "} else if (desc.name == kAippInput) {")],
        ["test_acl_aipp.py::test_three_pictures", "test_acl_aipp.py::test_each_picture_has_settings_of_its_own"],
    ),
    "a byte order mark is text": Mutant(
        "A",
        [("ais_bench/session/aipp.py", 'encoding="utf-8-sig"', 'encoding="utf-8"')],
        ["test_acl_aipp.py::test_files_may_begin_with_a_byte_order_mark"],
    ),
    "numbers that end a context": Mutant(
        "X",
        numbers(*LOST),
        ["test_acl_rules.py::test_numbers_that_end_a_context"],
        " or ".join(map(str, LOST)),
    ),
    "numbers that mean none left": Mutant(
        "X",
        numbers(*NONE_LEFT),
        ["test_acl_rules.py::test_numbers_that_mean_none_left"],
        " or ".join(map(str, NONE_LEFT)),
    ),
    "the number of an abort": Mutant(
        "X", numbers(107023), ["test_acl_rules.py::test_numbers_of_an_abort"], "107023"
    ),
    "weights loaded for each session": Mutant(
        "external weights",
        [(f"{ACL}acl_share.cpp", "if (auto living = known.lock()) return", "if (auto living = known.lock(); false) return")],
        ["test_acl_weights.py::test_two_sessions_load_them_once"],
    ),
    "a work space without turns": Mutant(
        "shared work space",
        [(f"{ACL}acl_loaded.cpp", "  if (workspace_ == nullptr) return turn;\n", "  if (true) return turn;\n")],
        ["test_acl_workspace.py::test_runs_at_the_same_time_take_turns"],
    ),
    "a bundle is tried": Mutant(
        "bundles",
        [(f"{ACL}acl_load.cpp", "  if (is_bundle(model)) {", "  if (model.empty() && is_bundle(model)) {")],
        ["test_acl_weights.py::test_a_bundle_is_refused_by_name"],
    ),
    "memory that messages do not tell of": Mutant(
        "memory",
        context("if (status.code() != Code::kOutOfMemory) return status;\n", "if (!status.ok()) return status;\n"),
        ["test_acl_weights.py::test_what_is_left_of_the_memory"],
    ),
    "no version of CANN": Mutant(
        "version",
        runtime("  aclCANNPackageVersion version = {};\n", '  if (true) return "";\n  aclCANNPackageVersion version = {};\n'),
        ["test_acl_weights.py::test_the_report_and_the_list_of_devices_tell_of_the_memory"],
    ),
}  # fmt: skip


class Copy:
    """A copy of this folder in which mutants are made, compiled and tested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            self._bring(ROOT / name, folder / name)

    def _bring(self, source: Path, target: Path) -> None:
        """Copy what is other than the last time, so that only what changed is compiled again."""
        for path in [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file()):
            place = target / path.relative_to(source) if path != source else target
            if "__pycache__" in path.parts or path.suffix == ".so":
                continue
            if not place.exists() or place.read_bytes() != path.read_bytes():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)

    def build(self) -> None:
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"it does not compile:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")

    def test(self, mutant: Mutant) -> dict[str, int]:
        """How many of the mutant's tests passed, failed and so on."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in mutant.tests)]
        command += ["-k", mutant.only] if mutant.only else []
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, env=environment)
        last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
        found = {word.rstrip("s"): int(count) for count, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)}
        if not found:
            sys.exit(f"pytest ran nothing:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return found

    def change(self, edits: list[tuple[str, str, str]]) -> None:
        for file, text, replacement in edits:
            path = self.folder / file
            content = path.read_text(encoding="utf-8")
            if text not in content:
                sys.exit(f"nothing in {file} matches: {text}")
            path.write_text(content.replace(text, replacement), encoding="utf-8")

    def restore(self, edits: list[tuple[str, str, str]]) -> None:
        for file in {file for file, _, _ in edits}:
            self._bring(ROOT / file, self.folder / file)


def survives(copy: Copy, name: str) -> bool:
    """Whether the mutant gets past one of its tests, or past all with none failing."""
    mutant = MUTANTS[name]
    copy.change(mutant.edits)
    try:
        copy.build()
        found = copy.test(mutant)
    finally:
        copy.restore(mutant.edits)
    text = ", ".join(f"{count} {what}" for what, count in found.items())
    noticed = bool(found.get("failed", 0) or found.get("error", 0)) and "passed" not in found
    print(f"{'found' if noticed else 'NOT FOUND'}: {mutant.rule}: {name}: {text}", flush=True)
    return not noticed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", choices=[[], *MUTANTS], metavar="NAME", help="of mutants; all when there is none")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants", help="where the copy lives")
    arguments = parser.parse_args()
    copy = Copy(arguments.folder.resolve())
    copy.build()
    if survivors := [name for name in arguments.names or MUTANTS if survives(copy, name)]:
        sys.exit(f"no test noticed: {survivors}")


if __name__ == "__main__":
    main()
