/* How a function tells what went wrong. */

#ifndef REPORT_H
#define REPORT_H

#include "gearman_connection.h"

/* Tell the database server: as an SQL error, or as a warning and NULL. Sets *is_null or *error for the server. */
void report(const char *function, const struct gearman_failure *failure, bool is_sql_error, unsigned char *is_null,
            unsigned char *error);

/* A worker's warning becomes a note of the statement. */
void report_note(const unsigned char *text, size_t length);

/* Copy what can be shown: UTF-8, on one line, at most size - 1 bytes; other bytes become question marks. */
void report_showable(char *place, size_t size, const unsigned char *text, size_t length);

#endif
