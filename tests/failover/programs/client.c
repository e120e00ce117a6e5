/* A libgearman client of several servers. Usage: client HOST:PORT,HOST:PORT TIMEOUT_MILLISECONDS
   Lines in: "do TEXT" or "bg TEXT". Lines out: "ok RESULT" or "error WHY". */
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
  char line[256];
  if (argc != 3)
    return 2;
  gearman_client_st *client = gearman_client_create(NULL);
  if (gearman_client_add_servers(client, argv[1]) != GEARMAN_SUCCESS)
    return 2;
  gearman_client_set_timeout(client, atoi(argv[2]));
  setvbuf(stdout, NULL, _IOLBF, 0);
  while (fgets(line, sizeof(line), stdin)) {
    size_t size = strcspn(line, "\n"), result_size = 0;
    gearman_return_t ret;
    if (!strncmp(line, "do ", 3)) {
      void *result = gearman_client_do(client, "reverse", NULL, line + 3, size - 3, &result_size, &ret);
      if (ret == GEARMAN_SUCCESS)
        printf("ok %.*s\n", (int)result_size, (const char *)result);
      free(result);
    } else {
      gearman_job_handle_t handle;
      ret = gearman_client_do_background(client, "reverse", NULL, line + 3, size - 3, handle);
      if (ret == GEARMAN_SUCCESS)
        printf("ok %s\n", handle);
    }
    if (ret != GEARMAN_SUCCESS)
      printf("error %s\n", gearman_strerror(ret));
  }
  return 0;
}
