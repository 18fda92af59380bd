"""Memory of the driver in rounds of many shards, with and without the tree.

    python benchmarks/driver_memory.py

A perceptron of 100 MB with plain SGD, four rows per shard, two executors of a core
each: processes of their own, so that the driver's memory is the driver's. Each case runs in a
fresh process. Measured are the largest resident sizes of the driver's Python process, where
weights are merged, and of its JVM, through which results pass. The JVM may take up to `--heap`
before it collects its garbage, so that its size says what it took, and not what it needs.

Without the tree (`kspark.job.tree`), every shard's delta comes to the driver.
"""

from __future__ import annotations

from runs import Case, Result, arguments, chosen, run_case, shown, versions

SHARDS = (4, 16, 36)
SCRIPT = "driver_memory_case.py"


def cases(megabytes: float, heap: int, epochs: int) -> dict[str, Case]:
    """Everything that can be measured, by name."""
    found = {}
    for shards in SHARDS:
        for tree in (True, False):
            case = {"shards": shards, "tree": tree, "megabytes": megabytes, "heap": f"{heap}g"}
            case["epochs"] = epochs
            if shards >= 16 or not tree:
                name = f"{shards}/{'tree' if tree else 'plain'}"
                found[name] = {"engine": "kspark", **case}
    return found


def row(case: Case, result: Result) -> str:
    """A line of the table."""
    told = [shown(result.get(key), "{:,.0f}") for key in ("python", "jvm", "seconds")]
    if "failed" in result:
        told = [result["failed"].replace("|", "/"), "–", "–"]
    cells = [str(case["shards"]), "yes" if case["tree"] else "no", *told]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    options = arguments(__doc__, megabytes=100.0, heap=9, epochs=2)
    found = cases(options.megabytes, options.heap, options.epochs)
    print(f"{versions()}; weights of {options.megabytes:g} MB\n")
    print("| shards | tree | driver's Python, MB | its JVM, MB | seconds |")
    print("|--:|---|--:|--:|--:|", flush=True)
    for case in chosen(found, options.only).values():
        print(row(case, run_case(SCRIPT, case, options.timeout)), flush=True)


if __name__ == "__main__":
    main()
