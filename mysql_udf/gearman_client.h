/* What a client asks of a Gearman server over one connection, and what the answers mean.
 *
 * All that take a failure return false with it set; after REFUSED and FAILED the connection can be used further.
 * Not here: several servers and kept connections (gearman_servers.h), SQL.
 */

#ifndef GEARMAN_CLIENT_H
#define GEARMAN_CLIENT_H

#include "gearman_connection.h"

enum {
    GEARMAN_FUNCTION_MAX = 512, /* bytes */
    GEARMAN_UNIQUE_MAX = 64,
};

struct gearman_job {
    enum gearman_packet_type submit; /* one of the SUBMIT_JOB types */
    const char *function;
    size_t function_length;
    const char *unique; /* empty: never coalesced */
    size_t unique_length;
    const char *workload;
    size_t workload_length;
    int64_t epoch; /* of SUBMIT_JOB_EPOCH */
};

struct gearman_status {
    bool known;
    bool running;
    unsigned long numerator;
    unsigned long denominator;
};

/* Refuse what cannot be a packet; what follows relies on it. */
bool gearman_check_job(const struct gearman_job *job, struct gearman_failure *failure);

/* Ask for the texts of failed jobs; also the proof that a Gearman server answers. */
bool gearman_greet(struct gearman_connection *connection, struct gearman_wait *wait, struct gearman_failure *failure);
bool gearman_echo(struct gearman_connection *connection, struct gearman_wait *wait, struct gearman_failure *failure);
bool gearman_version(struct gearman_connection *connection, struct gearman_wait *wait, char *version, size_t size,
                  struct gearman_failure *failure);
bool gearman_get_status(struct gearman_connection *connection, struct gearman_wait *wait, const char *handle, size_t length,
                     struct gearman_status *status, struct gearman_failure *failure);

/* Submit a job; handle has GEARMAN_HANDLE_SIZE bytes. For a background job that is all. */
bool gearman_submit(struct gearman_connection *connection, struct gearman_wait *wait, const struct gearman_job *job, char *handle,
                 struct gearman_failure *failure);
/* Wait for the result of the foreground job with this handle: WORK_DATA and WORK_COMPLETE, one after the other. */
bool gearman_result(struct gearman_connection *connection, struct gearman_wait *wait, const char *handle, size_t limit,
                 struct gearman_bytes *result, struct gearman_failure *failure);

/* For those that have several jobs under way (gearman_sum.c): a part of gearman_submit, and what packets mean. */
bool gearman_submit_some(struct gearman_connection *connection, const struct gearman_job *job, size_t *sent, bool *complete,
                      struct gearman_failure *failure);
bool gearman_read_handle(const struct gearman_packet *packet, char *handle, struct gearman_failure *failure);
bool gearman_is_about(const struct gearman_packet *packet, const char *handle);
/* These set the failure that a packet is, and return false. */
bool gearman_refusal(const struct gearman_packet *packet, struct gearman_failure *failure);
bool gearman_job_failure(const struct gearman_packet *packet, struct gearman_failure *failure);
bool gearman_unexpected(const struct gearman_packet *packet, struct gearman_failure *failure);

#endif
