#include "gearman_client.h"

#include <stdio.h>
#include <string.h>

enum {
    HEADER_SIZE = 12,
    ANSWER_MAX = 8192, /* bytes of an answer that carries no result */
    PREFIX_SIZE = HEADER_SIZE + GEARMAN_FUNCTION_MAX + GEARMAN_UNIQUE_MAX + 24,
};

static const char REQUEST_MAGIC[4] = {'\0', 'R', 'E', 'Q'};

/* Requests */

static void put32(unsigned char *place, uint32_t number)
{
    for (int i = 3; i >= 0; i--, number >>= 8)
        place[i] = (unsigned char)number;
}

static bool send_packet(struct gearman_connection *connection, struct gearman_wait *wait, enum gearman_packet_type type,
                        const void *body, size_t length, struct gearman_failure *failure)
{
    unsigned char header[HEADER_SIZE];
    memcpy(header, REQUEST_MAGIC, sizeof REQUEST_MAGIC);
    put32(header + 4, type);
    put32(header + 8, (uint32_t)length);
    return gearman_send(connection, wait, header, sizeof header, body, length, failure);
}

bool gearman_check_job(const struct gearman_job *job, struct gearman_failure *failure)
{
    if (job->function_length > GEARMAN_FUNCTION_MAX)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a function name may have %d bytes, this one has %zu",
                                GEARMAN_FUNCTION_MAX, job->function_length);
    if (job->unique_length > GEARMAN_UNIQUE_MAX)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a unique may have %d bytes, this one has %zu", GEARMAN_UNIQUE_MAX,
                                job->unique_length);
    /* A NUL would end the argument, and its rest begin the next one. */
    if (job->function_length > 0 && memchr(job->function, 0, job->function_length) != NULL)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a function name may not hold a NUL byte");
    if (job->unique_length > 0 && memchr(job->unique, 0, job->unique_length) != NULL)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a unique may not hold a NUL byte");
    if (job->workload_length > UINT32_MAX - PREFIX_SIZE)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a workload of %zu bytes is too large", job->workload_length);
    return true;
}

/* Write the header and all arguments but the workload; return their length. */
static size_t submit_prefix(const struct gearman_job *job, unsigned char prefix[PREFIX_SIZE])
{
    size_t length = HEADER_SIZE;
    memcpy(prefix + length, job->function, job->function_length);
    length += job->function_length;
    prefix[length++] = 0;
    if (job->unique_length > 0)
        memcpy(prefix + length, job->unique, job->unique_length);
    length += job->unique_length;
    prefix[length++] = 0;
    if (job->submit == GEARMAN_SUBMIT_JOB_EPOCH)
        length += (size_t)snprintf((char *)prefix + length, PREFIX_SIZE - length, "%lld", (long long)job->epoch) + 1;
    memcpy(prefix, REQUEST_MAGIC, sizeof REQUEST_MAGIC);
    put32(prefix + 4, job->submit);
    put32(prefix + 8, (uint32_t)(length - HEADER_SIZE + job->workload_length));
    return length;
}

bool gearman_submit_some(struct gearman_connection *connection, const struct gearman_job *job, size_t *sent, bool *complete,
                      struct gearman_failure *failure)
{
    unsigned char prefix[PREFIX_SIZE];
    size_t length = submit_prefix(job, prefix);
    if (!gearman_send_some(connection, prefix, length, job->workload, job->workload_length, sent, failure))
        return false;
    *complete = *sent == length + job->workload_length;
    return true;
}

/* Answers */

/* A length for printf's %.*s: a failure's text holds no more. */
static int cut(size_t length)
{
    return length < GEARMAN_TEXT_SIZE ? (int)length : GEARMAN_TEXT_SIZE;
}

bool gearman_refusal(const struct gearman_packet *packet, struct gearman_failure *failure)
{
    return gearman_set_failure(failure, GEARMAN_REFUSED, "%.*s: %.*s", cut(packet->first_length),
                            (const char *)packet->first, cut(packet->rest_length), (const char *)packet->rest);
}

bool gearman_job_failure(const struct gearman_packet *packet, struct gearman_failure *failure)
{
    int length = cut(packet->rest_length);
    /* gearmand turns an exception into a WORK_FAIL that ends with a NUL. */
    bool has_text = packet->type == GEARMAN_WORK_EXCEPTION && length > 0;
    return gearman_set_failure(failure, GEARMAN_FAILED, "job %.*s failed%s%.*s", cut(packet->first_length),
                            (const char *)packet->first, has_text ? ": " : "", has_text ? length : 0,
                            (const char *)packet->rest);
}

bool gearman_unexpected(const struct gearman_packet *packet, struct gearman_failure *failure)
{
    return gearman_set_failure(failure, GEARMAN_GARBAGE, "the server sent a packet of type %u that answers nothing",
                            (unsigned)packet->type);
}

bool gearman_read_handle(const struct gearman_packet *packet, char *handle, struct gearman_failure *failure)
{
    if (packet->first_length == 0 || packet->first_length > GEARMAN_HANDLE_MAX)
        return gearman_set_failure(failure, GEARMAN_GARBAGE, "the server sent a handle of %zu bytes", packet->first_length);
    memcpy(handle, packet->first, packet->first_length);
    handle[packet->first_length] = 0;
    return true;
}

bool gearman_is_about(const struct gearman_packet *packet, const char *handle)
{
    return packet->first_length == strlen(handle) && memcmp(packet->first, handle, packet->first_length) == 0;
}

/* News of a job that a call before has given up: some servers send WORK_FAIL after WORK_EXCEPTION. */
static bool is_late(const struct gearman_packet *packet)
{
    switch (packet->type) {
    case GEARMAN_WORK_STATUS:
    case GEARMAN_WORK_COMPLETE:
    case GEARMAN_WORK_FAIL:
    case GEARMAN_WORK_EXCEPTION:
    case GEARMAN_WORK_DATA:
    case GEARMAN_WORK_WARNING:
        return true;
    default:
        return false;
    }
}

/* Receive the answer to a request, which must be of the type given. */
static bool receive_answer(struct gearman_connection *connection, struct gearman_wait *wait, enum gearman_packet_type type,
                           struct gearman_packet *packet, struct gearman_failure *failure)
{
    do
        if (!gearman_receive(connection, wait, ANSWER_MAX, packet, failure))
            return false;
    while (is_late(packet));
    if (packet->type == type)
        return true;
    return packet->type == GEARMAN_ERROR ? gearman_refusal(packet, failure) : gearman_unexpected(packet, failure);
}

bool gearman_greet(struct gearman_connection *connection, struct gearman_wait *wait, struct gearman_failure *failure)
{
    static const char option[] = "exceptions";
    struct gearman_packet packet;
    if (!send_packet(connection, wait, GEARMAN_OPTION_REQ, option, sizeof option - 1, failure))
        return false;
    /* A server that does not know the option refuses it, and is a Gearman server all the same. */
    return receive_answer(connection, wait, GEARMAN_OPTION_RES, &packet, failure) || failure->error == GEARMAN_REFUSED;
}

bool gearman_echo(struct gearman_connection *connection, struct gearman_wait *wait, struct gearman_failure *failure)
{
    static const char text[] = "gman";
    struct gearman_packet packet;
    if (!send_packet(connection, wait, GEARMAN_ECHO_REQ, text, sizeof text - 1, failure) ||
        !receive_answer(connection, wait, GEARMAN_ECHO_RES, &packet, failure))
        return false;
    return gearman_is_about(&packet, text) || gearman_set_failure(failure, GEARMAN_GARBAGE, "the server's echo is another text");
}

bool gearman_version(struct gearman_connection *connection, struct gearman_wait *wait, char *version, size_t size,
                  struct gearman_failure *failure)
{
    static const char command[] = "version\r\n";
    const unsigned char *line, *end;
    size_t length;
    if (!gearman_send(connection, wait, command, sizeof command - 1, NULL, 0, failure))
        return false;
    do {
        size_t waiting = connection->end - connection->start;
        if (waiting >= 256)
            return gearman_garbage(connection, failure);
        if (!gearman_fill(connection, wait, waiting + 1, failure))
            return false;
        line = connection->received + connection->start;
        end = memchr(line, '\n', connection->end - connection->start);
    } while (end == NULL);
    connection->start += (size_t)(end - line) + 1;
    length = (size_t)(end - line);
    if (length > 0 && line[length - 1] == '\r')
        length--;
    if (length >= 3 && memcmp(line, "OK ", 3) == 0) {
        line += 3;
        length -= 3;
    }
    snprintf(version, size, "%.*s", (int)length, (const char *)line);
    return true;
}

static unsigned long number_at(const unsigned char **place, const unsigned char *end)
{
    unsigned long number = 0;
    for (; *place < end && **place != 0; ++*place)
        if (**place >= '0' && **place <= '9' && number < UINT32_MAX)
            number = number * 10 + (unsigned long)(**place - '0');
    if (*place < end)
        ++*place;
    return number;
}

bool gearman_get_status(struct gearman_connection *connection, struct gearman_wait *wait, const char *handle, size_t length,
                     struct gearman_status *status, struct gearman_failure *failure)
{
    struct gearman_packet packet;
    const unsigned char *place, *end;
    if (!send_packet(connection, wait, GEARMAN_GET_STATUS, handle, length, failure) ||
        !receive_answer(connection, wait, GEARMAN_STATUS_RES, &packet, failure))
        return false;
    place = packet.rest;
    end = packet.rest + packet.rest_length;
    status->known = number_at(&place, end) != 0;
    status->running = number_at(&place, end) != 0;
    status->numerator = number_at(&place, end);
    status->denominator = number_at(&place, end);
    return true;
}

bool gearman_submit(struct gearman_connection *connection, struct gearman_wait *wait, const struct gearman_job *job, char *handle,
                 struct gearman_failure *failure)
{
    unsigned char prefix[PREFIX_SIZE];
    size_t length = submit_prefix(job, prefix);
    struct gearman_packet packet;
    if (!gearman_send(connection, wait, prefix, length, job->workload, job->workload_length, failure) ||
        !receive_answer(connection, wait, GEARMAN_JOB_CREATED, &packet, failure))
        return false;
    return gearman_read_handle(&packet, handle, failure);
}

bool gearman_result(struct gearman_connection *connection, struct gearman_wait *wait, const char *handle, size_t limit,
                 struct gearman_bytes *result, struct gearman_failure *failure)
{
    struct gearman_packet packet;
    for (;;) {
        if (!gearman_receive(connection, wait, limit, &packet, failure))
            return false;
        switch (packet.type) {
        case GEARMAN_WORK_DATA:
        case GEARMAN_WORK_COMPLETE:
            if (!gearman_is_about(&packet, handle))
                break;
            if (packet.rest_length > limit - result->length)
                return gearman_set_failure(failure, GEARMAN_TOO_LARGE, "the result has more than %zu bytes", limit);
            if (!gearman_append(result, packet.rest, packet.rest_length))
                return gearman_no_memory(failure);
            if (packet.type == GEARMAN_WORK_COMPLETE)
                return true;
            break;
        case GEARMAN_WORK_FAIL:
        case GEARMAN_WORK_EXCEPTION:
            if (gearman_is_about(&packet, handle))
                return gearman_job_failure(&packet, failure);
            break;
        case GEARMAN_WORK_WARNING:
            if (wait->note != NULL && gearman_is_about(&packet, handle))
                wait->note(packet.rest, packet.rest_length);
            break;
        case GEARMAN_WORK_STATUS:
            break;
        default:
            return gearman_unexpected(&packet, failure);
        }
    }
}
