/* A plugin that says it is the system registers and breaks one rule of the plugin ABI, chosen at compile time, as soon as the guest reads
 * or writes one of its registers. */
#define _GNU_SOURCE
#include "reprise_device.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const RepriseRegister registers[] = {
    {.name = "COUNTER", .section = "hostile.c", .offset = 0x5c, .sizes = 4, .access = REPRISE_ACCESS_READ_ONLY},
};
static const RepriseShadow shadows[] = {{"NOTHING", 0}};
static const char *const outputs[] = {"poweroff", "reset"};
static const ReprisePort ports[] = {{"port", REPRISE_PORT_BOTH}};
static const RepriseSpec spec = {
    .version = "1.0", .window = 0x1000, .registers = registers, .shadows = shadows, .outputs = outputs, .ports = ports,
    .register_count = 1, .shadow_count = 1, .output_count = 2, .port_count = 1, .timer_count = 1,
};

static void *make(RepriseBytes config, RepriseError *error) {
    (void)config;
    (void)error;
    return calloc(1, 8);
}
static void *restore(RepriseBytes config, RepriseBytes state, RepriseError *error) {
    (void)state;
    return make(config, error);
}
static void destroy(void *device) { free(device); }
static const RepriseSpec *get_spec(const void *device) {
    (void)device;
    return &spec;
}
static uint64_t want(const void *device, uint32_t port) {
    (void)device;
    (void)port;
    return 0;
}
static int32_t save(const void *device, const RepriseSink *out) {
    out->write(out->ctx, device, 8);
    return 0;
}

#if defined(REWRITE)
/* The channel's pages that this process may write, found while files can still be read. */
static volatile uint64_t *pages;
static size_t words;

__attribute__((constructor)) static void find_pages(void) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (strstr(line, "/dev/shm/reprise-") && strstr(line, " rw-s") && sscanf(line, "%lx-%lx", &from, &to) == 2 && to - from > words * 8) {
            pages = (volatile uint64_t *)from;
            words = (to - from) / 8;
        }
    }
}
#endif

static int32_t misbehave(const RepriseEvent *event, const RepriseEffects *fx) {
    (void)event;
    (void)fx;
#if defined(NO_REPLY)
    return 0;
#elif defined(TWO_REPLIES)
    fx->reply(fx->ctx, event->tag, 1);
    fx->reply(fx->ctx, event->tag, 2);
#elif defined(WRONG_TAG)
    fx->reply(fx->ctx, event->tag + 1, 1);
#elif defined(WILD_PIN)
    fx->line(fx->ctx, 0xffffffff, true);
#elif defined(WILD_TIMER)
    fx->arm(fx->ctx, 1000, 1);
#elif defined(WILD_SHADOW)
    fx->publish(fx->ctx, 0xffff, 1);
#elif defined(WILD_PORT)
    fx->host_out(fx->ctx, 77, (const uint8_t *)"x", 1);
#elif defined(HUGE_OUTPUT)
    fx->host_out(fx->ctx, 0, (const uint8_t *)"x", SIZE_MAX / 2);
#elif defined(FAIL)
    return -1;
#elif defined(CRASH)
    *(volatile int *)8 = 1;
#elif defined(EXIT)
    _exit(0);
#elif defined(OPEN)
    /* The sandbox kills the process for this. */
    if (open("/etc/passwd", O_RDONLY) >= 0)
        fx->reply(fx->ctx, event->tag, 1);
#elif defined(CONNECT)
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(22), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to) == 0)
        fx->reply(fx->ctx, event->tag, 1);
#elif defined(PTRACE)
    if (ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0)
        fx->reply(fx->ctx, event->tag, 1);
#elif defined(SIGNAL)
    if (kill(getppid(), SIGKILL) == 0)
        fx->reply(fx->ctx, event->tag, 1);
#elif defined(PEEK)
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    if (process_vm_readv(getppid(), &here, 1, &there, 1, 0) >= 0)
        fx->reply(fx->ctx, event->tag, 1);
#elif defined(MAP)
    /* Whatever this process was given, the channel's and the estate's memory among it. */
    for (int fd = 3; fd < 64; fd++)
        if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
            fx->reply(fx->ctx, event->tag, 1);
#elif defined(TRUNCATE)
    for (int fd = 3; fd < 64; fd++)
        if (ftruncate(fd, 0) == 0)
            fx->reply(fx->ctx, event->tag, 1);
#elif defined(DMA)
    const RepriseDmaRead all = {0x80000000, 4096};
    fx->dma(fx->ctx, 1, &all, 1, NULL, 0);
    fx->reply(fx->ctx, event->tag, 1);
#elif defined(REWRITE)
    /* Slots that were read, cursors, all of it. */
    for (size_t i = 0; i < words; i++)
        pages[i] = ~pages[i];
    fx->reply(fx->ctx, event->tag, 1);
#elif defined(FLOOD)
    static int times;
    for (int i = 0; i < 4000 && times < 75; i++)
        fx->publish(fx->ctx, 0, i & 1);
    times++;
    fx->reply(fx->ctx, event->tag, 1);
#elif defined(LOOP)
    for (;;)
        ;
#elif defined(SLEEP)
    const struct timespec long_time = {1000, 0};
    for (;;)
        nanosleep(&long_time, NULL);
#endif
    return 0;
}

static int32_t step(void *device, uint64_t now, const RepriseEvent *event, const RepriseEffects *fx) {
    (void)device;
    (void)now;
    if (event->kind == REPRISE_EVENT_READ || event->kind == REPRISE_EVENT_WRITE)
        return misbehave(event, fx);
    return 0;
}

static const RepriseVtable vtable = {
    .abi_version = REPRISE_ABI_VERSION,
    .vtable_size = sizeof(RepriseVtable),
    .event_size = sizeof(RepriseEvent),
    .effects_size = sizeof(RepriseEffects),
    .spec_size = sizeof(RepriseSpec),
    .register_size = sizeof(RepriseRegister),
    .kind = "vexpress-sysreg",
    .create = make,
    .restore = restore,
    .destroy = destroy,
    .spec = get_spec,
    .step = step,
    .save = save,
    .want = want,
};

const RepriseVtable *reprise_plugin(void) { return &vtable; }
