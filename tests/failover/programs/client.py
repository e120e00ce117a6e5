"""A pygearman client of several servers. Usage: client.py HOST:PORT,HOST:PORT TIMEOUT_MILLISECONDS

Lines in: "do TEXT" or "bg TEXT". Lines out: "ok RESULT" or "error WHY".
"""

import sys

import gearman
from gearman.constants import JOB_COMPLETE, JOB_CREATED
from gearman.errors import GearmanError

client = gearman.GearmanClient(sys.argv[1].split(","))
seconds = int(sys.argv[2]) / 1000
for line in sys.stdin:
    what, text = line.rstrip("\n").split(" ", 1)
    try:
        request = client.submit_job(
            b"reverse", text.encode(), background=what == "bg", wait_until_complete=what == "do", poll_timeout=seconds
        )
        done = request.state == (JOB_COMPLETE if what == "do" else JOB_CREATED)
        answer = request.job.handle if what == "bg" else request.result
        if isinstance(answer, bytes):
            answer = answer.decode()
        print(f"ok {answer}" if done else f"error {request.state}", flush=True)
    except (GearmanError, OSError) as error:
        print("error", type(error).__name__, flush=True)
