"""A script that spools rows and never deletes them: `test_spooled_data.py` runs it."""

import json
import os
import signal
import sys

import numpy as np

from kspark.data import spool
from kspark.errors import ClusterError
from kspark.session import local_session

if __name__ == "__main__":
    spark = local_session(cores=2)
    rows = spool(np.ones((20, 3)), np.zeros(20))
    told = {"folders": [folder for _, folder in rows.places if os.path.isdir(folder)]}
    if sys.argv[1] == "killed":
        print(json.dumps(told), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    other = spool(np.ones((20, 3)))
    told["folders"] += [folder for _, folder in other.places]
    spark.stop()
    try:
        rows.check_open()
    except ClusterError as error:
        told["stopped"] = str(error)
    other.close()
    print(json.dumps(told))
