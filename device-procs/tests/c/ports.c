/* A plugin with several ports, each of which sends back what comes in.
 *
 * offset  register
 * 0x00    OPEN   bit n: port n takes input. Read: bytes that have come in on all ports
 * 0x04    SAY    write b: the byte goes out on ports 2, 0 and 1, in this order
 */
#include "reprise_device.h"

#include <stdlib.h>
#include <string.h>

#define PORTS 3
/* Most input that is wanted on a port at a time. */
#define MOST 1000

/* Saved as it is: no pointers, no padding. */
typedef struct Device {
    uint32_t open;
    uint32_t taken;
} Device;

static const RepriseRegister registers[] = {
    {.name = "OPEN", .section = "ports.c", .offset = 0x00, .sizes = 4, .access = REPRISE_ACCESS_READ_WRITE},
    {.name = "SAY", .section = "ports.c", .offset = 0x04, .sizes = 4, .access = REPRISE_ACCESS_WRITE_ONLY},
};
static const ReprisePort ports[] = {
    {"main", REPRISE_PORT_BOTH},
    {"left", REPRISE_PORT_BOTH},
    {"org.right", REPRISE_PORT_BOTH},
    {"frames", REPRISE_PORT_BOTH, REPRISE_FRAMING_PACKETS},
};
static const RepriseSpec spec = {
    .version = "1.0", .window = 0x1000, .registers = registers, .register_count = 2, .ports = ports, .port_count = 4,
};

static void *create(RepriseBytes config, RepriseError *error) {
    (void)config;
    (void)error;
    return calloc(1, sizeof(Device));
}

static void *restore(RepriseBytes config, RepriseBytes state, RepriseError *error) {
    Device *device = create(config, error);
    if (state.len != sizeof *device) {
        free(device);
        return NULL;
    }
    memcpy(device, state.data, sizeof *device);
    return device;
}

static const RepriseSpec *get_spec(const void *device) {
    (void)device;
    return &spec;
}

static uint64_t want(const void *device, uint32_t port) {
    return port < PORTS && ((const Device *)device)->open >> port & 1 ? MOST : 0;
}

static int32_t step(void *object, uint64_t now, const RepriseEvent *event, const RepriseEffects *fx) {
    Device *device = object;
    (void)now;
    if (event->kind == REPRISE_EVENT_RESET)
        memset(device, 0, sizeof *device);
    if (event->kind == REPRISE_EVENT_READ)
        fx->reply(fx->ctx, event->tag, event->offset == 0 ? device->taken : 0);
    if (event->kind == REPRISE_EVENT_WRITE && event->offset == 0)
        device->open = (uint32_t)event->value;
    if (event->kind == REPRISE_EVENT_WRITE && event->offset == 4) {
        uint8_t byte = (uint8_t)event->value;
        fx->host_out(fx->ctx, 2, &byte, 1);
        fx->host_out(fx->ctx, 0, &byte, 1);
        fx->host_out(fx->ctx, 1, &byte, 1);
    }
    if (event->kind == REPRISE_EVENT_HOST) {
        device->taken += (uint32_t)event->data.len;
        fx->host_out(fx->ctx, (uint32_t)event->offset, event->data.data, event->data.len);
    }
    for (uint32_t port = 0; port < PORTS; port++)
        fx->host_want(fx->ctx, port, want(device, port));
    return 0;
}

static int32_t save(const void *device, const RepriseSink *out) {
    out->write(out->ctx, device, sizeof(Device));
    return 0;
}

static const RepriseVtable vtable = {
    .abi_version = REPRISE_ABI_VERSION,
    .vtable_size = sizeof(RepriseVtable),
    .event_size = sizeof(RepriseEvent),
    .effects_size = sizeof(RepriseEffects),
    .spec_size = sizeof(RepriseSpec),
    .register_size = sizeof(RepriseRegister),
    .kind = "ports",
    .create = create,
    .restore = restore,
    .destroy = free,
    .spec = get_spec,
    .step = step,
    .save = save,
    .want = want,
};

const RepriseVtable *reprise_plugin(void) { return &vtable; }
