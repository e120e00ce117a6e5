/* A libgearman client that runs foreground jobs as tasks, so many at a time (gearman_client_run_tasks).
 * Prints {"jobs", "seconds"}.
 *
 * usage: tasks -p PORT -n JOBS -f IN_FLIGHT -t SECONDS_AT_MOST
 */
#define _GNU_SOURCE
#include "load.h"

#include <libgearman-1.0/gearman.h>
#include <unistd.h>

static long completed;

static gearman_return_t count(gearman_task_st *task)
{
    (void)task;
    completed++;
    return GEARMAN_SUCCESS;
}

/* Add tasks and wait for all of them. */
static void run_batch(gearman_client_st *client, long jobs, const char *workload)
{
    for (long job = 0; job < jobs; job++) {
        gearman_return_t outcome;
        gearman_client_add_task(client, NULL, NULL, FUNCTION, NULL, workload, WORKLOAD_BYTES, &outcome);
        if (outcome != GEARMAN_SUCCESS)
            fail("add_task: %s", gearman_client_error(client));
    }
    if (gearman_client_run_tasks(client) != GEARMAN_SUCCESS)
        fail("run_tasks: %s", gearman_client_error(client));
}

int main(int argc, char **argv)
{
    in_port_t port = 0;
    long jobs = 0, in_flight = 100, timeout_seconds = 60;
    char workload[WORKLOAD_BYTES];

    for (int option; (option = getopt(argc, argv, "p:n:f:t:")) != -1;) {
        switch (option) {
        case 'p': port = (in_port_t)number(optarg, 1, 65535); break;
        case 'n': jobs = number(optarg, 1, 100000000); break;
        case 'f': in_flight = number(optarg, 1, 100000); break;
        case 't': timeout_seconds = number(optarg, 1, 3600); break;
        default: return 2;
        }
    }
    alarm((unsigned)timeout_seconds);
    memset(workload, 'x', sizeof workload);
    gearman_client_st *client = gearman_client_create(NULL);
    if (gearman_client_add_server(client, HOST, port) != GEARMAN_SUCCESS)
        fail("connect: %s", gearman_client_error(client));
    gearman_client_add_options(client, GEARMAN_CLIENT_FREE_TASKS);
    gearman_client_set_complete_fn(client, count);
    double started = clock_seconds();
    for (long sent = 0; sent < jobs; sent += in_flight)
        run_batch(client, jobs - sent < in_flight ? jobs - sent : in_flight, workload);
    double seconds = clock_seconds() - started;
    if (completed != jobs)
        fail("%ld jobs completed", completed);
    printf("{\"jobs\": %ld, \"seconds\": %.6f}\n", jobs, seconds);
    return 0;
}
