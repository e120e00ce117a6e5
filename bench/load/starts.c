/* One libgearman worker that notes when each job starts.
 *
 * The jobs are numbered: a workload begins with its number, 0 to JOBS - 1, and a space. When each has been run,
 * {"starts": [seconds, ...]} is printed, by the clock that is monotonic in every process, in the order of the numbers.
 * Then it stays connected until it is ended.
 *
 * usage: starts -p PORT -n JOBS -t SECONDS_AT_MOST
 */
#define _GNU_SOURCE
#include "load.h"

#include <libgearman-1.0/gearman.h>
#include <unistd.h>

#define NUMBER_BYTES 16

struct starts {
    double *seconds; /* by job; 0: not started */
    long jobs;
    long started;
};

static gearman_return_t note_start(gearman_job_st *job, void *context)
{
    double now = clock_seconds();
    struct starts *starts = context;
    const char *workload = gearman_job_workload(job);
    size_t size = gearman_job_workload_size(job);
    const char *space = size ? memchr(workload, ' ', size) : NULL;
    char text[NUMBER_BYTES] = "";

    if (!space || space - workload >= NUMBER_BYTES)
        fail("a job without a number");
    memcpy(text, workload, (size_t)(space - workload));
    long index = number(text, 0, starts->jobs - 1);
    if (starts->seconds[index] > 0)
        fail("job %ld started twice", index);
    starts->seconds[index] = now;
    starts->started++;
    return GEARMAN_SUCCESS;
}

static void print_starts(const struct starts *starts)
{
    printf("{\"starts\": [");
    for (long index = 0; index < starts->jobs; index++)
        printf("%s%.6f", index ? ", " : "", starts->seconds[index]);
    printf("]}\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    in_port_t port = 0;
    long timeout_seconds = 60;
    struct starts starts = {0};

    for (int option; (option = getopt(argc, argv, "p:n:t:")) != -1;) {
        switch (option) {
        case 'p': port = (in_port_t)number(optarg, 1, 65535); break;
        case 'n': starts.jobs = number(optarg, 1, 1000000); break;
        case 't': timeout_seconds = number(optarg, 1, 3600); break;
        default: return 2;
        }
    }
    starts.seconds = calloc((size_t)starts.jobs, sizeof *starts.seconds);
    if (!starts.seconds)
        fail("no memory");
    gearman_worker_st *worker = gearman_worker_create(NULL);
    if (gearman_worker_add_server(worker, HOST, port) != GEARMAN_SUCCESS ||
        gearman_worker_define_function(worker, FUNCTION, strlen(FUNCTION), gearman_function_create(note_start), 0,
                                       &starts) != GEARMAN_SUCCESS)
        fail("worker: %s", gearman_worker_error(worker));
    alarm((unsigned)timeout_seconds);
    for (;;) {
        gearman_return_t outcome = gearman_worker_work(worker);
        if (outcome == GEARMAN_TIMEOUT || outcome == GEARMAN_NO_JOBS)
            continue;
        if (outcome != GEARMAN_SUCCESS)
            fail("worker: %s", gearman_worker_error(worker));
        if (starts.started == starts.jobs) {
            print_starts(&starts);
            starts.started = 0; /* once */
        }
    }
}
