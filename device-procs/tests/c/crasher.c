/* A plugin that goes wrong on demand: a write of 1 to offset 0 breaks its spec, of 2 writes through a null pointer, of 3 makes a file. */
#include "reprise_device.h"

#include <fcntl.h>
#include <stdlib.h>

static const RepriseRegister registers[] = {{.name = "DOOM", .section = "", .sizes = 4}};
static const RepriseSpec spec = {.version = "1.0", .window = 0x1000, .registers = registers, .register_count = 1};

static void *create(RepriseBytes config, RepriseError *error) {
    (void)config;
    (void)error;
    return malloc(1);
}

static void *restore(RepriseBytes config, RepriseBytes state, RepriseError *error) {
    (void)state;
    return create(config, error);
}

static const RepriseSpec *get_spec(const void *device) {
    (void)device;
    return &spec;
}

static int32_t step(void *device, uint64_t now, const RepriseEvent *event, const RepriseEffects *fx) {
    (void)device;
    (void)now;
    if (event->kind == REPRISE_EVENT_READ)
        fx->reply(fx->ctx, event->tag, 7);
    if (event->kind == REPRISE_EVENT_WRITE && event->value == 1)
        fx->line(fx->ctx, 3, true);
    if (event->kind == REPRISE_EVENT_WRITE && event->value == 2)
        *(volatile int *)0 = 1;
    if (event->kind == REPRISE_EVENT_WRITE && event->value == 3)
        fx->publish(fx->ctx, (uint16_t)open("/tmp/reprise-must-not-exist", O_CREAT | O_WRONLY, 0600), 0);
    return 0;
}

static int32_t save(const void *device, const RepriseSink *out) {
    (void)device;
    (void)out;
    return 0;
}

static uint64_t want(const void *device, uint32_t port) {
    (void)device;
    (void)port;
    return 0;
}

static const RepriseVtable vtable = {
    .abi_version = REPRISE_ABI_VERSION,
    .vtable_size = sizeof(RepriseVtable),
    .event_size = sizeof(RepriseEvent),
    .effects_size = sizeof(RepriseEffects),
    .spec_size = sizeof(RepriseSpec),
    .register_size = sizeof(RepriseRegister),
    .kind = "crasher",
    .create = create,
    .restore = restore,
    .destroy = free,
    .spec = get_spec,
    .step = step,
    .save = save,
    .want = want,
};

const RepriseVtable *reprise_plugin(void) { return &vtable; }
