/* One connection to a Gearman server: bytes out, packets in.
 *
 * Every wait ends at a deadline or when the caller's statement is killed, whatever the server does: silence, a drip of
 * bytes, garbage, a flood. Memory is taken as bytes come, up to a limit, not as a header claims.
 *
 * Functions keep no state of their own; a connection belongs to one thread at a time. All that take a failure return
 * false (or NULL) with the failure set; the connection is of no more use then.
 */

#ifndef GEARMAN_CONNECTION_H
#define GEARMAN_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    GEARMAN_HANDLE_MAX = 63, /* bytes */
    GEARMAN_HANDLE_SIZE = GEARMAN_HANDLE_MAX + 1,
    GEARMAN_TEXT_SIZE = 400, /* of a failure's text, with its NUL */
};

#define GEARMAN_SECOND INT64_C(1000000000)

enum gearman_error {
    GEARMAN_OK,
    GEARMAN_REFUSED,     /* the server answered with ERROR; the connection can be used further, as after FAILED */
    GEARMAN_FAILED,      /* the worker said that the job failed */
    GEARMAN_BAD_CALL,    /* the arguments are at fault; nothing was sent */
    GEARMAN_UNREACHABLE, /* no connection; nothing was sent */
    GEARMAN_BUSY,        /* as UNREACHABLE, but the server is not at fault */
    GEARMAN_TIMEOUT,     /* what was sent may have been carried out, as with all that follow */
    GEARMAN_LOST,        /* the connection broke or was closed */
    GEARMAN_GARBAGE,     /* the server sent what is no Gearman, or answers nothing */
    GEARMAN_TOO_LARGE,   /* the result exceeds the limit */
    GEARMAN_NO_MEMORY,
    GEARMAN_KILLED, /* the caller is not wanted any more */
};

struct gearman_failure {
    enum gearman_error error;
    char text[GEARMAN_TEXT_SIZE]; /* ends with NUL; may hold any bytes that the peer sent */
};

/* How long to wait, and whom to ask and tell meanwhile. */
struct gearman_wait {
    int64_t deadline;                            /* as gearman_now gives it */
    int64_t ask_at;                              /* when is_killed is asked next; start with 0 */
    bool (*is_killed)(void);                     /* NULL: never */
    void (*note)(const unsigned char *, size_t); /* a worker's warning; NULL: dropped */
};

/* Bytes on the heap that grow as they come. */
struct gearman_bytes {
    unsigned char *data;
    size_t length;
    size_t size;
};

struct gearman_connection {
    struct gearman_connection *next; /* of those kept for a server */
    int fd;          /* -1: closed */
    int64_t used_at; /* as gearman_now gives it */
    size_t start;    /* received[start..end) is not yet read */
    size_t end;
    struct gearman_bytes body; /* of the last packet */
    unsigned char received[4096];
};

enum gearman_packet_type {
    GEARMAN_SUBMIT_JOB = 7,
    GEARMAN_JOB_CREATED = 8,
    GEARMAN_WORK_STATUS = 12,
    GEARMAN_WORK_COMPLETE = 13,
    GEARMAN_WORK_FAIL = 14,
    GEARMAN_GET_STATUS = 15,
    GEARMAN_ECHO_REQ = 16,
    GEARMAN_ECHO_RES = 17,
    GEARMAN_SUBMIT_JOB_BG = 18,
    GEARMAN_ERROR = 19,
    GEARMAN_STATUS_RES = 20,
    GEARMAN_SUBMIT_JOB_HIGH = 21,
    GEARMAN_WORK_EXCEPTION = 25,
    GEARMAN_OPTION_REQ = 26,
    GEARMAN_OPTION_RES = 27,
    GEARMAN_WORK_DATA = 28,
    GEARMAN_WORK_WARNING = 29,
    GEARMAN_SUBMIT_JOB_HIGH_BG = 32,
    GEARMAN_SUBMIT_JOB_LOW = 33,
    GEARMAN_SUBMIT_JOB_LOW_BG = 34,
    GEARMAN_SUBMIT_JOB_EPOCH = 36,
    GEARMAN_TYPE_MAX = 42,
};

/* A packet as received; both parts live in the connection until the next one. */
struct gearman_packet {
    uint32_t type;
    const unsigned char *first; /* the argument before the first NUL, or all */
    size_t first_length;
    const unsigned char *rest; /* what follows that NUL */
    size_t rest_length;
};

int64_t gearman_now(void); /* monotonic nanoseconds */
int64_t gearman_earlier(int64_t one, int64_t other);
/* When to end the next of so many things to be done by the deadline. */
int64_t gearman_share(int64_t deadline, size_t things);

/* Both return false always, so that a function can end with them. */
bool gearman_set_failure(struct gearman_failure *failure, enum gearman_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool gearman_no_memory(struct gearman_failure *failure);

bool gearman_append(struct gearman_bytes *bytes, const void *data, size_t length); /* false: no memory */
void gearman_free(struct gearman_bytes *bytes);

/* Wait for events of poll(); *found are those that came. */
bool gearman_wait_for(int fd, short events, struct gearman_wait *wait, short *found, struct gearman_failure *failure);

struct gearman_connection *gearman_open(const struct sockaddr *address, socklen_t length, struct gearman_wait *wait,
                                  struct gearman_failure *failure);
void gearman_close(struct gearman_connection *connection);          /* NULL is fine */
bool gearman_is_quiet(const struct gearman_connection *connection); /* nothing has come, not even the end */

/* Send prefix and data as if they were one. The first sends what the kernel takes at once, from *sent on. */
bool gearman_send_some(const struct gearman_connection *connection, const void *prefix, size_t prefix_length, const void *data,
                    size_t data_length, size_t *sent, struct gearman_failure *failure);
bool gearman_send(struct gearman_connection *connection, struct gearman_wait *wait, const void *prefix, size_t prefix_length,
               const void *data, size_t data_length, struct gearman_failure *failure);

/* Receive until at least size bytes wait in the buffer, which must have room for them. */
bool gearman_fill(struct gearman_connection *connection, struct gearman_wait *wait, size_t size, struct gearman_failure *failure);
/* limit: bytes of a result, a worker's text; other packets have a small limit of their own. */
bool gearman_receive(struct gearman_connection *connection, struct gearman_wait *wait, size_t limit, struct gearman_packet *packet,
                  struct gearman_failure *failure);
/* GARBAGE, with the bytes that wait in the buffer. */
bool gearman_garbage(const struct gearman_connection *connection, struct gearman_failure *failure);

#endif
