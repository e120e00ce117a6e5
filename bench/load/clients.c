/* Synchronous libgearman clients: each submits one job at a time on its own connection, in its own process.
 *
 * Background: a job is done when JOB_CREATED has come. Foreground: when its result has come. All clients connect first
 * and start together; the time runs from there to the last one's last job.
 * Prints {"jobs", "seconds", "p50_seconds", "p99_seconds"}; the latter two are of one job.
 *
 * usage: clients -p PORT -n JOBS_IN_ALL -c CLIENTS -m background|foreground -t SECONDS_AT_MOST
 */
#define _GNU_SOURCE
#include "load.h"

#include <libgearman-1.0/gearman.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOB_TIMEOUT_MILLISECONDS 30000

struct options {
    in_port_t port;
    long clients;
    long jobs_each;
    bool foreground;
    unsigned timeout_seconds; /* each process ends itself after this */
};

/* One pipe each way makes the common start. */
struct gate {
    int ready[2]; /* each client writes a byte when it is connected */
    int go[2];    /* closed by the parent: the clients' read returns */
};

static void submit_background(gearman_client_st *client, const char *unique, const char *workload)
{
    gearman_job_handle_t handle;
    if (gearman_client_do_background(client, FUNCTION, unique, workload, WORKLOAD_BYTES, handle) != GEARMAN_SUCCESS)
        fail("background submit %s: %s", unique, gearman_client_error(client));
}

static void submit_foreground(gearman_client_st *client, const char *unique, const char *workload)
{
    size_t result_bytes;
    gearman_return_t outcome;
    void *result =
        gearman_client_do(client, FUNCTION, unique, workload, WORKLOAD_BYTES, &result_bytes, &outcome);
    if (outcome != GEARMAN_SUCCESS)
        fail("foreground submit %s: %s", unique, gearman_client_error(client));
    free(result);
}

/* One client's whole life; latencies has room for its jobs. */
static void run_client(const struct options *options, long index, const struct gate *gate, double *latencies)
{
    gearman_client_st *client = gearman_client_create(NULL);
    char workload[WORKLOAD_BYTES];
    char unique[UNIQUE_BYTES];
    char byte = 0;

    alarm(options->timeout_seconds);
    close(gate->go[1]);
    memset(workload, 'x', sizeof workload);
    gearman_client_set_timeout(client, JOB_TIMEOUT_MILLISECONDS);
    if (gearman_client_add_server(client, HOST, options->port) != GEARMAN_SUCCESS ||
        gearman_client_echo(client, "connect", 7) != GEARMAN_SUCCESS)
        fail("connect: %s", gearman_client_error(client));
    if (write(gate->ready[1], &byte, 1) != 1 || read(gate->go[0], &byte, 1) != 0)
        fail("start: %s", strerror(errno));
    for (long job = 0; job < options->jobs_each; job++) {
        snprintf(unique, sizeof unique, "job-%09ld", index * options->jobs_each + job);
        double started = clock_seconds();
        if (options->foreground)
            submit_foreground(client, unique, workload);
        else
            submit_background(client, unique, workload);
        latencies[job] = clock_seconds() - started;
    }
    gearman_client_free(client);
}

/* Start the clients together and wait for all; seconds from the start to the end of the last. */
static double run_clients(const struct options *options, double *latencies)
{
    struct gate gate;
    char byte;

    if (pipe(gate.ready) != 0 || pipe(gate.go) != 0)
        fail("pipe: %s", strerror(errno));
    for (long index = 0; index < options->clients; index++) {
        pid_t child = fork();
        if (child < 0)
            fail("fork: %s", strerror(errno));
        if (child == 0) {
            run_client(options, index, &gate, latencies + index * options->jobs_each);
            _exit(0);
        }
    }
    close(gate.ready[1]); /* a client that dies early ends the wait for the others */
    for (long connected = 0; connected < options->clients; connected++)
        if (read(gate.ready[0], &byte, 1) != 1)
            fail("a client did not connect");
    double started = clock_seconds();
    close(gate.go[1]);
    for (long ended = 0; ended < options->clients; ended++) {
        int status;
        if (wait(&status) < 0 || status != 0)
            fail("a client ended early");
    }
    return clock_seconds() - started;
}

static int compare(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return difference > 0 ? 1 : difference < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct options options = {.clients = 1, .timeout_seconds = 60};
    long jobs = 0;

    for (int option; (option = getopt(argc, argv, "p:n:c:m:t:")) != -1;) {
        switch (option) {
        case 'p': options.port = (in_port_t)number(optarg, 1, 65535); break;
        case 'n': jobs = number(optarg, 1, 100000000); break;
        case 'c': options.clients = number(optarg, 1, 1000); break;
        case 'm': options.foreground = strcmp(optarg, "foreground") == 0; break;
        case 't': options.timeout_seconds = (unsigned)number(optarg, 1, 3600); break;
        default: return 2;
        }
    }
    alarm(options.timeout_seconds);
    options.jobs_each = jobs / options.clients;
    jobs = options.jobs_each * options.clients;
    if (jobs == 0)
        fail("fewer jobs than clients");
    double *latencies = shared_memory((size_t)jobs * sizeof *latencies);
    double seconds = run_clients(&options, latencies);
    qsort(latencies, (size_t)jobs, sizeof *latencies, compare);
    printf("{\"jobs\": %ld, \"seconds\": %.6f, \"p50_seconds\": %.7f, \"p99_seconds\": %.7f}\n", jobs, seconds,
           latencies[jobs / 2], latencies[jobs * 99 / 100]);
    return 0;
}
