"""Images a second of the training input beside a bare decode loop and other loaders, on two cores.

    python -m benchmarks.input
    python -m benchmarks.input --images 3000 --repeats 5 --memory-epochs 0
    python -m benchmarks.input --sizes 112 --output input.json

Every way of reading goes through the same JPEG files (or shards of them) once a round, in a
random order, on the same cores: two, or `--cores`. The ways take turns in every round: read the
ratios, not the rates. The limit is a bare loop: threads that read and decode files with the
decoder that our input uses, with no order, labels or batches. `cpu` is processor time an image of
this process, which other programs on the machine disturb less (a loader's worker processes are
not in it). Loaders that are not installed are left out. At last, a process of its own shows its
memory from epoch to epoch. `--output` writes the rates for `run.py plan --input_rate`: measure
with the cores of the host to be.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtl_face.run import environment

BATCH_SIZE = 64
AHEAD = 6  # batches, at least as many as our input decodes ahead
PAUSE = 0.3  # seconds before each turn: whoever had the last one still reads ahead


def main() -> None:
    """Prints one table a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-epochs", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224], help="pixels")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file of the rates")
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.output and not options.output.parent.is_dir():
        parser.error(f"--output: there is no folder {options.output.parent}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: options.cores]))
    if options.watch:
        watch_memory(Path(options.watch), options.memory_epochs)
        return
    rates = {}
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            rates[size] = compare(Path(folder), size, options.images, options.repeats)
            if options.memory_epochs and size == options.sizes[0]:
                arguments = [f"--watch={folder}", f"--memory-epochs={options.memory_epochs}"]
                subprocess.run([sys.executable, "-m", "benchmarks.input", *arguments], check=True)
    if options.output:
        values = {"cores": cores(), "images_per_second": rates}
        options.output.write_text(json.dumps(values, indent=2) + "\n")
        print(f"\nrates: {options.output}\nnext: python run.py plan --input_rate={options.output}")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compare(folder: Path, size: int, num_images: int, repeats: int) -> dict[str, float]:
    """Writes images, measures every way of reading them; prints and returns images a second."""
    write_images(folder / "images", size, num_images)
    ways = prepare_ways(folder, size)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(repeats + 1):
        if round_number == 1:
            # As training on a CPU does. After the first batches: TensorFlow's own setting, which
            # it makes with the first generator, hands every large buffer back at once.
            environment.keep_freed_memory()
        for name, read in ways.items():
            time.sleep(PAUSE)
            settle = getattr(read, "settle", None)
            if settle:
                settle()
            begin, begin_processor = time.perf_counter(), time.process_time()
            count = read(round_number)
            assert count == num_images // BATCH_SIZE * BATCH_SIZE, (name, count)
            if round_number:  # the first warms up
                seconds[name].append((time.perf_counter() - begin) / count)
                processor[name].append((time.process_time() - begin_processor) / count)
    limit, limit_processor = seconds["bare decode loop"], processor["bare decode loop"]
    print(
        f"\n{size} x {size} JPEG, {num_images} images, {cores()} cores; medians of {repeats} rounds"
    )
    print(f"{'':34}  images/s  of the bare loop  cpu us  of the bare loop's")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(limit, values, strict=True))
        own = statistics.median(processor[name])
        more = own / statistics.median(limit_processor)
        print(
            f"{name:34}  {1 / statistics.median(values):8.0f}  {ratio:16.2f}  "
            f"{1e6 * own:6.0f}  {more:18.2f}"
        )
    return {name: 1 / statistics.median(values) for name, values in seconds.items()}


def write_images(folder: Path, size: int, num_images: int) -> None:
    """Smooth shapes with some noise: files of about the size of stored face crops."""
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(num_images):
        coarse = random.integers(0, 256, (9, 9, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
        noisy = smooth + random.normal(0, 6, smooth.shape)
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        image.save(folder / f"{index:05}.jpg", quality=90)


def make_table(folder: Path):
    """The frame table of the images that `write_images` wrote."""
    from mtl_face import tables

    names = sorted(path.name for path in (folder / "images").iterdir())
    return tables.FrameTable.from_columns(
        dataset="benchmark",
        video=["images"] * len(names),
        frame=range(len(names)),
        image=names,
        root=str(folder / "images"),
        expression=[index % 8 for index in range(len(names))],
    )


def prepare_ways(folder: Path, size: int) -> dict[str, Callable[[int], int]]:
    """Name -> function of the round's number that reads one epoch and returns the images read."""
    from data_pipeline import input, order, records, shards

    table = make_table(folder)
    paths = table.paths()
    batches = len(table) // BATCH_SIZE
    rows = order.Permutations(len(table), 0)

    def ours(source) -> Callable[[int], int]:
        # One stream over all rounds, as in training.
        stream = input.train_batches(
            table, batch_size=BATCH_SIZE, image_size=size, rows=rows, source=source
        )

        def read(round_number: int) -> int:
            del round_number
            return sum(len(batch["image"]) for batch in itertools.islice(stream, batches))

        # What was read ahead while others had their turn must not count.
        read.settle = lambda: collections.deque(itertools.islice(stream, AHEAD), maxlen=0)
        return read

    written = {
        kind: shards.write({"train": table}, folder / kind, file_format=kind)
        for kind in shards.FILE_FORMATS
    }
    ways = {
        "bare decode loop": bare_loop(paths, batches, size),
        "ours, from files": ours(None),
        **{
            f"ours, from shards ({kind})": ours(records.Records(path, "train"))
            for kind, path in written.items()
        },
        "ours, from memory": ours(input.decode_all(table, image_size=size)),
    }
    for peer in (torch_loader, grain_loader):
        try:
            ways |= peer(paths, batches, size)
        except ModuleNotFoundError as error:
            print(f"left out: {error}")
    return ways


def bare_loop(paths: list[str], batches: int, size: int) -> Callable[[int], int]:
    """As many threads as cores, each reading and decoding files with TensorFlow's JPEG decoder."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def decode(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def decode_many(part: tf.Tensor) -> tf.Tensor:
        """A loop in the graph: no Python between two images."""
        total = tf.constant(0)
        for path in part:
            total += tf.shape(decode(path))[0]
        return total

    pool = concurrent.futures.ThreadPoolExecutor(cores())

    def read(round_number: int) -> int:
        chosen = np.random.default_rng(round_number).permutation(len(paths))[: batches * BATCH_SIZE]
        parts = [[paths[row] for row in chosen[start :: cores()]] for start in range(cores())]
        return sum(int(total) // size for total in pool.map(decode_many, map(tf.constant, parts)))

    return read


def torch_loader(paths: list[str], batches: int, size: int) -> dict[str, Callable[[int], int]]:
    """PyTorch's DataLoader with Pillow, in this process and with a worker per core."""
    import torch.utils.data

    torch.set_num_threads(1)
    files = _PillowFiles(paths)

    def loader(workers: int) -> Callable[[int], int]:
        data = torch.utils.data.DataLoader(
            files,
            batch_size=BATCH_SIZE,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="forkserver" if workers else None,
        )
        return lambda round_number: sum(len(batch) for batch in data)

    return {f"torch DataLoader, {count} workers": loader(count) for count in (0, cores())}


class _PillowFiles:
    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            return np.array(image.convert("RGB"))


def grain_loader(paths: list[str], batches: int, size: int) -> dict[str, Callable[[int], int]]:
    """Grain with its reading threads, and Pillow."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["benchmark"])
    import grain.python as grain

    files = _PillowFiles(paths)

    def read(round_number: int) -> int:
        data = (
            grain.MapDataset.source(files)
            .shuffle(seed=round_number)
            .batch(BATCH_SIZE, drop_remainder=True)
        )
        threads = grain.ReadOptions(num_threads=cores(), prefetch_buffer_size=2)
        return sum(len(batch) for batch in data.to_iter_dataset(threads))

    return {f"grain, {cores()} threads": read}


def watch_memory(folder: Path, epochs: int) -> None:
    """Resident memory after each epoch from files, in a process that does nothing else."""
    from data_pipeline import input, order

    table = make_table(folder)
    stream = input.train_batches(
        table, batch_size=BATCH_SIZE, rows=order.Permutations(len(table), 0)
    )
    resident = []
    for _ in range(epochs):
        for _batch in itertools.islice(stream, -(-len(table) // BATCH_SIZE)):
            pass
        resident.append(resident_mib())
    print("resident memory (MiB) after each epoch: " + " ".join(f"{mib:.0f}" for mib in resident))


def resident_mib() -> float:
    """MiB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
