/* The functions for servers and options: gman_servers_set, gman_servers_check, gman_option_set, gman_status.
 *
 * A mistake in what the first and third set is always an SQL error.
 */

#include "gman_udf.h"

#include "database_server.h"
#include "report.h"

#include <stdio.h>
#include <string.h>

enum { LIST_MAX = 16 * 1024 }; /* bytes of an answer about all servers */

static char *fail(const char *name, const struct gearman_failure *failure, bool is_sql_error, unsigned char *is_null,
                  unsigned char *error)
{
    report(name, failure, is_sql_error, is_null, error);
    return NULL;
}

/* Append to the answer; false with the failure set. */
static bool say(struct gearman_bytes *answer, const char *text, struct gearman_failure *failure)
{
    return gearman_append(answer, text, strlen(text)) || gearman_no_memory(failure);
}

/* gman_servers_set(servers [, function]) */

UDF_EXPORT bool gman_servers_set_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (args->arg_count < 1 || args->arg_count > 2)
        return udf_refuse(message, "Must give one or two arguments.");
    for (unsigned i = 0; i < args->arg_count; i++) {
        if (args->arg_type[i] != STRING_RESULT)
            return udf_refuse(message, i == 0 ? "First argument must be a string." : "Second argument must be a string.");
    }
    return udf_init(initid, message, LIST_MAX);
}

UDF_EXPORT void gman_servers_set_deinit(UDF_INIT *initid)
{
    udf_deinit(initid);
}

UDF_EXPORT char *gman_servers_set(UDF_INIT *initid, UDF_ARGS *args, char *result, unsigned long *length,
                                  unsigned char *is_null, unsigned char *error)
{
    struct gearman_bytes *answer = (struct gearman_bytes *)initid->ptr;
    struct gearman_failure failure;
    const char *text = args->args[0] == NULL ? "" : args->args[0];
    size_t text_length = args->args[0] == NULL ? 0 : args->lengths[0];
    bool is_for_function = args->arg_count == 2 && args->args[1] != NULL;
    answer->length = 0;
    if (gearman_servers_set(text, text_length, is_for_function ? args->args[1] : "",
                             is_for_function ? args->lengths[1] : 0, &failure) &&
        (gearman_append(answer, text, text_length) || gearman_no_memory(&failure)))
        return udf_answer(initid, result, length);
    return fail("gman_servers_set", &failure, true, is_null, error);
}

/* gman_option_set(name [, value]) */

UDF_EXPORT bool gman_option_set_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (args->arg_count < 1 || args->arg_count > 2)
        return udf_refuse(message, "Must give one or two arguments.");
    for (unsigned i = 0; i < args->arg_count; i++) {
        if (args->arg_type[i] == ROW_RESULT)
            return udf_refuse(message, "Arguments must be single values.");
        args->arg_type[i] = STRING_RESULT;
    }
    return udf_init(initid, message, GEARMAN_OPTION_SIZE);
}

UDF_EXPORT void gman_option_set_deinit(UDF_INIT *initid)
{
    udf_deinit(initid);
}

UDF_EXPORT char *gman_option_set(UDF_INIT *initid, UDF_ARGS *args, char *result, unsigned long *length,
                                 unsigned char *is_null, unsigned char *error)
{
    struct gearman_failure failure;
    char text[GEARMAN_OPTION_SIZE];
    bool is_done;
    (void)initid;
    if (args->args[0] == NULL)
        is_done = gearman_set_failure(&failure, GEARMAN_BAD_CALL, "the option must not be null");
    else if (args->arg_count == 1)
        is_done = gearman_option_show(args->args[0], args->lengths[0], text, &failure);
    else
        is_done = gearman_option_set(args->args[0], args->lengths[0], args->args[1], args->lengths[1], text, &failure);
    if (!is_done)
        return fail("gman_option_set", &failure, true, is_null, error);
    *length = strlen(text);
    memcpy(result, text, *length);
    return result;
}

/* gman_servers_check([function]) */

UDF_EXPORT bool gman_servers_check_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (args->arg_count > 1)
        return udf_refuse(message, "Must give no argument or one.");
    if (args->arg_count == 1 && args->arg_type[0] != STRING_RESULT)
        return udf_refuse(message, "First argument must be a string.");
    return udf_init(initid, message, LIST_MAX);
}

UDF_EXPORT void gman_servers_check_deinit(UDF_INIT *initid)
{
    udf_deinit(initid);
}

/* Copy text as the inside of a JSON string. */
static void quote(char *place, size_t size, const char *text)
{
    char shown[GEARMAN_TEXT_SIZE];
    size_t used = 0;
    report_showable(shown, sizeof shown, (const unsigned char *)text, strlen(text));
    for (const char *next = shown; *next != 0 && used + 3 < size; next++) {
        if (*next == '"' || *next == '\\')
            place[used++] = '\\';
        place[used++] = *next;
    }
    place[used] = 0;
}

/* until: when to have done. */
static bool check_server(struct gearman_server *server, int64_t until, const struct gearman_options *options,
                         struct gearman_bytes *answer, struct gearman_failure *failure)
{
    const int64_t started = gearman_now();
    struct gearman_wait wait = {.deadline = gearman_earlier(until, started + options->connect_timeout),
                                .is_killed = database_is_killed};
    struct gearman_link link;
    char version[100], quoted[2 * GEARMAN_TEXT_SIZE], line[3 * GEARMAN_TEXT_SIZE];
    int64_t echoed_at = 0;
    bool is_reachable = gearman_take_from(server, options, &wait, &link, failure);
    if (is_reachable) {
        is_reachable = gearman_echo(link.connection, &wait, failure);
        echoed_at = gearman_now();
        is_reachable = is_reachable && gearman_version(link.connection, &wait, version, sizeof version, failure);
        gearman_give_back(&link, is_reachable ? GEARMAN_OK : failure->error);
    }
    if (!is_reachable && failure->error == GEARMAN_KILLED)
        return false;
    quote(quoted, sizeof quoted, is_reachable ? version : failure->text);
    if (is_reachable)
        snprintf(line, sizeof line,
                 "%s{\"server\": \"%s\", \"reachable\": true, \"version\": \"%s\", \"milliseconds\": %.3f, \"error\": null}",
                 answer->length > 1 ? ", " : "", gearman_server_name(server), quoted, (double)(echoed_at - started) / 1e6);
    else
        snprintf(line, sizeof line,
                 "%s{\"server\": \"%s\", \"reachable\": false, \"version\": null, \"milliseconds\": null, \"error\": \"%s\"}",
                 answer->length > 1 ? ", " : "", gearman_server_name(server), quoted);
    return say(answer, line, failure);
}

UDF_EXPORT char *gman_servers_check(UDF_INIT *initid, UDF_ARGS *args, char *result, unsigned long *length,
                                    unsigned char *is_null, unsigned char *error)
{
    const struct gearman_options options = gearman_options_get();
    bool is_for_function = args->arg_count == 1 && args->args[0] != NULL;
    const int64_t deadline = gearman_now() + options.background_timeout;
    struct gearman_bytes *answer = (struct gearman_bytes *)initid->ptr;
    struct gearman_failure failure;
    struct gearman_servers *servers =
        gearman_servers_get(is_for_function ? args->args[0] : "", is_for_function ? args->lengths[0] : 0, &failure);
    bool is_done;
    if (servers == NULL)
        return fail("gman_servers_check", &failure, options.errors, is_null, error);
    answer->length = 0;
    is_done = say(answer, "[", &failure);
    for (size_t i = 0; i < servers->count && is_done; i++)
        is_done = check_server(servers->servers[i], gearman_share(deadline, servers->count - i), &options, answer, &failure);
    is_done = is_done && say(answer, "]", &failure);
    gearman_servers_free(servers);
    return is_done ? udf_answer(initid, result, length)
                   : fail("gman_servers_check", &failure, options.errors, is_null, error);
}

/* gman_status(handle) */

UDF_EXPORT bool gman_status_init(UDF_INIT *initid, UDF_ARGS *args, char *message)
{
    if (args->arg_count != 1)
        return udf_refuse(message, "Must give one argument.");
    if (args->arg_type[0] != STRING_RESULT)
        return udf_refuse(message, "First argument must be a string.");
    return udf_init(initid, message, 150);
}

UDF_EXPORT void gman_status_deinit(UDF_INIT *initid)
{
    udf_deinit(initid);
}

/* Servers do not answer, or answer two questions, where a handle is none: that of no job is unknown. */
static bool is_handle(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    return length > 0 && length <= GEARMAN_HANDLE_MAX;
}

/* Ask the servers one after the other until one knows the job. */
static bool find_status(struct gearman_servers *servers, const struct gearman_options *options, const char *handle, size_t length,
                        struct gearman_status *status, struct gearman_failure *failure)
{
    const int64_t deadline = gearman_now() + options->background_timeout;
    struct gearman_wait wait = {.is_killed = database_is_killed};
    struct gearman_failure unreachable = {0}, last = {0};
    for (size_t i = 0; i < servers->count && !status->known; i++) {
        struct gearman_link link;
        bool is_answered;
        wait.deadline = gearman_share(deadline, servers->count - i);
        is_answered = gearman_take_at(servers, i, options, &wait, &link, &last);
        if (is_answered) {
            is_answered = gearman_get_status(link.connection, &wait, handle, length, status, &last);
            gearman_give_back(&link, is_answered ? GEARMAN_OK : last.error);
        }
        if (!is_answered && last.error == GEARMAN_KILLED) {
            *failure = last;
            return false;
        }
        if (!is_answered)
            unreachable = last;
    }
    if (status->known || unreachable.error == GEARMAN_OK)
        return true;
    *failure = unreachable; /* the one that did not answer might know the job */
    return false;
}

UDF_EXPORT char *gman_status(UDF_INIT *initid, UDF_ARGS *args, char *result, unsigned long *length, unsigned char *is_null,
                             unsigned char *error)
{
    const struct gearman_options options = gearman_options_get();
    struct gearman_status status = {0};
    struct gearman_failure failure;
    (void)initid;
    if (args->args[0] == NULL) {
        *is_null = 1;
        return NULL;
    }
    if (is_handle(args->args[0], args->lengths[0])) {
        struct gearman_servers *servers = gearman_servers_all(&failure);
        bool is_found = servers != NULL && find_status(servers, &options, args->args[0], args->lengths[0], &status, &failure);
        if (servers != NULL)
            gearman_servers_free(servers);
        if (!is_found)
            return fail("gman_status", &failure, options.errors, is_null, error);
    }
    *length = (unsigned long)snprintf(
        result, UDF_RESULT_SIZE, "{\"known\": %s, \"running\": %s, \"numerator\": %lu, \"denominator\": %lu}",
        status.known ? "true" : "false", status.running ? "true" : "false", status.numerator, status.denominator);
    return result;
}
