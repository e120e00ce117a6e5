/* What the functions want of the database server that loaded them: warnings, errors, and whether the statement was killed.
 *
 * Neither MariaDB nor MySQL offers these to functions in C by a header; their symbols are looked up when the library is
 * loaded. Where one is missing, the server is not told, and a wait ends at its timeout only.
 */

#ifndef DATABASE_SERVER_H
#define DATABASE_SERVER_H

#include <stdbool.h>

bool database_is_killed(void); /* by KILL QUERY, KILL, max_statement_time, max_execution_time, shutdown */

/* Add a condition to the statement; text ends with NUL and is UTF-8. False: the server has no such call. */
bool database_note(const char *text);
bool database_warn(const char *text);
bool database_raise(const char *text); /* an SQL error: the statement fails */
bool database_interrupt(void);         /* the error of a killed statement, which the server would not always give */

#endif
