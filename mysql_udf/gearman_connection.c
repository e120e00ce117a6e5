#include "gearman_connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    HEADER_SIZE = 12,
    TICK_MILLISECONDS = 100,       /* how often is_killed is asked */
    SMALL_BODY_MAX = 8192,         /* of packets that carry no result or text of a worker */
    BODY_FIRST_SIZE = 16 * 1024,   /* a header may claim any length: memory is taken as the bytes come */
    BODY_KEEP_SIZE = 64 * 1024,    /* more than this is not kept in a connection */
};

static const char RESPONSE_MAGIC[4] = {'\0', 'R', 'E', 'S'};

int64_t gearman_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * GEARMAN_SECOND + now.tv_nsec;
}

int64_t gearman_earlier(int64_t one, int64_t other)
{
    return one < other ? one : other;
}

int64_t gearman_share(int64_t deadline, size_t things)
{
    int64_t now = gearman_now();
    return now + (deadline - now) / (int64_t)things;
}

bool gearman_set_failure(struct gearman_failure *failure, enum gearman_error error, const char *format, ...)
{
    va_list arguments;
    failure->error = error;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
    return false;
}

bool gearman_no_memory(struct gearman_failure *failure)
{
    return gearman_set_failure(failure, GEARMAN_NO_MEMORY, "out of memory");
}

static bool lost(struct gearman_failure *failure, int number)
{
    char buffer[128];
    /* GNU's strerror_r: returns the text, wherever it is. */
    return gearman_set_failure(failure, GEARMAN_LOST, "the connection was lost: %s", strerror_r(number, buffer, sizeof buffer));
}

static bool reserve(struct gearman_bytes *bytes, size_t size)
{
    unsigned char *data;
    if (size <= bytes->size)
        return true;
    data = realloc(bytes->data, size);
    if (data == NULL)
        return false;
    bytes->data = data;
    bytes->size = size;
    return true;
}

bool gearman_append(struct gearman_bytes *bytes, const void *data, size_t length)
{
    size_t wanted = bytes->length + length;
    if (length == 0)
        return true;
    if (wanted > bytes->size && !reserve(bytes, wanted > 2 * bytes->size ? wanted : 2 * bytes->size))
        return false;
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length = wanted;
    return true;
}

void gearman_free(struct gearman_bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct gearman_bytes){0};
}

/* Waiting */

bool gearman_wait_for(int fd, short events, struct gearman_wait *wait, short *found, struct gearman_failure *failure)
{
    for (;;) {
        struct pollfd polled = {.fd = fd, .events = events};
        int64_t now = gearman_now();
        int64_t left = (wait->deadline - now + 999999) / 1000000;
        int ready;
        if (wait->is_killed != NULL && now >= wait->ask_at) {
            if (wait->is_killed())
                return gearman_set_failure(failure, GEARMAN_KILLED, "the statement was killed");
            wait->ask_at = now + TICK_MILLISECONDS * (GEARMAN_SECOND / 1000);
        }
        if (left <= 0)
            return gearman_set_failure(failure, GEARMAN_TIMEOUT, "no answer in time");
        ready = poll(&polled, 1, left < TICK_MILLISECONDS ? (int)left : TICK_MILLISECONDS);
        if (ready > 0) {
            *found = polled.revents;
            return true;
        }
        if (ready < 0 && errno != EINTR && errno != EAGAIN)
            return lost(failure, errno);
    }
}

/* Connections */

static bool connect_socket(int fd, const struct sockaddr *address, socklen_t length, struct gearman_wait *wait,
                           struct gearman_failure *failure)
{
    const int yes = 1;
    int number = 0;
    socklen_t size = sizeof number;
    short found;
    if (connect(fd, address, length) != 0) {
        number = errno;
        if (number == EINPROGRESS || number == EINTR) {
            if (!gearman_wait_for(fd, POLLOUT, wait, &found, failure)) {
                if (failure->error == GEARMAN_TIMEOUT)
                    gearman_set_failure(failure, GEARMAN_UNREACHABLE, "no connection in time");
                return false;
            }
            number = 0;
            if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) != 0)
                number = errno;
        }
    }
    if (number != 0) {
        char buffer[128];
        return gearman_set_failure(failure, GEARMAN_UNREACHABLE, "%s", strerror_r(number, buffer, sizeof buffer));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* without it all is slower, but works */
    return true;
}

struct gearman_connection *gearman_open(const struct sockaddr *address, socklen_t length, struct gearman_wait *wait,
                                  struct gearman_failure *failure)
{
    struct gearman_connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) {
        gearman_no_memory(failure);
        return NULL;
    }
    connection->fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) {
        char buffer[128];
        gearman_set_failure(failure, GEARMAN_BUSY, "no socket: %s", strerror_r(errno, buffer, sizeof buffer));
    } else if (connect_socket(connection->fd, address, length, wait, failure)) {
        connection->used_at = gearman_now();
        return connection;
    }
    gearman_close(connection);
    return NULL;
}

void gearman_close(struct gearman_connection *connection)
{
    if (connection == NULL)
        return;
    if (connection->fd >= 0)
        close(connection->fd);
    gearman_free(&connection->body);
    free(connection);
}

bool gearman_is_quiet(const struct gearman_connection *connection)
{
    char byte;
    if (connection->start != connection->end)
        return false;
    return recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* Sending */

static uint32_t get32(const unsigned char *place)
{
    return (uint32_t)place[0] << 24 | (uint32_t)place[1] << 16 | (uint32_t)place[2] << 8 | place[3];
}

bool gearman_send_some(const struct gearman_connection *connection, const void *prefix, size_t prefix_length, const void *data,
                    size_t data_length, size_t *sent, struct gearman_failure *failure)
{
    while (*sent < prefix_length + data_length) {
        size_t in_data = *sent > prefix_length ? *sent - prefix_length : 0;
        struct iovec parts[2] = {
            {.iov_base = (char *)prefix + (*sent - in_data), .iov_len = prefix_length - (*sent - in_data)},
            {.iov_base = (char *)data + in_data, .iov_len = data_length - in_data},
        };
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = data_length > in_data ? 2 : 1};
        ssize_t count = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
        if (count >= 0)
            *sent += (size_t)count;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return true;
        else if (errno != EINTR)
            return lost(failure, errno);
    }
    return true;
}

bool gearman_send(struct gearman_connection *connection, struct gearman_wait *wait, const void *prefix, size_t prefix_length,
               const void *data, size_t data_length, struct gearman_failure *failure)
{
    size_t sent = 0;
    short found;
    for (;;) {
        if (!gearman_send_some(connection, prefix, prefix_length, data, data_length, &sent, failure))
            return false;
        if (sent == prefix_length + data_length)
            return true;
        if (!gearman_wait_for(connection->fd, POLLOUT, wait, &found, failure))
            return false;
    }
}

/* Receiving */

/* Wait for bytes and put at most size of them into place. */
static bool receive_some(struct gearman_connection *connection, struct gearman_wait *wait, unsigned char *place, size_t size,
                         size_t *count, struct gearman_failure *failure)
{
    for (;;) {
        short found;
        ssize_t received;
        if (!gearman_wait_for(connection->fd, POLLIN, wait, &found, failure))
            return false;
        received = recv(connection->fd, place, size, 0);
        if (received > 0) {
            *count = (size_t)received;
            return true;
        }
        if (received == 0)
            return gearman_set_failure(failure, GEARMAN_LOST, "the server closed the connection");
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return lost(failure, errno);
    }
}

/* Receive until at least size bytes wait in the buffer, which must have room for them. */
bool gearman_fill(struct gearman_connection *connection, struct gearman_wait *wait, size_t size, struct gearman_failure *failure)
{
    while (connection->end - connection->start < size) {
        size_t count;
        if (connection->start > 0) {
            memmove(connection->received, connection->received + connection->start, connection->end - connection->start);
            connection->end -= connection->start;
            connection->start = 0;
        }
        if (!receive_some(connection, wait, connection->received + connection->end,
                          sizeof connection->received - connection->end, &count, failure))
            return false;
        connection->end += count;
    }
    return true;
}

static bool receive_body(struct gearman_connection *connection, struct gearman_wait *wait, size_t length,
                         struct gearman_failure *failure)
{
    struct gearman_bytes *body = &connection->body;
    size_t ready = connection->end - connection->start;
    if (body->size > BODY_KEEP_SIZE && length <= BODY_KEEP_SIZE)
        gearman_free(body);
    body->length = 0;
    if (!gearman_append(body, connection->received + connection->start, ready < length ? ready : length))
        return gearman_no_memory(failure);
    connection->start += body->length;
    while (body->length < length) {
        size_t count;
        if (body->length == body->size) {
            size_t size = body->size < BODY_FIRST_SIZE / 2 ? BODY_FIRST_SIZE : 2 * body->size;
            if (!reserve(body, size < length ? size : length))
                return gearman_no_memory(failure);
        }
        if (!receive_some(connection, wait, body->data + body->length,
                          (body->size < length ? body->size : length) - body->length, &count, failure))
            return false;
        body->length += count;
    }
    return true;
}

/* The bytes of the peer that were no Gearman, as far as they can be printed. */
bool gearman_garbage(const struct gearman_connection *connection, struct gearman_failure *failure)
{
    char shown[41];
    size_t length = connection->end - connection->start;
    length = length < sizeof shown - 1 ? length : sizeof shown - 1;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = connection->received[connection->start + i];
        shown[i] = byte < ' ' || byte > '~' ? '?' : (char)byte;
    }
    shown[length] = 0;
    return gearman_set_failure(failure, GEARMAN_GARBAGE, "the server sent what is no Gearman packet: %s", shown);
}

bool gearman_receive(struct gearman_connection *connection, struct gearman_wait *wait, size_t limit, struct gearman_packet *packet,
                  struct gearman_failure *failure)
{
    const unsigned char *header, *separator;
    size_t length;
    if (!gearman_fill(connection, wait, HEADER_SIZE, failure))
        return false;
    header = connection->received + connection->start;
    packet->type = get32(header + 4);
    length = get32(header + 8);
    if (memcmp(header, RESPONSE_MAGIC, sizeof RESPONSE_MAGIC) != 0 || packet->type == 0 || packet->type > GEARMAN_TYPE_MAX)
        return gearman_garbage(connection, failure);
    if (packet->type != GEARMAN_WORK_COMPLETE && packet->type != GEARMAN_WORK_DATA && packet->type != GEARMAN_WORK_EXCEPTION &&
        packet->type != GEARMAN_WORK_WARNING && length > SMALL_BODY_MAX)
        return gearman_set_failure(failure, GEARMAN_GARBAGE, "the server sent a packet of type %u with %zu bytes",
                                (unsigned)packet->type, length);
    if (length > limit && length - limit > GEARMAN_HANDLE_SIZE)
        return gearman_set_failure(failure, GEARMAN_TOO_LARGE, "the result has more than %zu bytes", limit);
    connection->start += HEADER_SIZE;
    if (!receive_body(connection, wait, length, failure))
        return false;
    packet->first = length > 0 ? connection->body.data : (const unsigned char *)"";
    separator = memchr(packet->first, 0, length);
    packet->first_length = separator == NULL ? length : (size_t)(separator - packet->first);
    packet->rest = separator == NULL ? packet->first + length : separator + 1;
    packet->rest_length = length - (size_t)(packet->rest - packet->first);
    connection->used_at = gearman_now();
    return true;
}
