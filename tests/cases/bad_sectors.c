/* A scratched disc: reads of a file called ..._EIO<n> fail at and behind its byte n.
 * cc -shared -fPIC -o bad_sectors.so bad_sectors.c -ldl; LD_PRELOAD=./bad_sectors.so emix ... */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the first bad byte of an open file is; -1 if it has none. */
static off_t first_bad_byte(int fd)
{
    char link[32], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length <= 0)
        return -1;
    path[length] = '\0';
    const char *mark = strstr(path, "_EIO");
    return mark == NULL ? -1 : (off_t)strtoll(mark + 4, NULL, 10);
}

ssize_t read(int fd, void *buffer, size_t count)
{
    static ssize_t (*next)(int, void *, size_t);
    if (next == NULL)
        next = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    off_t bad = first_bad_byte(fd);
    if (bad >= 0) {
        off_t here = lseek(fd, 0, SEEK_CUR);
        if (here >= bad) {
            errno = EIO;
            return -1;
        }
        if ((off_t)count > bad - here)
            count = (size_t)(bad - here);
    }
    return next(fd, buffer, count);
}
