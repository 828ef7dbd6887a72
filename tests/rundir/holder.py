"""A process that takes a folder's lock, says so, and waits to be killed: ``holder.py ROOT``."""

import sys
import time

from physfed_ray.rundir import lock

if __name__ == "__main__":
    lock.RENEW_S = 0.3
    with lock.alone(sys.argv[1]):
        print("held", flush=True)
        time.sleep(300)
