/* The functions as the database server calls them: gman_do and its kin, gman_status, gman_sum. The ones for servers and
 * options are in gman_servers_udf.c.
 *
 * For each place in a statement the server calls NAME_init once, NAME for each row, and NAME_deinit once; in between, many
 * sessions do so at the same time. const_item is left false: a call with constants alone would be made once for all rows,
 * and by EXPLAIN.
 */

#include "gman_udf.h"

#include "database_server.h"
#include "gearman_sum.h"
#include "report.h"
#include "unique.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool udf_refuse(char *message, const char *text)
{
    snprintf(message, UDF_MESSAGE_SIZE, "%s", text);
    return true;
}

bool udf_init(UDF_INIT *initid, char *message, size_t max_length)
{
    initid->ptr = calloc(1, sizeof(struct gearman_bytes));
    if (initid->ptr == NULL)
        return udf_refuse(message, "Out of memory.");
    initid->maybe_null = true;
    initid->const_item = false;
    initid->max_length = max_length;
    return false;
}

void udf_deinit(UDF_INIT *initid)
{
    if (initid->ptr == NULL)
        return;
    gearman_free((struct gearman_bytes *)initid->ptr);
    free(initid->ptr);
    initid->ptr = NULL;
}

char *udf_answer(UDF_INIT *initid, char *result, unsigned long *length)
{
    struct gearman_bytes *answer = (struct gearman_bytes *)initid->ptr;
    *length = answer->length;
    if (answer->length > UDF_RESULT_SIZE)
        return (char *)answer->data;
    if (answer->length > 0)
        memcpy(result, answer->data, answer->length);
    return result;
}

/* Arguments of the functions that submit jobs: function, workload [, unique [, timeout]]; of gman_do_epoch function,
 * workload, epoch [, unique]. */

enum { FUNCTION, WORKLOAD, UNIQUE, TIMEOUT, EPOCH = UNIQUE, EPOCH_UNIQUE = TIMEOUT };

static bool check_arguments(UDF_ARGS *args, char *message, unsigned least, unsigned most, const char *refusal)
{
    if (args->arg_count < least || args->arg_count > most)
        return udf_refuse(message, refusal);
    if (args->arg_type[FUNCTION] != STRING_RESULT)
        return udf_refuse(message, "First argument must be a string.");
    for (unsigned i = 0; i < args->arg_count; i++)
        if (args->arg_type[i] == ROW_RESULT)
            return udf_refuse(message, "Arguments must be single values.");
    args->arg_type[WORKLOAD] = STRING_RESULT;
    return false;
}

static bool do_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (check_arguments(args, message, 2, 4, "Must give two, three or four arguments."))
        return true;
    if (args->arg_count > UNIQUE)
        args->arg_type[UNIQUE] = STRING_RESULT;
    if (args->arg_count > TIMEOUT)
        args->arg_type[TIMEOUT] = REAL_RESULT;
    return udf_init(initid, message, (size_t)gearman_options_get().result_max);
}

static bool background_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (check_arguments(args, message, 2, 3, "Must give two or three arguments."))
        return true;
    if (args->arg_count > UNIQUE)
        args->arg_type[UNIQUE] = STRING_RESULT;
    return udf_init(initid, message, GEARMAN_HANDLE_MAX);
}

static bool epoch_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (check_arguments(args, message, 3, 4, "Must give three or four arguments."))
        return true;
    args->arg_type[EPOCH] = INT_RESULT;
    if (args->arg_count > EPOCH_UNIQUE)
        args->arg_type[EPOCH_UNIQUE] = STRING_RESULT;
    return udf_init(initid, message, GEARMAN_HANDLE_MAX);
}

static bool is_background(enum gearman_packet_type type)
{
    return type != GEARMAN_SUBMIT_JOB && type != GEARMAN_SUBMIT_JOB_HIGH && type != GEARMAN_SUBMIT_JOB_LOW;
}

/* unique_at: the position of the unique among the arguments. made_up: of GEARMAN_UNIQUE_SIZE. */
static bool read_job(const UDF_ARGS *args, enum gearman_packet_type type, unsigned unique_at, char *made_up,
                     struct gearman_job *job, struct gearman_failure *failure)
{
    *job = (struct gearman_job){.submit = type, .function = args->args[FUNCTION], .workload = args->args[WORKLOAD]};
    if (job->function == NULL)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "the function must not be null");
    job->function_length = args->lengths[FUNCTION];
    if (job->workload != NULL)
        job->workload_length = args->lengths[WORKLOAD];
    if (args->arg_count > unique_at && args->args[unique_at] != NULL) {
        job->unique = args->args[unique_at];
        job->unique_length = args->lengths[unique_at];
    }
    if (job->unique_length == 0 && is_background(type)) {
        unique_make(made_up);
        job->unique = made_up;
        job->unique_length = strlen(made_up);
    }
    if (type == GEARMAN_SUBMIT_JOB_EPOCH && args->args[EPOCH] != NULL && *(const long long *)args->args[EPOCH] > 0)
        job->epoch = *(const long long *)args->args[EPOCH];
    return gearman_check_job(job, failure);
}

static bool read_timeout(const UDF_ARGS *args, int64_t *timeout, struct gearman_failure *failure)
{
    double seconds;
    if (args->arg_count <= TIMEOUT || args->args[TIMEOUT] == NULL)
        return true;
    seconds = *(const double *)args->args[TIMEOUT];
    if (!(seconds > 0 && seconds <= 86400))
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a timeout is more than 0 and at most 86400 seconds, not %g", seconds);
    *timeout = (int64_t)(seconds * (double)GEARMAN_SECOND);
    return true;
}

/* Name the server, and say if the job may run all the same. */
static void explain(struct gearman_failure *failure, const struct gearman_server *server)
{
    struct gearman_failure cause = *failure;
    bool may_run = cause.error >= GEARMAN_TIMEOUT;
    snprintf(failure->text, sizeof failure->text, "%.100s: %.280s%s", gearman_server_name(server), cause.text,
             may_run ? "; the job may run" : "");
}

/* Submit a job and put its handle, or its result, into *answer. */
static bool run_job(const struct gearman_job *job, const struct gearman_options *options, int64_t timeout,
                    struct gearman_bytes *answer, struct gearman_failure *failure)
{
    const int64_t deadline = gearman_now() + timeout;
    struct gearman_wait wait = {.deadline = deadline, .is_killed = database_is_killed, .note = report_note};
    struct gearman_servers *servers = gearman_servers_get(job->function, job->function_length, failure);
    struct gearman_link link;
    char handle[GEARMAN_HANDLE_SIZE];
    int64_t started;
    bool is_done;
    if (servers == NULL)
        return false;
    if (!gearman_take(servers, options, &wait, &link, failure)) {
        gearman_servers_free(servers);
        return false;
    }
    started = gearman_now();
    wait.deadline = gearman_earlier(deadline, started + options->background_timeout);
    /* Once only, whatever comes of it: a job whose submission was not answered may be queued. */
    is_done = gearman_submit(link.connection, &wait, job, handle, failure);
    if (!is_done && failure->error == GEARMAN_TIMEOUT)
        gearman_was_silent(link.server, options, wait.deadline - started, options->background_timeout,
                        "took a job and did not answer");
    wait.deadline = deadline;
    if (is_done && is_background(job->submit))
        is_done = gearman_append(answer, handle, strlen(handle)) || gearman_no_memory(failure);
    else if (is_done)
        is_done = gearman_result(link.connection, &wait, handle, (size_t)options->result_max, answer, failure);
    if (!is_done)
        explain(failure, link.server);
    gearman_give_back(&link, is_done ? GEARMAN_OK : failure->error);
    gearman_servers_free(servers);
    return is_done;
}

static char *call_job(const char *name, enum gearman_packet_type type, UDF_INIT *initid, UDF_ARGS *args, char *result,
                      unsigned long *length, unsigned char *is_null, unsigned char *error)
{
    const struct gearman_options options = gearman_options_get();
    struct gearman_bytes *answer = (struct gearman_bytes *)initid->ptr;
    struct gearman_failure failure = {0};
    struct gearman_job job;
    char made_up[UNIQUE_SIZE];
    int64_t timeout = is_background(type) ? options.background_timeout : options.timeout;
    answer->length = 0;
    if (read_job(args, type, type == GEARMAN_SUBMIT_JOB_EPOCH ? EPOCH_UNIQUE : UNIQUE, made_up, &job, &failure) &&
        (is_background(type) || read_timeout(args, &timeout, &failure)) &&
        run_job(&job, &options, timeout, answer, &failure))
        return udf_answer(initid, result, length);
    report(name, &failure, options.errors, is_null, error);
    return NULL;
}

#define JOB_FUNCTION(name, init, type)                                                                                 \
    UDF_EXPORT bool name##_init(UDF_INIT *initid, UDF_ARGS *args, char *message)                                       \
    {                                                                                                                  \
        return init(initid, args, message);                                                                            \
    }                                                                                                                  \
    UDF_EXPORT void name##_deinit(UDF_INIT *initid)                                                                    \
    {                                                                                                                  \
        udf_deinit(initid);                                                                                            \
    }                                                                                                                  \
    UDF_EXPORT char *name(UDF_INIT *initid, UDF_ARGS *args, char *result, unsigned long *length,                       \
                          unsigned char *is_null, unsigned char *error)                                                \
    {                                                                                                                  \
        return call_job(#name, type, initid, args, result, length, is_null, error);                                    \
    }

JOB_FUNCTION(gman_do, do_init, GEARMAN_SUBMIT_JOB)
JOB_FUNCTION(gman_do_high, do_init, GEARMAN_SUBMIT_JOB_HIGH)
JOB_FUNCTION(gman_do_low, do_init, GEARMAN_SUBMIT_JOB_LOW)
JOB_FUNCTION(gman_do_background, background_init, GEARMAN_SUBMIT_JOB_BG)
JOB_FUNCTION(gman_do_high_background, background_init, GEARMAN_SUBMIT_JOB_HIGH_BG)
JOB_FUNCTION(gman_do_low_background, background_init, GEARMAN_SUBMIT_JOB_LOW_BG)
JOB_FUNCTION(gman_do_epoch, epoch_init, GEARMAN_SUBMIT_JOB_EPOCH)

/* gman_sum: an aggregate; clear for each group, add for each row, then the function for the sum. */

UDF_EXPORT bool gman_sum_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (check_arguments(args, message, 2, 3, "Must give two or three arguments."))
        return true;
    if (args->arg_count > UNIQUE)
        args->arg_type[UNIQUE] = STRING_RESULT;
    initid->ptr = (char *)gearman_sum_new(database_is_killed, report_note);
    if (initid->ptr == NULL)
        return udf_refuse(message, "Out of memory.");
    gearman_sum_clear((struct gearman_sum *)initid->ptr);
    initid->maybe_null = true;
    initid->const_item = false;
    initid->decimals = 0;
    return false;
}

UDF_EXPORT void gman_sum_deinit(UDF_INIT *initid)
{
    gearman_sum_free((struct gearman_sum *)initid->ptr);
    initid->ptr = NULL;
}

UDF_EXPORT void gman_sum_clear(UDF_INIT *initid, unsigned char *is_null, unsigned char *error)
{
    *is_null = 0;
    *error = 0;
    gearman_sum_clear((struct gearman_sum *)initid->ptr);
}

UDF_EXPORT void gman_sum_add(UDF_INIT *initid, UDF_ARGS *args, unsigned char *is_null, unsigned char *error)
{
    struct gearman_sum *sum = (struct gearman_sum *)initid->ptr;
    struct gearman_failure failure;
    struct gearman_job job;
    (void)is_null;
    (void)error;
    if (read_job(args, GEARMAN_SUBMIT_JOB, UNIQUE, NULL, &job, &failure))
        gearman_sum_add(sum, &job);
    else
        gearman_sum_fail(sum, failure.text);
}

UDF_EXPORT long long gman_sum(UDF_INIT *initid, UDF_ARGS *args, unsigned char *is_null, unsigned char *error)
{
    struct gearman_failure failure;
    long long total;
    size_t count;
    (void)args;
    if (gearman_sum_end((struct gearman_sum *)initid->ptr, &total, &count, &failure)) {
        *is_null = count == 0;
        return total;
    }
    report("gman_sum", &failure, gearman_options_get().errors, is_null, error);
    return 0;
}
