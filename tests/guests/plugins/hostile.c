/* A plugin that says it is the system registers and breaks one rule of the plugin ABI, chosen at compile time, as soon as the guest reads
 * or writes one of its registers. */
#include "reprise_device.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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
