"""The paged backend: index arithmetic, an emulated kernel on the CPU, the real one on a GPU.

Guards against a token that reads or writes another's slot, and steps on a GPU that are recorded
anew each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mod.engine.cache import Memory, PagedCache
from mod.engine.engine import Engine
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded
from mod.engine.graphs import DecodeGraphs, Recorder
from mod.engine.paged import DeviceTables, Kernel, PagedStep, kernel_for, triton_kernel
from mod.engine.policy import Policy, Retrieve, Window
from mod.engine.tables import bucket, decode_bucket, tables
from tests.mod.engine.models import drain, talking_model
from tests.mod.small import some_frames

FRAMES = some_frames(60, seed=9)
MAX_NEW = 3


def emulated(
    query: Tensor, keys: Tensor, values: Tensor, step: DeviceTables, scaling: float
) -> Tensor:
    """What the paged call promises, in plain torch: pages first, then one sequence at a time."""
    out = torch.empty_like(query)
    starts = step.starts.tolist()
    for i, used in enumerate(step.used.tolist()):
        pages = step.pages[i].long()
        k = keys[pages].flatten(0, 1)[:used]
        v = values[pages].flatten(0, 1)[:used]
        q = query[starts[i] : starts[i + 1]]
        # Causal, aligned at the end: the last query sees every key.
        mask = torch.ones(len(q), used, dtype=torch.bool, device=q.device).tril(used - len(q))
        seen = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            attn_mask=mask,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        out[starts[i] : starts[i + 1]] = seen[0].transpose(0, 1)
    return out


def replayed(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A recording on the CPU: the function again, over the tensors it was given first."""
    return run


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=6),
    st.sampled_from([1, 4, 7]),
)
def test_every_token_has_a_slot_of_its_own_where_its_page_says(
    spans: list[tuple[int, int]], size: int
) -> None:
    pages, free = [], iter(range(1000, 0, -1))
    for held, new in spans:
        pages.append([next(free) for _ in range(-(-(held + new) // size) + 1)])
    step = tables(pages, [a for a, _ in spans], [b for _, b in spans], size)
    assert len(set(step.slots)) == len(step.slots) == step.starts[-1] == sum(b for _, b in spans)
    assert step.longest_new == max(b for _, b in spans)
    assert len({len(row) for row in step.pages}) == 1
    for i, (held, new) in enumerate(spans):
        mine = step.slots[step.starts[i] : step.starts[i + 1]]
        for offset, slot in enumerate(mine):
            row, inside = divmod(held + offset, size)
            assert slot == step.pages[i][row] * size + inside
        assert step.used[i] == held + new <= len(step.pages[i]) * size


def test_pages_that_are_missing_are_noticed() -> None:
    with pytest.raises(ValueError, match="1 pages of 4 do not hold 5 tokens"):
        tables([[3]], [4], [1], 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=20))
def test_a_decode_step_is_filled_up_with_its_last_sequence(held: list[int]) -> None:
    pages = [list(range(100 * i, 100 * i + n // 4 + 1)) for i, n in enumerate(held)]
    step = tables(pages, held, [1] * len(held), 4)
    full = decode_bucket(step)
    n = len(held)
    assert len(full.used) == len(full.slots) == len(full.pages) == bucket(n)
    assert bucket(n) < 2 * n
    assert len(full.pages[0]) == bucket(len(step.pages[0]))
    assert full.slots[:n] == step.slots
    assert set(full.slots[n:]) <= {step.slots[-1]}
    assert set(full.used[n:]) <= {step.used[-1]}
    assert [row[: len(step.pages[0])] for row in full.pages[:n]] == step.pages


def test_only_steps_of_one_token_a_sequence_are_filled_up() -> None:
    with pytest.raises(ValueError, match="no step of one token"):
        decode_bucket(tables([[0], [1]], [0, 0], [1, 2], 4))


def _engine(kernel: Kernel | None, recorder: Recorder | None, megabytes: float = 8.0) -> Engine:
    model, layout = talking_model()
    memory = Memory(model.config, int(megabytes * 2**20), page_size=8)
    return Engine(model, layout, memory, step_tokens=160, kernel=kernel, recorder=recorder)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3), st.integers(1, 14)),
        st.tuples(st.just("push"), st.integers(0, 3), st.integers(1, 14)),
        st.tuples(st.just("ask"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.integers(1, 4)),
        st.tuples(st.just("evict"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("fork"), st.integers(0, 3), st.just(0)),
    ),
    min_size=3,
    max_size=18,
)
POLICIES: list[Policy | None] = [
    None,
    Window(frames=8, block=4, text=12),
    Retrieve(frames=8, block=4, text=12, blocks=2),
]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(OPERATIONS, st.sampled_from(POLICIES), st.sampled_from([0.4, 8.0]))
def test_paged_steps_and_recordings_say_what_sdpa_says(
    operations: list[tuple[str, int, int]], policy: Policy | None, megabytes: float
) -> None:
    """Guards tables, slots, shared pages, retrieved rows and the filling up of recordings."""
    sides = [
        _engine(None, None, megabytes),
        _engine(emulated, None, megabytes),
        _engine(emulated, replayed, megabytes),
    ]
    told: list[list[Event]] = [[], [], []]
    for engine, events in zip(sides, told, strict=True):
        names = ["s0", "s1"]
        for name in names:
            engine.open(name, max_new_tokens=MAX_NEW, policy=policy)
        for number, (kind, which, amount) in enumerate(operations):
            name = names[which % len(names)]
            if kind == "push":
                engine.push(name, FRAMES[number : number + amount])
            elif kind == "ask":
                engine.ask(name, f"q{number}", f"q{number}")
            elif kind == "evict":
                engine.evict(name)
            elif kind == "step":
                for _ in range(amount):
                    events += engine.step()
            elif len(names) < 4:
                events += drain(engine)
                engine.fork(name, f"s{len(names)}")
                names.append(f"s{len(names)}")
        events += drain(engine)
    ours, *others = [_decided(events) for events in told]
    words = [[e for e in events if isinstance(e, TurnEnded)] for events in told]
    for number, theirs in enumerate(others, start=1):
        assert [e[:3] for e in ours] == [e[:3] for e in theirs]
        assert [e[3] for e in ours] == pytest.approx([e[3] for e in theirs], abs=1e-5)
        assert words[0] == words[number]


def _decided(events: list[Event]) -> list[tuple[str, int, bool, float]]:
    assert not any(isinstance(e, Failed) for e in events)
    return [(e.session, e.frame, e.speaks, e.p_silence) for e in events if isinstance(e, FrameSeen)]


@pytest.mark.slow
def test_recordings_are_made_once_for_sizes_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(emulated, replayed)
    runs = []
    original = DecodeGraphs.run

    def counted(self: DecodeGraphs, *args: object) -> Tensor:
        out = original(self, *args)  # type: ignore[arg-type]
        runs.append(self.n_recorded)
        return out

    monkeypatch.setattr(DecodeGraphs, "run", counted)
    for number in range(5):
        engine.open(f"s{number}", max_new_tokens=30)
        engine.ask(f"s{number}", "q", f"question {number}")
    drain(engine)
    assert len(runs) > 20
    # Sizes 8, 4, 2, 1 at most, in a few widths of page tables.
    assert runs[-1] <= 10


@pytest.mark.slow
def test_a_step_without_room_leaves_no_trace() -> None:
    engine = _engine(emulated, None, 0.05)
    engine.open("big", max_new_tokens=1)
    engine.push("big", FRAMES)
    engine.open("small", max_new_tokens=1)
    engine.push("small", FRAMES[:1])
    events = drain(engine)
    assert any("no longer fits" in e.error for e in events if isinstance(e, Failed))
    assert any(isinstance(e, FrameSeen) and e.session == "small" for e in events)
    for name in ("big", "small"):
        engine.close(name)
    assert engine.memory.used_bytes == 0


def test_on_a_cpu_there_is_no_kernel() -> None:
    model, _ = talking_model()
    for dtype in (torch.float32, torch.bfloat16):
        assert kernel_for(Memory(model.config, 2**20, page_size=128, dtype=dtype), 4) is None


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
#: Triton runs on a CPU as well, slowly: TRITON_INTERPRET=1.
CARD = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(
    CARD.type == "cpu" and not (find_spec("triton") and os.environ.get("TRITON_INTERPRET")),
    reason="no CUDA device, and no Triton that is told to interpret",
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("splits", [None, 1, 2, 8])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(8, 2, 64), (4, 2, 24), (4, 1, 128), (14, 2, 128)]
)
@pytest.mark.parametrize("new", [[1, 1, 1], [5, 1, 300], [2, 0, 17]])
def test_the_kernel_equals_its_emulation(
    new: list[int], heads: int, kv_heads: int, dim: int, splits: int | None, dtype: torch.dtype
) -> None:
    """Ragged steps, any grouping of heads, keys split among programs that may see none of them."""
    from mod.engine.kernels import paged_attention

    if splits is None and CARD.type == "cpu":
        pytest.skip("the card decides")
    torch.manual_seed(0)
    pages, before = [[7, 2, 11, 13], [4], [0, 9, 5, 1]], [400, 3, 200]
    step = DeviceTables.of(tables(pages, before, new, 128), 128, CARD)
    keys, values = (torch.randn(14, 128, kv_heads, dim, dtype=dtype, device=CARD) for _ in range(2))
    query = torch.randn(sum(new), heads, dim, dtype=dtype, device=CARD)
    ours = paged_attention(
        query,
        keys,
        values,
        step.starts,
        step.used,
        step.pages,
        max_new=step.max_new,
        max_used=step.max_used,
        scaling=0.125,
        splits=splits,
    )
    wanted = emulated(query, keys, values, step, 0.125)
    # On a card products of float32 are rounded to TF32.
    torch.testing.assert_close(ours, wanted, atol=2e-2, rtol=0)


@needs_gpu
def test_a_pool_on_cuda_selects_a_kernel() -> None:
    model, layout = talking_model()
    half = type(model)(model.config).eval()
    half.load_state_dict(model.state_dict())
    half = half.to(device="cuda", dtype=torch.bfloat16)
    told = []
    for page_size in (128, 32):
        memory = Memory(
            half.config,
            64 * 2**20,
            page_size=page_size,
            dtype=torch.bfloat16,
            device=torch.device("cuda"),
        )
        # Pages too small for the kernel are read session by session.
        assert kernel_for(memory, 4) is (triton_kernel if page_size == 128 else None)
        engine = Engine(half, layout, memory)
        engine.open("a", max_new_tokens=MAX_NEW)
        engine.push("a", FRAMES[:20])
        events = drain(engine)
        assert not any(isinstance(e, Failed) for e in events)
        told.append([e.p_silence for e in events if isinstance(e, FrameSeen)])
    assert told[0][0] == pytest.approx(told[1][0], abs=2e-2)


def test_a_step_over_pages_holds_what_append_would() -> None:
    """Guards the indexed write: keys and values lie where a session's own cache reads them."""
    model, _ = talking_model()
    memory = Memory(model.config, 2**20, page_size=4)
    plain, paged = PagedCache(memory), PagedCache(memory)
    generator = torch.Generator().manual_seed(0)
    for count in (5, 1, 9):
        step = PagedStep(memory, emulated, [paged], [[count] for _ in memory.classes])
        for layer in range(4):
            key, value = (torch.randn(2, count, 8, generator=generator) for _ in range(2))
            query = torch.randn(4, count, 8, generator=generator)
            out = step.attend(layer, query, key, value, 0.3)
            k, v = plain.append(layer, key, value)
            wanted = F.scaled_dot_product_attention(
                query[None],
                k[None],
                v[None],
                attn_mask=torch.ones(count, k.shape[1], dtype=torch.bool).tril(k.shape[1] - count),
                scale=0.3,
                enable_gqa=True,
            )
            torch.testing.assert_close(out, wanted[0].transpose(0, 1))
            assert all(torch.equal(a, b) for a, b in zip(paged.read(layer), (k, v), strict=True))
    assert plain.lengths == paged.lengths
