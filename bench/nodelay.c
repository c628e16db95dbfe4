/* Sets TCP_NODELAY on every connection of a program that does not: without it, DCMTK spends
 * most of its time waiting for delayed acknowledgements, and the comparison would be unfair. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int nodelay(int fd) {
    int one = 1;
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}
int accept(int fd, struct sockaddr *address, socklen_t *size) {
    int (*next)(int, struct sockaddr *, socklen_t *) = dlsym(RTLD_NEXT, "accept");
    return nodelay(next(fd, address, size));
}
int connect(int fd, const struct sockaddr *address, socklen_t size) {
    int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    nodelay(fd);
    return next(fd, address, size);
}
