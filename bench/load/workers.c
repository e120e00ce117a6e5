/* libgearman workers, a process each, whose function does nothing.
 *
 * With -n the time runs from the start of the workers to the last completion written, and is printed as
 * {"jobs", "seconds"}. Without it they serve whatever comes. In both cases they stay connected until the end of stdin,
 * so that the caller can look at the server before they go.
 *
 * usage: workers -p PORT -w WORKERS [-n JOBS] -t SECONDS_AT_MOST
 */
#define _GNU_SOURCE
#include "load.h"

#include <libgearman-1.0/gearman.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct progress {
    long completed; /* by all workers; changed atomically */
    double ended;   /* clock when the last of the awaited jobs was completed */
};

static gearman_return_t do_nothing(gearman_job_st *job, void *context)
{
    (void)job;
    (void)context;
    return GEARMAN_SUCCESS;
}

/* Work until killed; write a byte to finished when all awaited jobs are done. */
static void run_worker(in_port_t port, long jobs, struct progress *progress, int finished)
{
    gearman_worker_st *worker = gearman_worker_create(NULL);

    if (gearman_worker_add_server(worker, HOST, port) != GEARMAN_SUCCESS ||
        gearman_worker_define_function(worker, FUNCTION, strlen(FUNCTION), gearman_function_create(do_nothing), 0,
                                       NULL) != GEARMAN_SUCCESS)
        fail("worker: %s", gearman_worker_error(worker));
    for (;;) {
        gearman_return_t outcome = gearman_worker_work(worker);
        if (outcome == GEARMAN_TIMEOUT || outcome == GEARMAN_NO_JOBS)
            continue;
        if (outcome != GEARMAN_SUCCESS)
            fail("worker: %s", gearman_worker_error(worker));
        if (__atomic_add_fetch(&progress->completed, 1, __ATOMIC_SEQ_CST) == jobs) {
            progress->ended = clock_seconds();
            if (write(finished, "", 1) != 1)
                fail("worker: %s", strerror(errno));
        }
    }
}

/* Fork the workers; each dies with this process. */
static void start_workers(in_port_t port, long workers, long jobs, struct progress *progress, int finished)
{
    pid_t parent = getpid();
    for (long index = 0; index < workers; index++) {
        pid_t child = fork();
        if (child < 0)
            fail("fork: %s", strerror(errno));
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() == parent)
                run_worker(port, jobs, progress, finished);
            _exit(1);
        }
    }
}

/* Wait for a byte or the end of file. */
static void await(int descriptor, double deadline, const char *what)
{
    struct pollfd ready = {.fd = descriptor, .events = POLLIN};
    double left_seconds = deadline - clock_seconds();
    if (left_seconds <= 0 || poll(&ready, 1, (int)(left_seconds * 1000)) <= 0)
        fail("timeout: %s", what);
}

static void a_worker_ended(int signal_number)
{
    (void)signal_number;
    _exit(1); /* it has written why */
}

int main(int argc, char **argv)
{
    in_port_t port = 0;
    long workers = 1, jobs = 0, timeout_seconds = 60;
    int finished[2];

    for (int option; (option = getopt(argc, argv, "p:w:n:t:")) != -1;) {
        switch (option) {
        case 'p': port = (in_port_t)number(optarg, 1, 65535); break;
        case 'w': workers = number(optarg, 1, 1000); break;
        case 'n': jobs = number(optarg, 1, 100000000); break;
        case 't': timeout_seconds = number(optarg, 1, 3600); break;
        default: return 2;
        }
    }
    struct progress *progress = shared_memory(sizeof *progress);
    if (pipe(finished) != 0)
        fail("pipe: %s", strerror(errno));
    signal(SIGCHLD, a_worker_ended);
    double started = clock_seconds();
    start_workers(port, workers, jobs, progress, finished[1]);
    if (jobs) {
        await(finished[0], started + (double)timeout_seconds, "the jobs are not done");
        printf("{\"jobs\": %ld, \"seconds\": %.6f}\n", jobs, progress->ended - started);
        fflush(stdout);
    }
    await(STDIN_FILENO, started + (double)timeout_seconds, "stdin is still open");
    return 0;
}
