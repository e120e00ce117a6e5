/* Uniques for background jobs that were given none.
 *
 * gearmand stores background jobs by function and unique: of two with an empty one, its SQLite queue overwrites the first
 * and the others refuse the second. libgearman makes up a UUID for the same reason. These ascend with time, as UUID version
 * 7 does, which is what an index takes best.
 */

#ifndef UNIQUE_H
#define UNIQUE_H

enum { UNIQUE_SIZE = 37 };

void unique_make(char *place);

#endif
