"""The line of code that reads a file of another format than Parquet."""

from __future__ import annotations

IMAGES = 'spark.read.format("image").load(folder)'

READERS = {
    ".csv": "spark.read.csv(path, header=True, inferSchema=True)",
    ".tsv": "spark.read.csv(path, sep='\\t', header=True, inferSchema=True)",
    ".json": "spark.read.json(path)",
    ".jsonl": "spark.read.json(path)",
    ".ndjson": "spark.read.json(path)",
    ".txt": "spark.read.text(path)",
    ".orc": "spark.read.orc(path)",
    ".avro": 'spark.read.format("avro").load(path)',
    ".tfrecord": "kspark.data.tfrecord(path, features)",
    ".tfrecords": "kspark.data.tfrecord(path, features)",
    ".png": IMAGES,
    ".jpg": IMAGES,
    ".jpeg": IMAGES,
    ".arrow": "pyarrow.feather.read_table(path)",
    ".feather": "pyarrow.feather.read_table(path)",
    ".xlsx": "pandas.read_excel(path)",
    ".h5": "h5py.File(path)[name]",
    ".hdf5": "h5py.File(path)[name]",
    ".mat": "scipy.io.loadmat(path)[name]",
    ".pkl": "pandas.read_pickle(path)",
    ".pickle": "pandas.read_pickle(path)",
    ".pt": "torch.load(path)",
}
"""The line that reads a file, by the ending of its name."""

COMPRESSED = (".gz", ".bz2", ".zst", ".xz")


def way_to_read(path: str) -> str:
    """Return a sentence that says how to read a file, to add to an error; `""` if unknown."""
    name = path.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    reader = next((line for ending, line in READERS.items() if name.endswith(ending)), None)
    return "" if reader is None else f". Read it with `{reader}`, and pass the result"
