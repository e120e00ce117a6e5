"""A pygearman worker at several servers: reverse. Usage: worker.py HOST:PORT,HOST:PORT"""

import sys

import gearman

worker = gearman.GearmanWorker(sys.argv[1].split(","))
worker.register_task(b"reverse", lambda _worker, job: job.data[::-1])
worker.work(poll_timeout=1.0)
