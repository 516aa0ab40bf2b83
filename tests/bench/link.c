/* link DELAY_MS LOSS_PERCENT SEED: join the TUN devices sdpx0 and sdpx1, which it creates, by a path with a delay and random
 * loss in each direction. Packets of up to SMALL bytes, as of the connectivity checks, are never lost. Writes a line when the
 * devices exist, and ends with its input. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 8192, LARGEST = 1600, SMALL = 60, TURN = 64 };

struct packet {
    uint64_t due;
    int size;
    unsigned char bytes[LARGEST];
};

struct direction {
    int from, to;
    unsigned first, next; /* packets on their way: a ring */
    struct packet *ring;
};

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int device(const char *name) {
    struct ifreq request = {0};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) {
        perror("link: /dev/net/tun");
        exit(1);
    }
    return fd;
}

static void deliver(struct direction *way, uint64_t time) {
    while (way->first != way->next && way->ring[way->first % SLOTS].due <= time) {
        struct packet *packet = &way->ring[way->first++ % SLOTS];
        if (write(way->to, packet->bytes, (size_t)packet->size) < 0 && errno != EAGAIN && errno != EIO && errno != EBADFD)
            perror("link: write");
    }
}

static void accept_packets(struct direction *way, uint64_t time, uint64_t delay, double loss) {
    for (int count = 0; count < TURN; count++) {
        struct packet *packet = &way->ring[way->next % SLOTS];
        packet->size = (int)read(way->from, packet->bytes, LARGEST);
        if (packet->size <= 0)
            return;
        if ((packet->size > SMALL && drand48() < loss) || way->next - way->first == SLOTS - 1)
            continue;
        packet->due = time + delay;
        way->next++;
    }
}

int main(int count, char **arguments) {
    if (count != 4)
        return 2;
    uint64_t delay = (uint64_t)(atof(arguments[1]) * 1e6);
    double loss = atof(arguments[2]) / 100;
    srand48(atol(arguments[3]));
    int a = device("sdpx0"), b = device("sdpx1");
    struct direction ways[] = {{.from = a, .to = b}, {.from = b, .to = a}};
    for (int i = 0; i < 2; i++)
        ways[i].ring = malloc(sizeof(struct packet) * SLOTS);
    puts("ready");
    fflush(stdout);
    for (;;) {
        uint64_t time = now(), wait = 1000000000u;
        for (int i = 0; i < 2; i++) {
            deliver(&ways[i], time);
            if (ways[i].first != ways[i].next) {
                uint64_t due = ways[i].ring[ways[i].first % SLOTS].due;
                uint64_t left = due > time ? due - time : 0;
                wait = left < wait ? left : wait;
            }
        }
        struct pollfd ready[] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {0, POLLIN, 0}};
        struct timespec timeout = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        if (ppoll(ready, 3, &timeout, NULL) <= 0)
            continue;
        if (ready[2].revents)
            return 0;
        time = now();
        for (int i = 0; i < 2; i++)
            if (ready[i].revents & POLLIN)
                accept_packets(&ways[i], time, delay, loss);
    }
}
