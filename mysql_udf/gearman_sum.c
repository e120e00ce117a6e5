#include "gearman_sum.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
    IN_FLIGHT = 100,
    HEAD_SIZE = 64, /* of a result: an integer, perhaps after spaces */
};

struct running {
    char handle[GEARMAN_HANDLE_SIZE]; /* empty: JOB_CREATED has not come; it comes in the order of the submits */
    int64_t deadline;
    char head[HEAD_SIZE];
    size_t head_length;
};

struct gearman_sum {
    struct gearman_options options;
    struct gearman_wait wait;
    struct gearman_servers *servers; /* of the first job's function; NULL: no job yet */
    struct gearman_link link;
    bool is_joined; /* two jobs had one handle: the server may tell of their end a second time */
    size_t count;   /* of all jobs */
    long long total;
    struct gearman_failure failure; /* the first one; after it nothing is sent */
    size_t running_count;
    struct running running[IN_FLIGHT]; /* in the order of the submits */
};

struct gearman_sum *gearman_sum_new(bool (*is_killed)(void), void (*note)(const unsigned char *, size_t))
{
    struct gearman_sum *sum = calloc(1, sizeof *sum);
    if (sum != NULL) {
        sum->wait.is_killed = is_killed;
        sum->wait.note = note;
    }
    return sum;
}

void gearman_sum_clear(struct gearman_sum *sum)
{
    /* A connection on which jobs still run is of no use to others. */
    if (sum->running_count > 0 || sum->is_joined)
        gearman_give_back(&sum->link, GEARMAN_LOST);
    else
        gearman_give_back(&sum->link, sum->failure.error);
    if (sum->servers != NULL)
        gearman_servers_free(sum->servers);
    sum->servers = NULL;
    sum->is_joined = false;
    sum->count = 0;
    sum->total = 0;
    sum->running_count = 0;
    sum->failure.error = GEARMAN_OK;
    sum->options = gearman_options_get();
}

void gearman_sum_free(struct gearman_sum *sum)
{
    if (sum == NULL)
        return;
    gearman_sum_clear(sum);
    free(sum);
}

void gearman_sum_fail(struct gearman_sum *sum, const char *text)
{
    if (sum->failure.error == GEARMAN_OK)
        gearman_set_failure(&sum->failure, GEARMAN_BAD_CALL, "%s", text);
}

/* Add the integer that a result begins with, as atoi() reads it; a result without one is an error. */
static bool add_result(struct gearman_sum *sum, const struct running *job)
{
    char text[HEAD_SIZE + 1], *end;
    long long number;
    memcpy(text, job->head, job->head_length);
    text[job->head_length] = 0;
    errno = 0;
    number = strtoll(text, &end, 10);
    if (end == text)
        return gearman_set_failure(&sum->failure, GEARMAN_FAILED, "the result of job %s is no integer: %.40s", job->handle, text);
    if (errno == ERANGE || __builtin_add_overflow(sum->total, number, &sum->total))
        return gearman_set_failure(&sum->failure, GEARMAN_FAILED, "the sum is out of range");
    return true;
}

static struct running *find(struct gearman_sum *sum, const struct gearman_packet *packet)
{
    for (size_t i = 0; i < sum->running_count; i++)
        if (sum->running[i].handle[0] != 0 && gearman_is_about(packet, sum->running[i].handle))
            return &sum->running[i];
    return NULL;
}

static void remove_job(struct gearman_sum *sum, struct running *job)
{
    size_t position = (size_t)(job - sum->running);
    sum->running_count--;
    memmove(job, job + 1, (sum->running_count - position) * sizeof *job);
}

static bool created(struct gearman_sum *sum, const struct gearman_packet *packet)
{
    for (size_t i = 0; i < sum->running_count; i++) {
        struct running *job = &sum->running[i];
        if (job->handle[0] != 0)
            continue;
        if (find(sum, packet) != NULL)
            sum->is_joined = true;
        return gearman_read_handle(packet, job->handle, &sum->failure);
    }
    return gearman_unexpected(packet, &sum->failure);
}

static void collect(struct running *job, const struct gearman_packet *packet)
{
    size_t room = HEAD_SIZE - job->head_length;
    size_t length = packet->rest_length < room ? packet->rest_length : room;
    memcpy(job->head + job->head_length, packet->rest, length);
    job->head_length += length;
}

/* All jobs with the handle of the first one have ended with its result. */
static bool complete(struct gearman_sum *sum, const struct gearman_packet *packet)
{
    struct running *job = find(sum, packet), first;
    if (job == NULL)
        return true;
    collect(job, packet);
    first = *job;
    for (; job != NULL; job = find(sum, packet)) {
        remove_job(sum, job);
        if (!add_result(sum, &first))
            return false;
    }
    return true;
}

/* Receive one packet and do what it says. */
static bool step(struct gearman_sum *sum)
{
    struct gearman_packet packet;
    struct running *job;
    sum->wait.deadline = sum->running[0].deadline;
    if (!gearman_receive(sum->link.connection, &sum->wait, (size_t)sum->options.result_max, &packet, &sum->failure))
        return false;
    switch (packet.type) {
    case GEARMAN_JOB_CREATED:
        return created(sum, &packet);
    case GEARMAN_ERROR:
        return gearman_refusal(&packet, &sum->failure);
    case GEARMAN_WORK_DATA:
        job = find(sum, &packet);
        if (job != NULL)
            collect(job, &packet);
        return true;
    case GEARMAN_WORK_COMPLETE:
        return complete(sum, &packet);
    case GEARMAN_WORK_FAIL:
    case GEARMAN_WORK_EXCEPTION:
        return find(sum, &packet) == NULL || gearman_job_failure(&packet, &sum->failure);
    case GEARMAN_WORK_WARNING:
        if (sum->wait.note != NULL)
            sum->wait.note(packet.rest, packet.rest_length);
        return true;
    case GEARMAN_WORK_STATUS:
        return true;
    default:
        return gearman_unexpected(&packet, &sum->failure);
    }
}

static bool start(struct gearman_sum *sum, const struct gearman_job *job)
{
    sum->servers = gearman_servers_get(job->function, job->function_length, &sum->failure);
    if (sum->servers == NULL)
        return false;
    sum->wait.deadline = gearman_now() + sum->options.timeout;
    return gearman_take(sum->servers, &sum->options, &sum->wait, &sum->link, &sum->failure);
}

/* Send a job. What the server sends meanwhile is received, so that two full buffers never face each other. */
static bool submit(struct gearman_sum *sum, const struct gearman_job *job)
{
    size_t sent = 0;
    bool is_complete = false;
    while (gearman_submit_some(sum->link.connection, job, &sent, &is_complete, &sum->failure)) {
        short events = sum->running_count > 1 ? POLLIN | POLLOUT : POLLOUT, found;
        if (is_complete)
            return true;
        sum->wait.deadline = sum->running[sum->running_count - 1].deadline;
        if (!gearman_wait_for(sum->link.connection->fd, events, &sum->wait, &found, &sum->failure))
            return false;
        if ((found & POLLIN) != 0 && !step(sum))
            return false;
    }
    return false;
}

void gearman_sum_add(struct gearman_sum *sum, const struct gearman_job *job)
{
    struct running *running;
    if (sum->failure.error != GEARMAN_OK || !gearman_check_job(job, &sum->failure))
        return;
    if (sum->servers == NULL && !start(sum, job))
        return;
    while (sum->running_count == IN_FLIGHT)
        if (!step(sum))
            return;
    running = &sum->running[sum->running_count++];
    running->handle[0] = 0;
    running->head_length = 0;
    running->deadline = gearman_now() + sum->options.timeout;
    sum->count++;
    submit(sum, job);
}

bool gearman_sum_end(struct gearman_sum *sum, long long *total, size_t *count, struct gearman_failure *failure)
{
    while (sum->failure.error == GEARMAN_OK && sum->running_count > 0)
        if (!step(sum))
            break;
    *total = sum->total;
    *count = sum->count;
    if (sum->failure.error == GEARMAN_OK)
        return true;
    *failure = sum->failure;
    return false;
}
