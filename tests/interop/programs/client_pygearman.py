"""A pygearman client. Usage: client_pygearman.py HOST PORT WHAT [ARGUMENT]"""

import sys

import gearman
from gearman.constants import JOB_COMPLETE, PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE

host, port, what, *arguments = sys.argv[1:]
client = gearman.GearmanClient([f"{host}:{port}"])

if what == "reverse":
    request = client.submit_job(b"reverse", sys.stdin.buffer.read(), poll_timeout=10)
    assert request.state == JOB_COMPLETE, request
    sys.stdout.buffer.write(request.result)
elif what == "tasks":
    request = client.submit_job(arguments[0].encode(), b"x", poll_timeout=10)
    for data in request.data_updates:
        print("data", data.decode())
    for warning in request.warning_updates:
        print("warning", warning.decode())
    if request.status:
        print(f"status {int(request.status['numerator'])}/{int(request.status['denominator'])}")
    print("complete " + request.result.decode() if request.state == JOB_COMPLETE else "fail")
elif what == "background":
    for priority in (PRIORITY_HIGH, PRIORITY_NONE, PRIORITY_LOW):
        request = client.submit_job(b"later", b"x", priority=priority, background=True, wait_until_complete=False)
    status = client.get_job_status(request, poll_timeout=10).status
    print("status", int(status["known"]), int(status["running"]))
