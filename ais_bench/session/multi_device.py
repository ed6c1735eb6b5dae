"""MultiDeviceSession: one model on all devices.

feeds -> run_feeds, by_device, batching -> pool -> worker's InferSession -> pool -> picking -> outputs
"""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import itertools
import logging
import os
import pickle
import sys
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, overload

from ais_bench import _native
from ais_bench._native import Results
from ais_bench.errors import (
    AisBenchError,
    ConfigError,
    ConfigTypeError,
    DeviceUnavailable,
    FeedError,
    FeedWarning,
    PoolClosed,
    PoolError,
    SessionClosed,
    no_copies,
)
from ais_bench.one_device.descriptors import ModelMetadata, metadata_of, tensor_desc
from ais_bench.one_device.picking import picker
from ais_bench.options import (
    OnError,
    absolute,
    absolute_path,
    as_bool,
    as_callable,
    as_chain,
    as_device_id,
    as_device_ids,
    as_fallback,
    as_int,
    as_iterable,
    as_list,
    as_model,
    as_provider,
    as_seconds,
    as_share_weights,
    check_names,
    check_on_error,
    host_register_option,
    known_options,
    refuse_on_npu,
    runtime_of,
    runtime_options,
    unknown_argument,
)
from ais_bench.pool import DevicePool, PoolSettings, Task
from ais_bench.pool.threads import Lock, LockType
from ais_bench.providers import ProviderInfo, check_devices, provider_options_of
from ais_bench.session import batching, run_feeds
from ais_bench.session.by_device import is_by_device, lists_by_device, regroup, sets_by_device, sets_in
from ais_bench.session.chained import Chained
from ais_bench.session.count_devices import count_devices
from ais_bench.session.item import Keyed, item_of
from ais_bench.session.last_times import LastTimes
from ais_bench.session.own_process import OwnProcess
from ais_bench.session.preprocessing import Preprocessing
from ais_bench.session.stateless import threads_for
from ais_bench.session.weights import SharedWeights
from ais_bench.tuning import IN_HAND_ON_A_CPU, IN_HAND_ON_AN_NPU, KEPT_TIMES
from ais_bench.wire import OBJECT, TENSORS, encode, take
from ais_bench.wire.factories import Iterate, Named, SessionFactory
from ais_bench.wire.parcel import Packed, Parcel, pack
from ais_bench.wire.pickling import dumps_by_value, loads

if TYPE_CHECKING:
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from ais_bench.pool.settings import PoolOptions
    from ais_bench.session.report import Report

    Outputs = list[NDArray[Any]]

__all__ = ["MultiDeviceSession"]


class _Description(NamedTuple):
    inputs: list[tensor_desc]
    outputs: list[tensor_desc]
    overridable: list[tensor_desc]
    batches: list[int]  # the batch gears, ascending; empty if the model has no such gears
    borrows: bool  # whether its workers read feeds in the memory of CPU workers


class _Callables(NamedTuple):
    """The caller's functions around the model, checked."""

    preprocess: Callable[[Any], Any] | None
    postprocess: Callable[..., Any] | None
    init: Callable[[], Any] | None
    retry_on: tuple[type[Exception], ...]
    workers: int  # extra processes that run preprocess; 0: the workers of the devices run it
    threads: tuple[int, int]  # of preprocess and postprocess in a device's worker

    @classmethod
    def checked(cls, preprocess: Any, postprocess: Any, init: Any, retry_on: Any, threads: Any, workers: Any) -> _Callables:
        workers = as_int("preprocess_workers", workers, 0, 1024)
        if workers and preprocess is None:
            raise ConfigError(f"preprocess_workers needs a preprocess for its workers, got {workers} and no preprocess")
        again = _exception_types(retry_on)
        if again and preprocess is None and postprocess is None:
            raise ConfigError("retry_on is about what callables raise: it needs a preprocess or a postprocess")
        in_device = None if workers else preprocess
        counts = (threads_for(in_device, threads), threads_for(postprocess, threads))
        return cls(preprocess, postprocess, init, again, workers, counts)

    @property
    def in_device(self) -> Callable[[Any], Any] | None:
        """Return the callable that the workers of the devices call before the model."""
        return None if self.workers else self.preprocess

    def for_devices(self) -> Packed | None:
        return _packed(self.retry_on, preprocess=self.in_device, postprocess=self.postprocess, init=self.init)

    def start_ahead(self, settings: PoolSettings) -> Preprocessing | None:
        """Make the workers that preprocess, if the session has any."""
        if not self.workers:
            return None
        packed = _packed(self.retry_on, preprocess=self.preprocess, init=self.init)
        assert packed is not None
        # These settings concern only the devices: threads, processors, and how many devices may be missing.
        alone = dataclasses.replace(
            settings,
            workers_per_device=1,
            tasks_in_flight=None,
            fewest_in_flight=2,
            min_devices=None,
            hedge=None,
            affinity="none",
        )
        return Preprocessing(packed, self.workers, alone, carries=self.postprocess is not None)


class MultiDeviceSession:
    """One model, loaded in a worker process on each device. Feeds and outputs are those of InferSession.

    Workers start on first use, or with `start()`, and stay for later calls. They end with `close()`, with the last reference,
    or with this process. Workers are fresh interpreters, so no main guard is needed, and notebooks and `python -c` work. Every
    method may be called from any thread. A session does not work in a forked child of the process that made it.

    Args:
        model_path, acl_json_path, debug, loop: as for InferSession.
        devices: device ids. None: the ids in a call's {device: feeds}; for other calls all devices.
        preprocess: any callable. It runs in the worker and makes feeds from an item; items may then be any picklable objects.
            If it returns `Carry(feeds, extra)`, the postprocess of that item is called with (outputs, extra).
        postprocess: any callable. It runs in the worker and makes the result, any picklable object, from the outputs.
        init: any callable without arguments. It runs once in the main thread of each worker, before the model is loaded.
        retry_on: exception types. If a callable raises one of these for an item, the item is tried again, on another device if
            there is one, at most `max_attempts` times in all; `Item.attempts` is the number of attempts.
        callable_threads: preprocess of the next items and postprocess of the previous ones run beside the device, each in this
            many threads. None: 2 for functions that keep no state (see ais_bench.session.stateless), otherwise 1. 1: no two
            calls of one callable overlap. 0: everything in one thread, one item after the other.
        preprocess_workers: number of extra processes that run preprocess for all devices. 0: the workers of the devices run it.
        on_error: "raise" an item's error when its turn comes, or "return" it in place of the result.
        warmup: number of runs of each worker on zeros before it is ready, for models without open dimensions.
        affinity: "auto" gives each worker of a CPU device its own processors, which it leaves while another program uses them;
            "split": the worker keeps its processors; "none": any processors; or {device id: [processors]}.
        runtime, provider, fallback, graph_optimization_level, provider_options, weight_dir, custom_ops: as for InferSession.
            A separate process resolves the provider "auto" and counts the devices of a provider.
        profile: as for InferSession; the device and the process are added to the name of each worker's file.
        host_register: whether workers register the memory that they share with this process with their NPU, so that the NPU
            copies directly. "auto": if the product and the kernel support it; "off": everything is copied through page-locked
            memory; "on". The report says which of the two is used.
        share_weights: whether workers on CPU devices share one copy of the weights, which a helper process optimises and packs
            once: True, False, or "auto": if this saves 256 MiB or more. Results are the same. The files are in the folder for
            temporary files and are removed with the session.
        weights_cache: a folder that keeps the prepared weights for the next pool with the same model, options, ONNX Runtime and
            kind of processor. With it "auto" always shares.
        settings: further keywords: workers_per_device, tasks_in_flight, fewest_in_flight, task_timeout, start_timeout,
            close_timeout, max_restarts, restart_backoff, retry_device_after, max_attempts, min_devices, threads, spin, window,
            window_items, hedge, weights. The table of ais_bench.pool.PoolSettings has their defaults and units. With `hedge`
            the callables may run twice for an item.

    Raises ConfigError before anything is started. Calls raise FeedError, InferenceError and similar errors for one task;
    WorkerStartError if the model does not load; WorkerDied and TaskTimeout for a task whose workers died, with `device_id` and
    `index`, the position among the feeds; PoolBroken and PoolClosed.
    """

    def __init__(
        self,
        model_path: Any,
        acl_json_path: str | None = None,
        debug: bool = False,
        loop: int = 1,
        *,
        devices: Any = None,
        preprocess: Callable[[Any], Any] | None = None,
        postprocess: Callable[..., Any] | None = None,
        init: Callable[[], Any] | None = None,
        retry_on: type[Exception] | Sequence[type[Exception]] = (),
        callable_threads: int | None = None,
        preprocess_workers: int = 0,
        on_error: OnError = "raise",
        warmup: int = 0,
        affinity: str | Mapping[int, Sequence[int]] = "auto",
        runtime: str | None = None,
        provider: str | None = None,
        fallback: str = "cpu",
        graph_optimization_level: str | None = None,
        provider_options: Mapping[str, Any] | None = None,
        weight_dir: str | os.PathLike[str] | None = None,
        profile: str | os.PathLike[str] | None = None,
        custom_ops: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        host_register: str = "auto",
        share_weights: str | bool = "auto",
        weights_cache: str | os.PathLike[str] | None = None,
        **settings: Unpack[PoolOptions],
    ) -> None:
        check_names(settings, self._option_names())
        given = {name: value for name, value in locals().items() if name not in ("self", "settings", "model_path", "__class__")}
        self._made_with = {**given, **settings}  # for pickle
        self.model_path = absolute(as_model(model_path))
        self._runtime = runtime_of(self.model_path, runtime)
        self._on_error = check_on_error(on_error)
        self._asked = None if devices is None else as_device_ids(devices)
        callables = _Callables.checked(preprocess, postprocess, init, retry_on, callable_threads, preprocess_workers)
        self._made_with |= {"devices": self._asked, "retry_on": callables.retry_on}  # iterators were consumed above
        self._provider = self._find_provider(as_provider(provider))
        self._settings = self._checked_settings(settings, affinity, callables)
        options = runtime_options(None, graph_optimization_level, provider_options, weight_dir, profile, custom_ops)
        self._weights = self._shared_weights(share_weights, weights_cache)
        options = self._checked_options(options, host_register, fallback)
        factory = self._factory(callables, options, acl_json_path, debug, loop, warmup)
        self._parcel = Parcel.of(factory)  # as the callables are now
        weakref.finalize(self, self._parcel.close)
        if self._weights is not None:
            weakref.finalize(self, self._weights.close)
        self._preprocess, self._finishes = callables.in_device is not None, postprocess is not None
        self._preprocessing = callables.start_ahead(self._settings)
        self._process = OwnProcess()
        self._making = Lock()  # guards making the pool and adding devices; read it as _lock
        self._made: DevicePool | None = None  # read it as _pool
        self._run_plain: Callable[[Any], list[Any] | Task | None] | None = None
        self._closed = False
        self._inputs: list[tensor_desc] = []
        self._overridable: list[str] = []  # names of the constants that a run may override
        self._rule: _native.FeedRule | None = None  # of the inputs
        self.summary = self.sumary = LastTimes(self._process)

    def _checked_settings(self, settings: PoolOptions, affinity: Any, callables: _Callables) -> PoolSettings:
        auto = isinstance(affinity, str) and affinity == "auto"
        on_the_cpu = self._runtime == "ort" and (self._provider is None or self._provider.name == "openvino")
        pinning: Any = "none" if auto and not on_the_cpu else affinity
        at_once = IN_HAND_ON_A_CPU if on_the_cpu else IN_HAND_ON_AN_NPU
        stages = sum(count + 1 for count in (*callables.threads, bool(callables.workers)) if count)
        settings.setdefault("fewest_in_flight", at_once + stages)
        return PoolSettings(affinity=pinning, **settings)

    def _checked_options(self, options: dict[str, str], host_register: str, fallback: str) -> dict[str, str]:
        options = options | host_register_option(host_register, self._runtime)
        nodes_elsewhere = as_fallback(fallback)
        if self._provider is not None:
            options = provider_options_of(self._provider, options, nodes_elsewhere)
        if self._runtime == "acl":
            refuse_on_npu({**options, **({"threads": ""} if self._settings.threads else {})})
        return options

    def _shared_weights(self, share_weights: str | bool, weights_cache: Any) -> SharedWeights | None:
        share, cache = as_share_weights(share_weights), absolute_path("weights_cache", weights_cache)
        if share is False or self._runtime != "ort":
            return None
        weights = SharedWeights(share, cache)
        if self._provider is not None:
            weights.refuse(f"{self._provider.provider} has the weights in memory of its own")
        return weights

    def _factory(
        self, callables: _Callables, options: dict[str, str], acl_json_path: str | None, debug: bool, loop: int, warmup: int
    ) -> SessionFactory:
        return SessionFactory(
            model=self.model_path if isinstance(self.model_path, str) else pickle.PickleBuffer(self.model_path),
            runtime=self._runtime,
            options=options,
            acl_json_path=absolute_path("acl_json_path", acl_json_path),
            debug=as_bool("debug", debug),
            loop=as_int("loop", loop, 1),
            warmup=as_int("warmup", warmup, 0),
            device_count=count_devices("ort"),
            callables=callables.for_devices(),
            callable_threads=callables.threads,
            borrows=callables.workers > 0,
            prepared="" if self._weights is None else self._weights.folder,
        )

    def _find_provider(self, name: str | None) -> ProviderInfo | None:
        """Return the provider of that name, which another process has probed; None for the processor."""
        if name is None:
            return None
        if self._runtime != "ort":
            raise ConfigError(f"provider is about ONNX models, and this model is for an NPU; got {name!r}")
        from ais_bench.session.providers import ask_for_provider

        found = ask_for_provider(name)
        if name == "auto":
            logging.getLogger("ais_bench.session").info("provider 'auto': %s", found.name)
        return None if found.name == "cpu" else found

    @classmethod
    def _option_names(cls) -> list[str]:
        """Return the names of all options."""
        return [*known_options(MultiDeviceSession), *(field.name for field in dataclasses.fields(PoolSettings))]

    # Both raise SessionClosed in a forked child. All access to the state of the session goes through them.

    @property
    def _lock(self) -> LockType:
        self._process.check()
        return self._making

    @property
    def _pool(self) -> DevicePool | None:
        self._process.check()
        return self._made

    @_pool.setter
    def _pool(self, pool: DevicePool | None) -> None:
        self._made = pool
        self._run_plain = None

    # ---- life ----

    def start(self) -> None:
        """Start the workers and wait until they are ready.

        Raises WorkerStartError, DeviceUnavailable (no `devices` were given and none exists), PoolClosed, and SessionClosed in a
        forked child.
        """
        self._ready_pool(None)

    def close(self, *, force: bool = False, **unknown: NoReturn) -> None:
        """End the workers. Accepted work finishes first, for at most `close_timeout` seconds. Idempotent.

        `force`: do not wait; unfinished tasks fail with PoolClosed. Outputs stay valid. May be called from any thread and from
        the callback of a future. Raises ConfigTypeError for an unknown argument.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.close)
        self._closed = True
        if not self._process.is_here():
            return  # everything belongs to the parent
        pool = self._made
        if self._preprocessing is not None:  # first, because it hands items to the devices
            self._preprocessing.close(force=force)
        if pool is not None:
            pool.close(force=force)
        if self._weights is not None:
            self._weights.close()
        self._parcel.close()

    def __enter__(self) -> MultiDeviceSession:
        return self

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        self.close(force=kind is not None)

    async def __aenter__(self) -> MultiDeviceSession:
        await _in_thread(self.start)
        return self

    async def __aexit__(self, kind: object, _error: object, _traceback: object) -> None:
        force = kind is not None
        await _in_thread(lambda: self.close(force=force))

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._pool is None:
            state = "not started"
        else:
            ready = sum(worker.state == "ready" for worker in self._pool.workers())
            state = f"{ready} workers ready, {self._pool.counts()['outstanding']} tasks under way"
        devices = self._asked if self._pool is None else self._pool.devices
        on = "all devices" if devices is None else f"devices {list(devices)}"
        return f"<MultiDeviceSession {self._model_name!r} on {on}: {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._pool is not None or self._closed:
            raise no_copies("a MultiDeviceSession that was started or closed", "make one where it is needed")
        return _remake, (self.model_path, _Options(self._made_with))

    def progress(self) -> dict[str, int]:
        """Return how many tasks were accepted since the start or the last reset, and how they ended.

        "accepted" is the sum of "done", "failed", "cancelled", "timed_out", "refused" and "outstanding". With
        `preprocess_workers` an item is accepted when its feeds are ready; `report().preprocess` counts the items before. The
        call is cheap enough for progress bars. Raises SessionClosed in a forked child.
        """
        names = ("accepted", "done", "failed", "cancelled", "timed_out", "refused", "outstanding")
        counts = dict.fromkeys(names, 0) if self._pool is None else self._pool.counts()
        return {name: counts[name] for name in names}

    def add_device(self, device: Any) -> None:
        """Add a device and wait until its workers are ready. Raises ConfigError, WorkerStartError, PoolClosed."""
        pool = self._ready_pool(None)
        self._check_devices([as_device_id(device)])
        self._prepare_weights(len(pool.devices) + 1)
        pool.add_device(device)

    def remove_device(self, device: Any) -> None:
        """Remove a device after its workers have finished their tasks.

        Raises ConfigError if the device is not in use or is the last one, and PoolClosed.
        """
        self._ready_pool(None).remove_device(device)

    @property
    def devices(self) -> list[int]:
        """The device ids in use; before the first use, those that a call without ids would use. Raises DeviceUnavailable."""
        return list(self._pool.devices) if self._pool is not None else self._default_devices()

    def _default_devices(self) -> list[int]:
        if self._asked is not None:
            return list(self._asked)
        if self._provider is not None:
            return list(range(len(self._provider.devices)))
        try:
            return list(range(count_devices(self._runtime)))
        except DeviceUnavailable as error:
            raise DeviceUnavailable(f"cannot load the model {self._model_name!r}: {error}") from error

    @property
    def _model_name(self) -> str:
        model = self.model_path
        return model if isinstance(model, str) else f"<{len(model)} bytes in memory>"

    def _ready_pool(self, wanted: Iterable[int] | None) -> DevicePool:
        """Return the started pool with at least the devices wanted (None: the default devices)."""
        pool = self._pool
        if pool is None or wanted is not None:
            with self._lock:
                pool = self._with_devices(wanted)
        if not pool.started:  # an interrupt must not end a started pool
            self._start(pool)
        if self._preprocessing is not None:
            self._preprocessing.start()
        if not self._inputs:
            description = self._description(pool)
            described = pool.description()
            self._rule = _native.FeedRule(described[0], described[7])
            self._overridable = [desc.name for desc in description.overridable]
            pool.name_feeds([desc.name for desc in description.inputs])
            self._inputs = description.inputs
            if not self._preprocess and self._preprocessing is None:
                self._run_plain = pool.plain_runner(self._rule, self.summary)
            self._tell_of_fallback(described[9])
            if self._preprocessing is not None:
                self._preprocessing.lends = description.borrows
                self._preprocessing.overridable = self._overridable
        return pool

    def _tell_of_fallback(self, placement: tuple[int, list[str]] | None) -> None:
        """Log once which nodes of the model run on the processor because the provider does not support them."""
        if self._provider is None or placement is None or not placement[1]:
            return
        from ais_bench.session.report import Fallback

        logging.getLogger("ais_bench.session").warning("%s: %s", self._provider.provider, Fallback(*placement))

    def _start(self, pool: DevicePool) -> None:
        try:
            pool.start()
        except SessionClosed:  # this process was forked from the pool's process
            raise
        except BaseException:
            with self._lock:
                if self._pool is pool and not self._closed:  # the next call may start another pool
                    self._pool = None
            raise

    def _with_devices(self, wanted: Iterable[int] | None) -> DevicePool:
        if self._closed:
            raise PoolClosed("the session is closed")
        if self._asked is not None and wanted is not None:
            strange = sorted(set(wanted) - set(self._pool.devices if self._pool is not None else self._asked))
            if strange:
                raise ConfigError(f"feeds are given for devices {strange}; this session has {list(self.devices)}")
        if self._pool is None:
            ids = self._asked or (list(wanted) if wanted is not None else None) or self._default_devices()
            self._check_devices(ids)
            self._prepare_weights(len(ids))
            self._pool = DevicePool(self._parcel, ids, self._settings)
            if self._closed:  # closed meanwhile by a thread that found no pool
                self._pool.close(force=True)
        elif wanted is not None and (more := set(wanted) - set(self._pool.devices)):
            self._check_devices(more)
            self._prepare_weights(len(more) + len(self._pool.devices))
            for device in more:
                self._pool.add_device(device)
        return self._pool

    def _check_devices(self, ids: Iterable[int]) -> None:
        if self._provider is not None:
            check_devices(self._provider, ids)

    def _prepare_weights(self, devices: int) -> None:
        """Start to prepare the weights if this many devices share them. The workers wait for the result."""
        workers = devices * self._settings.workers_per_device
        if self._weights is None or not self._weights.is_worth_it(self.model_path, workers):
            return
        share = max(1, _native.usable_cpu_count() // workers)
        self._weights.start(self._parcel, self._settings.threads or share)

    @staticmethod
    def _description(pool: DevicePool) -> _Description:
        ins, outs, (kind, gears), _, borrows, _, _, constants, *_ = pool.description()
        inputs, outputs, overridable = (
            [tensor_desc._from_native(native) for native in side] for side in (ins, outs, constants)
        )
        batches = sorted(gear[0] for gear in gears) if kind == "dymbatch" else []
        return _Description(inputs, outputs, overridable, batches, borrows)

    # ---- the model ----

    def get_inputs(self) -> list[tensor_desc]:
        """Return a description of the inputs. A worker answers, because the parent never loads the model.

        Raises WorkerStartError, PoolBroken, PoolClosed, and SessionClosed in a forked child.
        """
        return list(self._description(self._ready_pool(None)).inputs)

    def get_outputs(self) -> list[tensor_desc]:
        """Return a description of the outputs. Raises the errors of `get_inputs`."""
        return list(self._description(self._ready_pool(None)).outputs)

    def get_overridable_initializers(self) -> list[tensor_desc]:
        """Return a description of the constants that a run may override by name; see InferSession.

        Raises the errors of `get_inputs`.
        """
        return list(self._description(self._ready_pool(None)).overridable)

    @property
    def metadata(self) -> ModelMetadata:
        """The model's metadata, from a worker. Empty on an NPU, because AscendCL does not provide it.

        Raises the errors of `get_inputs`.
        """
        return metadata_of(self._ready_pool(None).description()[6])

    def _picker(self, outputs: Sequence[str] | None) -> Callable[[Any], Any]:
        """Return a function that picks the wanted outputs from all outputs of a run. An error in their place stays."""
        if outputs is None:
            return lambda result: result
        if self._finishes:
            raise ConfigError("outputs must be None if there is a postprocess, which is given all of them")
        return self._chooser(outputs)

    def _chooser(self, outputs: Sequence[str] | None) -> Callable[[Any], Any]:
        """Return such a function for outputs that did not go through a postprocess."""
        return picker(outputs, [] if outputs is None else [desc.name for desc in self.get_outputs()])

    def new_feeds(self, shapes: Sequence[Sequence[int]] | None = None, **unknown: NoReturn) -> list[NDArray[Any]]:
        """Return one array for each input, in memory that a worker shares: feeding these arrays copies nothing.

        `shapes`: one for each input; None for a model whose shapes are fixed. Do not change the arrays until you have the
        result of the run that uses them; after that you may fill them again. Raises ConfigError, and the errors of
        `get_inputs`.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.new_feeds)
        pool = self._ready_pool(None)
        inputs = self._inputs
        given = [desc.shape for desc in inputs] if shapes is None else as_list("shapes", shapes, "shapes, one for each input")
        wanted = [[as_int("a dimension", dim, -1) for dim in as_list("a shape", shape, "dimensions")] for shape in given]
        if len(wanted) != len(inputs):
            raise ConfigError(f"shapes must have {len(inputs)} entries, one for each input, got {len(wanted)}")
        for desc, shape in zip(inputs, wanted, strict=True):
            if any(dim < 0 for dim in shape):
                raise ConfigError(f"input {desc.name!r} has shape {shape}; pass shapes without open dimensions")
        return pool.new_feeds([(shape, desc.dtype) for desc, shape in zip(inputs, wanted, strict=True)])

    # ---- one set of feeds ----

    @overload
    def infer(
        self,
        feeds: Mapping[int, Iterable[Any]],
        mode: str = ...,
        custom_sizes: Any = ...,
        *,
        outputs: Sequence[str] | None = ...,
        device: None = ...,
    ) -> dict[int, list[Any]]: ...

    @overload
    def infer(
        self, feeds: Any, mode: str = ..., custom_sizes: Any = ..., *, outputs: Sequence[str] | None = ..., device: Any = ...
    ) -> Any: ...

    def infer(
        self,
        feeds: Any,
        mode: str = "static",
        custom_sizes: Any = 100000,
        *,
        outputs: Sequence[str] | None = None,
        device: Any = None,
        **unknown: NoReturn,
    ) -> Any:
        """Run one set of feeds on the device that is expected to finish it first, or on `device`, and return its outputs.

        {device id: [feeds, ...]} runs each list on its device and returns {device id: [outputs, ...]}, in the order of the
        feeds.

        `outputs`: names of the outputs to return, in that order; None: all. The model computes all outputs in both cases.

        Raises ConfigError; FeedError, InferenceError and similar errors of the task; WorkerDied, TaskTimeout; WorkerStartError,
        PoolBroken, PoolClosed, and SessionClosed in a forked child.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.infer)
        if self._run_plain is not None and outputs is None and device is None and type(mode) is str and mode == "static":
            done = self._run_plain(feeds)  # the usual case takes little Python
            if done is not None:
                return done if isinstance(done, list) else done.result()
        number = 0 if type(mode) is str and mode == "static" else run_feeds.mode_number(mode, custom_sizes)
        if type(feeds) is not list and is_by_device(feeds):
            if device is not None:
                raise ConfigError(f"device={device!r} cannot be used with feeds that name their devices")
            by_device = self._by_device(feeds, lambda one, **how: self._task(one, mode=number, **how))
            pick = self._picker(outputs)
            return {device: [pick(result) for result in results] for device, results in by_device.items()}
        wanted = None if outputs is None else self._picker(outputs)
        device = None if device is None else as_device_id(device)
        pool = self._ready_pool(None if device is None else [device])
        if self._preprocessing is not None:
            feeds = self._preprocessing.one(feeds, self._inputs)
        task = pool.run(self._task(feeds, mode=number, device=device))
        self.summary.note_one(task)
        return task.result() if wanted is None else wanted(task.result())

    def submit(
        self,
        feeds: Any,
        device: int | None = None,
        timeout: float | None = None,
        mode: str = "static",
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Future[Any]:
        """Run one set of feeds and return a future of its outputs. The feeds may be reused at once. `cancel` works.

        `device`: the device to run on; None: the one that is expected to finish first. `timeout`: seconds from now until the
        future fails with TaskTimeout. `outputs` as for `infer`. Raises ConfigError, FeedError if the argument is not a set of
        feeds, WorkerStartError, PoolBroken, PoolClosed, and SessionClosed in a forked child. `result()` raises other errors.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.submit)
        number = run_feeds.mode_number(mode)
        if outputs is not None:
            chosen = Chained(self._picker(outputs))
            chosen.follow(self.submit(feeds, device, timeout, mode))
            return chosen
        as_seconds("timeout", timeout, optional=True)
        device = None if device is None else as_device_id(device)
        pool = self._ready_pool(None if device is None else [device])

        def start(feeds: Any, timeout: float | None) -> Future[Any]:
            return pool.submit(self._task(feeds, mode=number, device=device), timeout=timeout)

        if self._preprocessing is not None:
            return self._preprocessing.submit(feeds, self._inputs, start, timeout)
        return start(feeds, timeout)

    async def infer_async(
        self,
        feeds: Any,
        device: int | None = None,
        timeout: float | None = None,
        mode: str = "static",
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Any:
        """Run one set of feeds from asyncio: `await session.infer_async(feeds)`. Waiting uses no thread.

        Arguments as for `submit`. Raises the errors of `submit` and of its future.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.infer_async)
        from ais_bench.session.awaiting import outcome

        if self._pool is None:
            wanted = None if device is None else [device]
            await _in_thread(lambda: self._ready_pool(wanted))
        return await outcome(self.submit(feeds, device, timeout, mode, outputs=outputs))

    def amap(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        mode: str = "static",
        on_error: OnError | None = None,
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> AsyncIterator[Any]:
        """Like `map`, for asyncio: `async for outputs in session.amap(items)`. `items` may be an async iterable, too.

        Finished results are yielded before another item is read. Closing the iterator cancels the tasks in progress. `outputs`
        as for `infer`. Raises the errors of `map`.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.amap)
        returns = self._returns(on_error)
        run_feeds.mode_number(mode)
        with self._lock:  # raises SessionClosed in a forked child
            if self._closed:
                raise PoolClosed("the session is closed")
        return self._amap(items, mode, returns, outputs)

    async def _amap(
        self, items: Iterable[Any] | AsyncIterable[Any], mode: str, returns: bool, outputs: Sequence[str] | None
    ) -> AsyncIterator[Any]:
        if self._pool is None:
            await _in_thread(lambda: self._ready_pool(None))
        most = 2 * len(self._ready_pool(None).workers()) * self._settings.fewest_in_flight
        pick = self._picker(outputs)
        under_way: deque[Future[Any]] = deque()
        try:
            async for item in _each(items):
                under_way.append(self._submit_or_fail(item, mode))
                while under_way and (under_way[0].done() or len(under_way) >= most):
                    yield pick(await _outcome(under_way.popleft(), returns))
            while under_way:
                yield pick(await _outcome(under_way.popleft(), returns))
        finally:
            for future in under_way:
                future.cancel()

    def _submit_or_fail(self, item: Any, mode: str) -> Future[Any]:
        """Return a future of the item. If the item is invalid, the future has failed."""
        try:
            return self.submit(item, mode=mode)
        except (AisBenchError, TypeError, ValueError) as error:
            if isinstance(error, PoolError):
                raise
            failed: Future[Any] = concurrent.futures.Future()
            failed.set_exception(error)
            return failed

    # ---- many ----

    def map(
        self,
        iterable: Iterable[Any],
        mode: str = "static",
        on_error: OnError | None = None,
        *,
        details: bool = False,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Iterator[Any]:
        """Run every set of feeds of any iterable, which may be endless, and yield the outputs in order.

        `details`: yield (outputs, Item) instead; the Item has the device and the time of each stage. With on_error="return" an
        error takes the place of the outputs. An element may be `Keyed(key, feeds)`; its key is then in the Item.

        Memory is bounded: a few items for each worker are in progress. An item is copied before the iterable is asked for the
        next one, so the iterable may reuse its buffers (except arrays of `new_feeds`). `outputs` as for `infer`.

        The call raises ConfigError, WorkerStartError, PoolBroken, PoolClosed, and SessionClosed in a forked child. The
        iteration raises an item's error and ends, unless on_error="return", and raises any error of the iterable.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.map)
        results = self._stream(iterable, mode, on_error, details=details, ordered=True)
        if outputs is None:
            return results
        pick = self._picker(outputs)
        return ((pick(result), item) for result, item in results) if details else map(pick, results)

    def map_unordered(
        self,
        iterable: Iterable[Any],
        mode: str = "static",
        on_error: OnError | None = None,
        *,
        details: bool = False,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Iterator[tuple[Any, Any]]:
        """Like `map`, but yield (index, outputs), or (outputs, Item) with `details`, as they finish.

        Raises the errors of `map`.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.map_unordered)
        results = self._stream(iterable, mode, on_error, details=details, ordered=False)
        if outputs is None:
            return results
        pick = self._picker(outputs)
        return ((pick(first), second) if details else (first, pick(second)) for first, second in results)

    def infer_batch(
        self,
        arrays: Any,
        batch_size: int | None = None,
        mode: str = "static",
        *,
        batch_axis: Any = None,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Outputs:
        """Run a whole data set, split along axis 0 over the devices, and return whole arrays, one for each output.

        Args:
            arrays: one array for each input (a list, a mapping by name, or the array itself if there is one input), all with
                one entry for each sample along axis 0. An optional input may be None, or missing from a mapping. A mapping may
                also have values for `get_overridable_initializers`; every run gets these values unsplit.
            batch_size: samples of one run. None: the model's fixed batch, otherwise a gear or a size that keeps all devices
                busy. If the batch is fixed, the last batch is padded, and the padding is removed from the outputs.
            batch_axis: the axis of the outputs that runs over the samples: a number, a list with one for each output, or
                {output name: number}. None: the axis that the model names or declares; with a postprocess axis 0.
            outputs: as for `infer`. Only these outputs need a batch axis; a list in `batch_axis` has one number for each.

        Raises FeedError if inputs differ in the number of samples, if an output does not have one entry for each sample, or if
        the batch axis is not clear; ConfigError; and the errors of `infer`, even with on_error="return".
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.infer_batch)
        pool = self._ready_pool(None)
        description = self._description(pool)
        data = batching.as_data_set(arrays, description.inputs, self._overridable)
        size = batching.batch_size_for(data.inputs, batch_size, data.samples, len(pool.workers()), description.batches)
        wanted: list[tensor_desc] = self._picker(outputs)(description.outputs)

        def run(sets: Iterator[Any]) -> Iterator[Any]:
            return self.map(sets, mode, on_error="raise", outputs=outputs)

        return batching.infer_whole(run, data, wanted, batch_axis, size, finishes=self._finishes)

    def infer_pipeline(
        self,
        feeds_list: Any,
        mode: str = "static",
        custom_sizes: Any = 100000,
        *,
        on_error: OnError | None = None,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Any:
        """Run lists of feeds: {device id: [feeds_list, ...]} returns {device id: [[outputs, ...], ...]}.

        A plain feeds_list runs on all devices and returns [outputs, ...]. For a model of one input an element may be the array
        itself. `on_error`: "raise" the error of a set, or "return" it in place of the set's outputs; None: the session's
        setting. `outputs` as for `infer`. Raises the errors of `infer`, and any error that an iterable raises.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.infer_pipeline)
        returns = self._returns(on_error)
        number = run_feeds.mode_number(mode, custom_sizes)
        listed = self._preprocess or self._preprocessing is not None
        if not is_by_device(feeds_list):
            sets = sets_in(as_iterable("feeds_list", feeds_list, "feeds"), listed)
            return list(self.map(sets, mode, "return" if returns else "raise", outputs=outputs))
        lists = sets_by_device(feeds_list, listed)
        flat = {device: [one for feeds in several for one in feeds] for device, several in lists.items()}
        found = self._by_device(flat, lambda one, **how: self._task(one, mode=number, **how), returns)
        pick = self._picker(outputs)
        return {
            device: regroup(list(map(pick, found[device])), [len(feeds) for feeds in several])
            for device, several in lists.items()
        }

    def infer_iteration(
        self,
        feeds: Any,
        in_out_list: Sequence[int] | None = None,
        iteration_times: int = 1,
        mode: str = "static",
        custom_sizes: Any = 100000,
        mem_copy: bool = True,
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> Any:
        """Run InferSession.infer_iteration for each set in {device id: [feeds, ...]}, or for one set on any device.

        Raises ConfigError, and the errors of `infer`.
        """
        if unknown:
            raise unknown_argument(unknown, MultiDeviceSession.infer_iteration)
        run_feeds.mode_number(mode, custom_sizes)
        times = as_int("iteration_times", iteration_times, 1)
        if in_out_list is not None and times > 1:
            in_out_list = as_chain(in_out_list)

        def task(one: Any, **how: Any) -> Task:
            taken: Any = self._named(one)
            if taken is None:
                listed = run_feeds.as_feeds(one, self._inputs)
                self._warn_of(listed)
                taken = take(listed, [desc.name for desc in self._inputs])
            return Task(encode(Iterate(taken, in_out_list, times, mode)), kind=OBJECT, **how)

        if is_by_device(feeds):
            by_device = self._by_device(feeds, task, prepare=False)
            pick = self._chooser(outputs)
            return {device: list(map(pick, results)) for device, results in by_device.items()}
        pool = self._ready_pool(None)
        pick = self._chooser(outputs)
        done = pool.run(task(feeds))
        self.summary.note_one(done)
        return pick(done.result())

    def _by_device(
        self, feeds: Mapping[Any, Any], make: Callable[..., Task], returns: bool | None = None, *, prepare: bool = True
    ) -> dict[int, list[Any]]:
        """Run {device: [feeds, ...]} and return {device: [outputs, ...]}: each list on its device, all at the same time."""
        lists = lists_by_device(feeds)
        pool = self._ready_pool(lists)
        if prepare and self._preprocessing is not None:
            prepared = iter(list(self._prepared(itertools.chain(*lists.values()))))
            lists = {device: [next(prepared) for _ in several] for device, several in lists.items()}

        def place(one: Any, device: int, index: int) -> Task:
            try:
                return make(one, device=device, index=index)
            except Exception as error:
                return Task.failed(error, index, device)

        # One task of each device in turn, so that all devices start at once.
        turns = itertools.zip_longest(
            *([(device, index, one) for index, one in enumerate(several)] for device, several in lists.items())
        )
        done = pool.run_all([place(one, device, index) for turn in turns for device, index, one in filter(None, turn)])
        self.summary.note_done(done)
        results: dict[int, list[Any]] = {device: [] for device in lists}
        for task in done:
            assert task.device is not None
            results[task.device].append(_result(task, self._on_error == "return" if returns is None else returns))
        return results

    def _task(self, item: Any, index: int | None = None, mode: int = 0, device: int | None = None) -> Task:
        if self._preprocessing is not None:
            if item.named is not None:
                self._warn_of(self._in_order(item.named.feeds))
            elif item.error is None:
                self._warn_of(item.arrays[: item.feeds])
            task: Task = item.task(index, mode, device)
            return task
        key = None
        if type(item) is Keyed:
            key, item = item
        if self._preprocess:
            return Task(encode(item), mode, OBJECT, 0, device, index, key)
        assert self._rule is not None
        if self._rule.plain(item):
            return Task(item, mode, TENSORS, 0, device, index, key)
        try:
            named = self._named(item)
            if named is not None:
                return Task(encode(Named(named)), mode, OBJECT, 0, device, index, key)
            feeds = run_feeds.as_feeds(item, self._inputs)
            self._warn_of(feeds)
        except FeedError as error:
            if key is None:
                raise
            return Task.failed(error, index, device, key)
        return Task(feeds, mode, TENSORS, 0, device, index, key)

    def _named(self, feeds: Any) -> dict[str, Any] | None:
        """Return copies of feeds that only their names can identify, see `run_feeds.by_name`; None for others."""
        named = run_feeds.by_name(feeds, self._inputs, self._overridable)
        if named is None:
            return None
        self._warn_of(self._in_order(named))
        return dict(zip(named, take(list(named.values()), list(named)), strict=True))

    def _in_order(self, named: Mapping[str, Any]) -> list[Any]:
        """Return feeds by name as a list: the inputs, then the constants; None for a value that is not given."""
        return [named.get(name) for name in [*(desc.name for desc in self._inputs), *self._overridable]]

    def _warn_of(self, feeds: Sequence[Any]) -> None:
        """Give the FeedWarnings of these feeds to the caller. The worker finds the same, but can only log them.

        Raises FeedError for a wrong number of inputs, and for a value that cannot be an input.
        """
        assert self._rule is not None
        for text in self._rule.notes(feeds):
            try:
                warnings.warn(text, FeedWarning, stacklevel=_level_of_caller())
            except FeedWarning:
                self._rule.tell_again()
                raise

    def _stream(
        self, iterable: Iterable[Any], mode: str, on_error: OnError | None, *, details: bool, ordered: bool
    ) -> Iterator[Any]:
        number, returns = run_feeds.mode_number(mode), self._returns(on_error)
        iterable, details = as_iterable("iterable", iterable, "feeds"), as_bool("details", details)
        pool = self._ready_pool(None)
        start = pool.ordered if ordered else pool.unordered
        # Items that are lists are feeds already. Without a warning they need no Python code on their way.
        lists = None if self._preprocess or self._preprocessing is not None else number
        prepared = self._prepared(iterable)
        tasks = start(prepared, lambda item, index: self._task(item, index, number), lists=lists, rule=self._rule)
        if details:
            return self._detailed(tasks, returns)
        answer = _result_or_error if returns else Task.result
        return Results(tasks, answer, times=self.summary, kept=KEPT_TIMES, indexed=not ordered)

    def _prepared(self, items: Iterable[Any]) -> Iterable[Any]:
        """Return the items in the form that devices take."""
        return items if self._preprocessing is None else self._preprocessing.stream(items, self._inputs)

    def _returns(self, on_error: OnError | None) -> bool:
        return check_on_error(self._on_error if on_error is None else on_error) == "return"

    def _detailed(self, tasks: Iterable[Task], returns: bool) -> Iterator[tuple[Any, Any]]:
        """Yield (outputs, Item) of finished tasks."""
        self.summary.clear()
        try:
            for task in tasks:
                self.summary.note(task)
                yield _result(task, returns), item_of(task)
        finally:
            del tasks  # if the caller keeps an error, its traceback keeps this frame, and the stream must still end

    # ---- times ----

    def reset_summaryinfo(self) -> None:
        """Delete the times of the last call and restart the counts of `report()`. Raises SessionClosed in a forked child."""
        self.summary.clear()
        if self._pool is not None:
            self._pool.reset_times()
        if self._preprocessing is not None:
            self._preprocessing.reset_times()

    reset_sumaryinfo = reset_summaryinfo

    def report(self) -> Report:
        """Return counts and times since the start or the last reset: per device, in total, and for the workers.

        See Report. Raises SessionClosed in a forked child.
        """
        from ais_bench.session.report import Fallback, make_report

        pool = self._pool
        if pool is None:
            return make_report([], [], 0.0, {}, self.progress())
        descriptions = pool.descriptions()
        memory = {device: said[3] for device, said in descriptions.items()}
        host_memory = {device: said[5] for device, said in descriptions.items() if said[5]}
        ahead = self._preprocessing
        preprocess = None
        if ahead is not None:
            preprocess = make_report(ahead.device_infos(), ahead.workers(), ahead.wall_s(), {}, {})
        counts = pool.counts()
        hedged = counts["hedged"], counts["hedges_won"]
        shared = self._weights is not None and self._weights.started
        why = self._weights.why if self._weights is not None else ""
        weights = {device: f"not shared: {why}" if why else said[8] for device, said in descriptions.items() if shared}
        made = make_report(
            pool.device_infos(),
            pool.workers(),
            pool.wall_s(),
            memory,
            self.progress(),
            preprocess,
            host_memory,
            hedged,
            weights,
        )
        if self._provider is None:
            return dataclasses.replace(made, times_by="device" if self._runtime == "acl" else "host")
        fallback = {device: None if said[9] is None else Fallback(*said[9]) for device, said in descriptions.items()}
        return dataclasses.replace(made, provider=self._provider.name, fallback=fallback)


class _Options:
    """The arguments of a session in a pickle: by plain pickle if possible, otherwise as callables are sent to workers."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            pickle.dumps(self.given)
            return _Options, (self.given,)
        except Exception:  # a lambda, or a nested function
            return _options_again, (self._sent(),)

    def _sent(self) -> bytes:
        try:
            return dumps_by_value(self.given)  # as a whole, so an object that several options share is one object again
        except ConfigError:
            for name, value in self.given.items():
                _send(name, value)
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> _Options:
        return _Options(copy.deepcopy(self.given, memo))


def _send(name: str, value: Any) -> bytes:
    try:
        return dumps_by_value(value)
    except ConfigError as error:
        raise ConfigTypeError(
            f"a MultiDeviceSession made with {name}={value!r} cannot be pickled: {error.__cause__}; make the session where it "
            f"is needed, or give {name} something that can be pickled"
        ) from error


def _options_again(sent: bytes) -> _Options:
    return _Options(loads(sent))


def _remake(model_path: Any, options: _Options) -> MultiDeviceSession:
    return MultiDeviceSession(model_path, **options.given)


async def _each(items: Any) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item


async def _in_thread(function: Callable[[], object]) -> None:
    import asyncio  # here, because most programs do not use it

    await asyncio.get_running_loop().run_in_executor(None, function)


async def _outcome(future: Future[Any], returns: bool) -> Any:
    from ais_bench.session.awaiting import outcome

    try:
        return await outcome(future)
    except Exception as error:
        if not returns:
            raise
        return error


def _level_of_caller() -> int:
    """Return how many frames above the caller the first frame outside of this package is."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


def _packed(retry_on: tuple[type[Exception], ...], **callables: Callable[..., Any] | None) -> Packed | None:
    """Return the callables in one pickle, so an object that several of them share is one object in a worker, too."""
    given: dict[str, Any] = {name: as_callable(name, function) for name, function in callables.items() if function is not None}
    if given and retry_on:
        given["retry_on"] = retry_on
    return pack(given) if given else None


def _exception_types(given: Any) -> tuple[type[Exception], ...]:
    types = (given,) if isinstance(given, type) else tuple(as_list("retry_on", given, "exception types"))
    for one in types:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise ConfigTypeError(f"retry_on must be exception types, subclasses of Exception, got {one!r}")
    return types


def _result(task: Task, returns: bool) -> Any:
    return _result_or_error(task) if returns else task.result()


def _result_or_error(task: Task) -> Any:
    try:
        return task.result()
    except Exception as error:
        return error
