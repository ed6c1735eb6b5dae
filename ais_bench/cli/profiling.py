"""Profile and dump: make AscendCL's settings file, run the command under msprof, convert a dump to .npy."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from ais_bench.cli.log import CliError, error, info
from ais_bench.cli.outputs import FILE_MODE, make_folder

__all__ = ["EXIT_FILE", "acl_settings", "convert_dump", "msprof", "run_under_msprof", "takes_over"]

EXIT_FILE = "AIS_BENCH_EXIT_FILE"  # names a file to which the profiled command writes its exit code
_WITHOUT = ("AIT_NO_MSPROF_MODE", "MSIT_NO_MSPROF_MODE")
# The keys of a settings file for which msprof has options, and the options that each key switches on.
_OF_JSON = (
    "output",
    "storage_limit",
    "ascendcl",
    "runtime_api",
    "hccl",
    "task_time",
    "aicpu",
    "aic_metrics",
    "l2",
    "sys_hardware_mem_freq",
    "lcc_profiling",
    "dvpp_freq",
    "host_sys",
    "host_sys_usage",
    "host_sys_usage_freq",
    "sys_interconnection_freq",
    "msproftx",
)
_ALSO = {
    "sys_hardware_mem_freq": "--sys-hardware-mem=on",
    "sys_interconnection_freq": "--sys-interconnection-profiling=on",
    "dvpp_freq": "--dvpp-profiling=on",
}
_DEFAULTS = (
    "--model-execution=on --sys-hardware-mem=on --sys-cpu-profiling=off --sys-profiling=off --sys-pid-profiling=off "
    "--dvpp-profiling=on --runtime-api=on --task-time=on --aicpu=on"
)
_MSACCUCMP = "tools/operator_cmp/compare/msaccucmp.py"
_TOOLKIT = "/usr/local/Ascend/ascend-toolkit/latest"


def read_settings(path: str) -> dict[str, Any]:
    """Return the content of AscendCL's settings file. Raises CliError."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as failed:
        raise CliError(f"--acl_json_path {path} cannot be read: {failed}") from None
    if not isinstance(content, dict):
        raise CliError(f"--acl_json_path {path} must contain a JSON object")
    return content


def takes_over(options: Any) -> None:
    """Set --profiler if the settings file asks for it."""
    if options.acl_json_path:
        settings = read_settings(options.acl_json_path)
        if isinstance(settings.get("profiler"), dict) and settings["profiler"].get("switch") == "on":
            options.profiler = True
        if settings.get("dump") is not None:
            options.profiler = False


def acl_settings(options: Any) -> str | None:
    """Return the settings file for the sessions: the given one, or one made in --output for --profiler and --dump."""
    if options.acl_json_path:
        return str(options.acl_json_path)
    if not options.profiler and not options.dump:
        return None
    folder = os.path.join(options.output, "profiler" if options.profiler else "dump")
    make_folder(folder)
    settings: dict[str, Any]
    if options.profiler:
        settings = {"profiler": {"switch": "on", "aicpu": "on", "output": folder, "aic_metrics": ""}}
    else:
        name = os.path.basename(options.model).split(".")[0]
        settings = {"dump": {"dump_path": folder, "dump_mode": "all", "dump_list": [{"model_name": name}]}}
    path = os.path.join(options.output, "acl.json")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(settings, file, indent=4, separators=(", ", ": "), sort_keys=True)
    return path


def msprof() -> str | None:
    """Return the path of msprof; None if it is not installed, or switched off."""
    found = shutil.which("msprof")
    if found is None:
        info("find no msprof continue use acl.json mode, result won't be parsed as csv")
        return None
    unwanted = next((name for name in _WITHOUT if os.environ.get(name) == "1"), None)
    if unwanted is not None:
        info(f"find {unwanted} set, continue use acl.json mode, result won't be parsed as csv")
        return None
    return found


def run_under_msprof(options: Any, binary: str, words: list[str]) -> int:
    """Run the same command line under msprof, and return the exit code: 1 if either failed. Raises CliError."""
    own = shlex.join([sys.executable, "-m", "ais_bench", *words, "--profiler=0", "--warmup_count=0"])
    if options.acl_json_path:
        options.profiler_rename = False
        command = [binary, f"--application={own}", *_msprof_options(read_settings(options.acl_json_path))]
    else:
        command = [binary, f"--output={options.output}/profiler", f"--application={own}", *_DEFAULTS.split()]
    info(f"msprof cmd:{shlex.join(command)} begin run")
    with tempfile.TemporaryDirectory(prefix="ais_bench-") as folder:
        exit_file = os.path.join(folder, "exit")
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, EXIT_FILE: exit_file})
        except OSError as failed:
            raise CliError(f"msprof cannot be run: {failed}") from None
        profile = ""
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if not profile and "PROF_" in line:
                profile = line[line.index("PROF_") :].split()[0].rstrip("/.,'\"").split("/")[0]
        code = process.wait()
        info(f"msprof cmd:{shlex.join(command)} end run ret:{code}")
        if code != 0:
            raise CliError(f"msprof exited with {code}")
        _check_exit(exit_file)
    if options.profiler_rename and profile:
        _rename(os.path.join(options.output, "profiler", profile), options.model)
    return 0


def _check_exit(path: str) -> None:
    """Raise CliError if the profiled command failed. msprof exits with 0 even then."""
    try:
        with open(path, encoding="ascii") as file:
            code = int(file.read())
    except (OSError, ValueError):
        raise CliError("the profiled run was killed before it could report its exit code") from None
    if code != 0:
        raise CliError(f"the profiled run exited with {code}")


def _msprof_options(settings: dict[str, Any]) -> list[str]:
    profiler, found = settings.get("profiler") or {}, []
    for name in _OF_JSON:
        if profiler.get(name):
            found.append(f"--{name.replace('_', '-')}={profiler[name]}")
            found += [_ALSO[name]] if name in _ALSO else []
    return found


def _rename(folder: str, model: str) -> None:
    """Add the model and the profile to the file names, so that the files of several profiles can be in one folder."""
    name, tag = os.path.basename(model).split(".")[0], folder.rsplit("_", 1)[-1]
    for place, _, files in os.walk(folder):
        for file in files:
            stem, suffix = os.path.splitext(file)
            if suffix in (".csv", ".json"):
                os.rename(os.path.join(place, file), os.path.join(place, f"{stem}_{name}_{tag}{suffix}"))


def convert_dump(acl_json: str, before: set[str]) -> None:
    """Convert the dumps that are not in `before` to .npy, in a folder beside each dump whose name ends with _npy."""
    dump = dump_folder(acl_json)
    tool = os.path.join(os.environ.get("ASCEND_TOOLKIT_HOME") or _TOOLKIT, _MSACCUCMP)
    if dump is None:
        return
    if not os.path.exists(tool):
        error(f"cannot convert the dump: {tool} does not exist; set ASCEND_TOOLKIT_HOME to the toolkit's folder")
        return
    for name in sorted(dumped(dump) - before):
        for place, _, files in os.walk(os.path.join(dump, name)):
            if files:
                target = os.path.join(dump, f"{name}_npy", os.path.relpath(place, os.path.join(dump, name)))
                done = subprocess.run([sys.executable, tool, "convert", "-d", place, "-out", target], check=False)
                if done.returncode != 0:
                    error(f"{tool} exited with {done.returncode} for {place}")


def dump_folder(acl_json: str) -> str | None:
    """Return the folder to which AscendCL writes dumps."""
    settings = read_settings(acl_json).get("dump")
    path = settings.get("dump_path") if isinstance(settings, dict) else None
    return path if path and os.path.isdir(path) else None


def dumped(folder: str) -> set[str]:
    """Return the dumps in the folder."""
    return {name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name)) and not name.endswith("_npy")}
