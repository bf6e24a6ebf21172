"""What a session does to have its runs captured: memory that stays in place, and whose it is meanwhile.

A CPU captures nothing, but reads and writes the same places; the GPU's own part is in tests/gpu.
"""

import dataclasses
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from layers import mixed
from networks import cnn, picture

import revgraph
from revgraph import RevgraphError, capture
from revgraph import session as session_module
from revgraph.runtime import Device


@pytest.fixture
def places(monkeypatch) -> list[capture.Place]:
    """Sessions treat the CPU as a GPU; the places that they make."""
    made, alone = [], threading.RLock()

    class Noted(capture.Place):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(session_module, "capturable", lambda pair, device: True)
    monkeypatch.setattr(session_module, "exclusive", lambda device: alone)
    monkeypatch.setattr(capture, "Place", Noted)
    return made


@pytest.fixture(scope="module")
def pair() -> revgraph.Compiled:
    return revgraph.compile(mixed(), variant="desalinet", target="cuda")


def x_of(seed: int, n: int = 1) -> np.ndarray:
    return picture(n, 4, 9, 9, seed=seed)


def p_of(seed: int, rows: int = 1) -> np.ndarray:
    return picture(rows, 5, seed=seed)


def expected(pair: revgraph.Compiled, x: np.ndarray, p: np.ndarray) -> np.ndarray:
    session = revgraph.Session(pair, cuda_graph=False)
    return session.reverse(session.forward(x), p)


def test_what_is_met_again_is_captured(pair, places):
    session = revgraph.Session(pair)
    for i in range(4):
        x_hat = session.reverse(session.forward(x_of(i)), p_of(i))
        np.testing.assert_array_equal(x_hat, expected(pair, x_of(i), p_of(i)))
        # The forward graph on the second call; the reversed one once it has met that place twice.
        assert len(places) == (0, 1, 2, 2)[i]


def test_other_numbers_of_images_and_rows_are_other_captures(pair, places):
    session = revgraph.Session(pair)
    for i in range(3):
        for n, rows in (1, 1), (1, 3), (2, 2), (1, 7):
            x, p = x_of(i, n), p_of(i, rows)
            x_hat = session.reverse(session.forward(x), p)
            np.testing.assert_allclose(x_hat, expected(pair, x, p), rtol=1e-5, atol=1e-6)
    assert len(places) > 4


def test_traces_that_live_keep_their_bottleneck(pair, places):
    """And the last of several is reversed first."""
    session = revgraph.Session(pair)
    traces = [session.forward(x_of(i)) for i in range(4)]
    for _ in range(3):
        for i in (3, 0, 2, 1):
            x_hat = session.reverse(traces[i], p_of(i))
            np.testing.assert_array_equal(x_hat, expected(pair, x_of(i), p_of(i)))
    assert [trace.lease is not None for trace in traces] == [False, True, True, True]


def test_places_are_used_again(pair, places):
    session = revgraph.Session(pair)
    kept = []
    for i in range(12):
        trace = session.forward(x_of(i))
        kept.append((trace.y, session.reverse(trace, p_of(i)), session.reverse_on_device(trace, p_of(i))))
        del trace
        gc.collect()
    assert len(places) == 2
    for i, (y, x_hat, on_device) in enumerate(kept):
        whole = revgraph.Session(pair, cuda_graph=False)
        np.testing.assert_array_equal(y, whole.forward(x_of(i)).y)
        np.testing.assert_array_equal(x_hat, expected(pair, x_of(i), p_of(i)))
        np.testing.assert_array_equal(on_device.numpy(), x_hat)


def test_a_copy_of_a_trace_keeps_its_bottleneck_too(pair, places):
    session = revgraph.Session(pair)
    session.forward(x_of(0))
    copy = dataclasses.replace(session.forward(x_of(1)))
    gc.collect()
    session.forward(x_of(2))
    np.testing.assert_array_equal(session.reverse(copy, p_of(1)), expected(pair, x_of(1), p_of(1)))


def test_what_fails_to_be_captured_runs_all_the_same(pair, places, monkeypatch):
    """And is not tried again."""
    tried = []

    def failing(place, feeds):
        tried.append(place)
        raise RevgraphError("onnxruntime cannot run this network", "cudaErrorStreamCaptureUnsupported", "")

    monkeypatch.setattr(capture.Place, "replay", failing)
    session = revgraph.Session(pair)
    for i in range(5):
        x_hat = session.reverse(session.forward(x_of(i)), p_of(i))
        np.testing.assert_array_equal(x_hat, expected(pair, x_of(i), p_of(i)))
    assert len(tried) == 1  # of the forward graph; the reversed one has no place to read from


def test_a_gpu_is_for_one_thread_at_a_time_of_whatever_session():
    assert capture.exclusive(Device("cuda", 1)) is capture.exclusive(Device("cuda", 1))
    assert capture.exclusive(Device("cuda", 1)) is not capture.exclusive(Device("cuda", 0))
    with capture.exclusive(Device("cuda")), capture.exclusive(Device("cuda")):
        pass  # the same thread again
    assert not hasattr(capture.exclusive(Device("cpu")), "acquire")


def test_no_more_than_so_many(pair, places, monkeypatch):
    monkeypatch.setattr(capture, "MOST", 2)
    session = revgraph.Session(pair)
    for _ in range(3):
        for n in 1, 2, 3, 4:
            x, p = x_of(n, n), p_of(n, n)
            x_hat = session.reverse(session.forward(x), p)
            np.testing.assert_allclose(x_hat, expected(pair, x, p), rtol=1e-5, atol=1e-6)
    assert len(places) == 2 + 2  # of the forward graph, and of the reversed one


def test_threads_wait_for_each_other(pair, places):
    session = revgraph.Session(pair)

    def x_hat(i):
        return session.reverse(session.forward(x_of(i)), p_of(i))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(x_hat, range(40)))
    for i, each in enumerate(found):
        np.testing.assert_array_equal(each, expected(pair, x_of(i), p_of(i)))


def test_each_capture_has_its_number_and_what_is_not_captured_has_none(pair, places, monkeypatch):
    runs = []
    run = capture.run
    monkeypatch.setattr(capture, "run", lambda *given: runs.append(given[-1]) or run(*given))
    session = revgraph.Session(pair)
    for i in range(5):
        session.reverse(session.forward(x_of(i)), p_of(i))
    found = [place._options.get_run_config_entry("gpu_graph_id") for place in places]
    assert len(set(found)) == len(places) == 2
    assert "-1" not in found
    assert {options.get_run_config_entry("gpu_graph_id") for options in runs} == {"-1"}


def test_layers_are_never_captured(pair, places):
    """They stay open with everything as an output, and lie in onnxruntime's memory."""
    session = revgraph.Session(pair)
    for i in range(3):
        session.layers(x_of(i), p_of(i))
    assert places == []


def test_what_cannot_be_captured_runs_all_the_same(pair, places, monkeypatch):
    """A node of the model that no GPU runs: onnxruntime refuses to open such a graph for capture."""
    opened, open_light = [], session_module.open_light

    def refusing(*given):
        opened.append(len(given) == 6)
        if opened[-1]:
            raise RevgraphError("onnxruntime cannot run this network", "not all on CUDA", "")
        return open_light(*given)

    monkeypatch.setattr(session_module, "open_light", refusing)
    session = revgraph.Session(pair)
    for i in range(3):
        x_hat = session.reverse(session.forward(x_of(i)), p_of(i))
        np.testing.assert_array_equal(x_hat, expected(pair, x_of(i), p_of(i)))
    assert places == []
    assert opened.count(True) == 2


def test_an_error_in_a_replay_is_one_line(pair, places):
    session = revgraph.Session(pair)
    for i in range(2):
        trace = session.forward(x_of(i))
    places[0]._binding.clear_binding_inputs()
    del trace
    gc.collect()
    with pytest.raises(RevgraphError, match="onnxruntime cannot run this network"):
        session.forward(x_of(3))


@pytest.mark.parametrize(
    ("target", "device", "possible"),
    [
        ("cuda", "cuda", True),
        ("tensorrt", "cuda:1", True),
        ("web", "cuda", True),
        ("portable", "cuda", False),
        ("cpu", "cuda", False),
        ("cuda", "cpu", False),
    ],
)
def test_graphs_are_for_gpus_and_what_is_compiled_for_them(target, device, possible):
    pair = revgraph.compile(cnn(), variant="salinet", target=target)
    assert capture.capturable(pair, Device.of(device)) is possible


def test_onnxruntime_is_asked_for_it():
    for wanted in False, True:
        ((_, options),) = Device("cuda", 1).providers(wanted)
        assert options == {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": str(int(wanted))}
