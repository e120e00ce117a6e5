"""A pygearman worker: reverse, talk, fail. Usage: worker_pygearman.py HOST PORT"""

import sys

import gearman

worker = gearman.GearmanWorker([f"{sys.argv[1]}:{sys.argv[2]}"])


def reverse(_worker, job):
    return job.data[::-1]


def talk(worker, job):
    worker.send_job_data(job, b"part")
    worker.send_job_warning(job, b"careful")
    worker.send_job_status(job, 1, 2)
    return b"whole"


def fail(_worker, _job):
    raise ValueError


worker.register_task(b"reverse", reverse)
worker.register_task(b"talk", talk)
worker.register_task(b"fail", fail)
worker.work()
