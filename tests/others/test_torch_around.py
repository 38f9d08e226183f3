"""What a program has around the module: workers, threads, processes, distributed training, whole scripts."""

import multiprocessing
import subprocess
import sys
import threading

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import accelerated, assert_close, inputs, pair, parts, results, swapped, under_test, warm  # noqa: E402

forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


class Encoded(torch.utils.data.Dataset):
    """Rows that a frozen module has been run over, in whichever process asks."""

    def __init__(self, module, rows):
        self.module, self.rows = module, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, n):
        with torch.no_grad():
            return self.module(self.rows[n])[1][0]


@forks
@pytest.mark.parametrize("make", [swapped, accelerated])
def test_inside_the_workers_of_a_data_loader(make):
    ours, theirs = pair(3, 40, make=make)
    rows = torch.randn(12, 20, 3, dtype=torch.float64)
    warm(ours)  # so that whatever starts threads has done so before the fork
    found = []
    for module in (ours, theirs):
        loader = torch.utils.data.DataLoader(
            Encoded(module, rows), batch_size=4, num_workers=2, multiprocessing_context="fork"
        )
        found.append([torch.cat(list(loader))])
    assert_close(*found)
    assert_close(results(ours, rows, None), results(theirs, rows, None))


def train_in_child(module, x, queue):
    queue.put([part.numpy() for part in results(module, x, None).values()])


@forks
def test_trained_in_a_forked_process():
    ours, theirs = pair(3, 40)
    x = torch.randn(20, 8, 3, dtype=torch.float64)
    results(ours, x, None)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=train_in_child, args=(ours, x, queue))
    process.start()
    got = [torch.from_numpy(part) for part in queue.get(timeout=60)]
    process.join()
    assert_close(got, list(results(theirs, x, None).values()))


def test_many_threads_call_one_module():
    """In training and without gradients at once, short calls and long ones."""
    ours, theirs = pair(3, 40, 2)
    given = [inputs(theirs, T, B, "time-major") for T, B in ((1, 1), (5, 1), (16, 1), (20, 4))]
    expected, failures = [parts(theirs(*each)) for each in given], []

    def call(grads):
        try:
            for _ in range(30):
                for each, right in zip(given, expected, strict=True):
                    with torch.set_grad_enabled(grads):
                        assert_close(parts(ours(*each)), right)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(n % 2 == 0,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_backward_passes_in_other_threads():
    ours, theirs = pair(3, 40)
    x = torch.randn(20, 4, 3, dtype=torch.float64)
    losses = [ours(x * n)[0].pow(2).sum() for n in (1, 2, 3)]
    threads = [threading.Thread(target=loss.backward) for loss in losses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sum(theirs(x * n)[0].pow(2).sum() for n in (1, 2, 3)).backward()
    assert_close({n: p.grad for n, p in ours.named_parameters()}, {n: p.grad for n, p in theirs.named_parameters()})


@pytest.mark.parametrize("make", [swapped, accelerated])
def test_distributed_data_parallel(make, tmp_path):
    """One process stands for many: buckets, hooks on parameters and the reducer are the same."""
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        ours, theirs = pair(3, 9, 2, make=make)
        kept = list(ours.parameters())
        wrapped = torch.nn.parallel.DistributedDataParallel(ours)
        assert all(a is b for a, b in zip(kept, wrapped.module.parameters(), strict=True))
        optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (wrapped, theirs)]
        for _ in range(3):
            x, hx = inputs(theirs, 8, 3, "time-major")
            for module, optimizer in zip((wrapped, theirs), optimizers, strict=True):
                optimizer.zero_grad()
                module(x, hx)[0].pow(2).sum().backward()
                optimizer.step()
        assert_close(list(ours.parameters()), list(theirs.parameters()))
    finally:
        distributed.destroy_process_group()


def test_replicas_as_data_parallel_makes_them():
    """nn.DataParallel copies a module without its parameters and sets tensors in their place."""
    ours, theirs = pair(3, 9)
    warm(ours)
    x = torch.randn(20, 2, 3, dtype=torch.float64)
    found = []
    for module in (ours, theirs):
        replica = module._replicate_for_data_parallel()
        for name, parameter in module.named_parameters():
            setattr(replica, name, parameter * 0.5)
        replica._parameters = {}
        module.zero_grad()
        y = replica(x)[0]
        y.pow(2).sum().backward()
        found.append([y.detach(), *(p.grad for p in module.parameters()), module(x)[0].detach()])
    assert_close(*found)


@pytest.mark.parametrize("module", ["torch.nn", "cylstm.torch"])
def test_importing_and_calling_leaves_torchs_settings_alone(module):
    """Threads, default types, deterministic mode and the dispatch of other modules: as without us."""
    code = f"""if True:
        import torch
        def settings():
            return (torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(),
                    torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(),
                    torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled, torch.get_rng_state().sum())
        torch.manual_seed(1)
        x = torch.randn(20, 2, 3)
        before = settings()
        from {module} import LSTM
        state = torch.get_rng_state()
        lstm = LSTM(3, 4)
        torch.set_rng_state(state)
        lstm(x)[0].sum().backward()
        assert settings() == before, (settings(), before)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


class Tagger(torch.nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.embedding, self.lstm, self.head = torch.nn.Embedding(20, 16), lstm, torch.nn.Linear(64, 20)

    def forward(self, ids, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.embedding(ids), lengths, batch_first=True, enforce_sorted=False
        )
        y, _ = self.lstm(packed)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
        return self.head(torch.nn.functional.dropout(y, 0.2, self.training))


@pytest.mark.parametrize("make", [swapped, accelerated])
def test_a_whole_training_gives_the_same_losses(make):
    """Packed rows, dropout between layers and after, clipping, a schedule, evaluation in between."""
    curves = []
    for maker in (make, torch.nn.LSTM):
        torch.manual_seed(3)
        net = Tagger(maker(16, 32, 2, batch_first=True, bidirectional=True, dropout=0.3))
        optimizer, losses = torch.optim.AdamW(net.parameters(), lr=3e-3, fused=True), []
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)
        for _ in range(15):
            ids, lengths = torch.randint(20, (6, 12)), torch.randint(1, 13, (6,))
            lengths[0] = 12
            loss = torch.nn.functional.cross_entropy(net.train()(ids, lengths).flatten(0, 1), ids.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                losses += [loss.item(), net.eval()(ids[:1], lengths[:1]).pow(2).sum().item()]
        curves.append(losses)
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_a_module_of_ours_is_torchs():
    assert issubclass(under_test.LSTM, torch.nn.LSTM) and issubclass(under_test.LSTMCell, torch.nn.LSTMCell)
    ours, theirs = pair(3, 9, 2, bidirectional=True, batch_first=True)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_modules()] == [""] and not list(ours.buffers())
