"""Files of rows, without the JVM: Parquet files, read and written with pyarrow, and TFRecord files.

```
paths.py        a path → a file system of pyarrow, also by way of fsspec
listing.py      paths, patterns and folders → data files, as Spark finds them
table_formats.py  folders of Delta Lake, Hudi and Iceberg, which are refused
partitions.py   folders named `key=value` → columns of Spark's types
types.py        Arrow's types → Spark's; what the two would read differently is refused
footers.py      data files → schemas and row groups, without reading a row
table.py        `ParquetFiles`: what was found, as one table; the choice of its columns
filter_values.py  values of filters → the types of their columns
filters.py      rows to read: which columns, which row groups
splits.py       row groups → one list of pieces per shard, even by rows
reading.py      pieces → record batches, in bounded memory
writing.py      record batches → one file
other_formats.py  other kinds of files: the line of code that reads each
records.py      TFRecord files, and which worker reads which records
commit.py       the files of all tasks → a folder, as a whole or not at all
```

The driver reads footers and moves files; tasks read and write rows.
"""
