/* A small device in C: scratch registers, a one-shot timer with an interrupt, an echo port and a DMA copier.
 *
 * offset  register
 * 0x00    ID       read-only, 0x43
 * 0x04    SCRATCH  read and write, posted, shadow 0
 * 0x08    TIMER    write n > 0: interrupt in n us; write 0: stop it, lower the line
 * 0x0c    STATUS   bit 0: the timer has come. A write of 1 clears it. Shadow 1
 * 0x10    COUNT    bytes echoed so far; a read clears it
 * 0x14    MHZ      counts 1 MHz
 * 0x18    COPY     write a: copies 8 bytes from a to a + 8 by DMA; read: how many copies are done
 */
#include "reprise_device.h"

#include <stdlib.h>
#include <string.h>

/* The tests also build broken versions of this plugin. */
#ifndef TOY_ABI_VERSION
#define TOY_ABI_VERSION REPRISE_ABI_VERSION
#endif
#ifndef TOY_EVENT_SIZE
#define TOY_EVENT_SIZE sizeof(RepriseEvent)
#endif

#define MAX_DELAY_US 1000000u

/* Saved as it is: no pointers, no padding. */
typedef struct Toy {
    uint32_t magic;
    uint32_t scratch;
    uint32_t status;
    uint32_t count;
    uint32_t copies;
    uint32_t copying;
    uint64_t copy_to;
} Toy;

#define TOY_MAGIC 0x31594f54u

static const uint16_t scratch_changes[] = {0};

static const RepriseRegister registers[] = {
    {.name = "ID", .section = "toy.c", .offset = 0x00, .reset = 0x43, .read_arg = 0x43, .sizes = 4,
     .access = REPRISE_ACCESS_READ_ONLY, .read_policy = REPRISE_READ_CONST, .write_policy = REPRISE_WRITE_POSTED},
    {.name = "SCRATCH", .section = "toy.c", .offset = 0x04, .shadows = scratch_changes, .shadow_count = 1, .sizes = 4,
     .access = REPRISE_ACCESS_READ_WRITE, .read_policy = REPRISE_READ_SHADOW, .read_arg = 0,
     .write_policy = REPRISE_WRITE_POSTED},
    {.name = "TIMER", .section = "toy.c", .offset = 0x08, .sizes = 4, .access = REPRISE_ACCESS_WRITE_ONLY},
    {.name = "STATUS", .section = "toy.c", .offset = 0x0c, .sizes = 4, .access = REPRISE_ACCESS_READ_WRITE,
     .read_policy = REPRISE_READ_SHADOW, .read_arg = 1},
    {.name = "COUNT", .section = "toy.c", .offset = 0x10, .sizes = 4, .access = REPRISE_ACCESS_READ_ONLY},
    {.name = "MHZ", .section = "toy.c", .offset = 0x14, .sizes = 4, .access = REPRISE_ACCESS_READ_ONLY,
     .read_policy = REPRISE_READ_CLOCK, .read_arg = 1000000},
    {.name = "COPY", .section = "toy.c", .offset = 0x18, .sizes = 4, .access = REPRISE_ACCESS_READ_WRITE},
};

static const RepriseShadow shadows[] = {{"SCRATCH", 0}, {"STATUS", 0}};
static const char *const outputs[] = {"irq"};
static const ReprisePort ports[] = {{"echo", REPRISE_PORT_BOTH}};

static const RepriseSpec spec = {
    .version = "1.0",
    .window = 0x1000,
    .registers = registers,
    .shadows = shadows,
    .outputs = outputs,
    .ports = ports,
    .register_count = sizeof registers / sizeof registers[0],
    .shadow_count = 2,
    .output_count = 1,
    .port_count = 1,
    .timer_count = 1,
};

static void *complain(RepriseError *error, const char *text) {
    error->length = strlen(text) < error->capacity ? strlen(text) : error->capacity;
    memcpy(error->text, text, error->length);
    error->line = error->column = 1;
    return NULL;
}

static void *toy_create(RepriseBytes config, RepriseError *error) {
    if (config.len != 2 || memcmp(config.data, "()", 2) != 0)
        return complain(error, "the toy takes no config: write ()");
    Toy *toy = calloc(1, sizeof *toy);
    if (!toy)
        return complain(error, "out of memory");
    toy->magic = TOY_MAGIC;
    return toy;
}

static void *toy_restore(RepriseBytes config, RepriseBytes state, RepriseError *error) {
    Toy *toy = toy_create(config, error);
    if (!toy)
        return NULL;
    if (state.len == sizeof *toy) {
        memcpy(toy, state.data, sizeof *toy);
        if (toy->magic == TOY_MAGIC && toy->status <= 1 && toy->copying <= 1)
            return toy;
    }
    free(toy);
    return complain(error, "this is not the state of a toy");
}

static void toy_destroy(void *device) { free(device); }

static const RepriseSpec *toy_spec(const void *device) {
    (void)device;
    return &spec;
}

static uint64_t toy_want(const void *device, uint32_t port) {
    const Toy *toy = device;
    return port == 0 ? 1000 - toy->count % 1000 : 0;
}

static void set_status(Toy *toy, const RepriseEffects *fx, uint32_t status) {
    if (toy->status == status)
        return;
    toy->status = status;
    fx->publish(fx->ctx, 1, status);
    fx->line(fx->ctx, 0, status != 0);
}

static void toy_reset(Toy *toy, const RepriseEffects *fx) {
    set_status(toy, fx, 0);
    fx->disarm(fx->ctx, 0);
    fx->publish(fx->ctx, 0, 0);
    memset(toy, 0, sizeof *toy);
    toy->magic = TOY_MAGIC;
    fx->host_want(fx->ctx, 0, 1000);
}

static uint64_t toy_read(Toy *toy, uint64_t now, uint64_t offset, uint32_t size, const RepriseEffects *fx) {
    if (size != 4)
        return 0;
    switch (offset) {
    case 0x00: return 0x43;
    case 0x04: return toy->scratch;
    case 0x0c: return toy->status;
    case 0x10: {
        uint32_t count = toy->count;
        toy->count = 0;
        fx->host_want(fx->ctx, 0, 1000);
        return count;
    }
    case 0x14: return (uint32_t)(now / 1000);
    case 0x18: return toy->copies;
    default: return 0;
    }
}

static void toy_write(Toy *toy, uint64_t now, const RepriseEvent *event, const RepriseEffects *fx) {
    uint32_t value = (uint32_t)event->value;
    if (event->size != 4)
        return;
    switch (event->offset) {
    case 0x04:
        toy->scratch = value;
        fx->publish(fx->ctx, 0, value);
        break;
    case 0x08:
        if (value) {
            uint64_t at = now + 1000ull * (value < MAX_DELAY_US ? value : MAX_DELAY_US);
            fx->arm(fx->ctx, 0, at < now ? UINT64_MAX : at);
        } else {
            fx->disarm(fx->ctx, 0);
            set_status(toy, fx, 0);
        }
        break;
    case 0x0c:
        set_status(toy, fx, toy->status & ~value);
        break;
    case 0x18:
        if (!toy->copying) {
            RepriseDmaRead read = {value, 8};
            toy->copying = 1;
            toy->copy_to = (uint64_t)value + 8;
            fx->dma(fx->ctx, 1, &read, 1, NULL, 0);
        }
        break;
#ifdef TOY_FAULT
    case 0x1c:
        fx->line(fx->ctx, 7, true);
        break;
#endif
    }
}

static void toy_dma_done(Toy *toy, const RepriseEvent *event, const RepriseEffects *fx) {
    if (!toy->copying)
        return;
    if (event->tag == 1 && event->data.len == 8) {
        RepriseDmaWrite write = {.addr = toy->copy_to, .data = event->data, .disk = REPRISE_NO_DISK};
        fx->dma(fx->ctx, 2, NULL, 0, &write, 1);
    } else if (event->tag == 2) {
        toy->copying = 0;
        toy->copies++;
    }
}

static int32_t toy_step(void *device, uint64_t now, const RepriseEvent *event, const RepriseEffects *fx) {
    Toy *toy = device;
    switch (event->kind) {
    case REPRISE_EVENT_RESET:
        toy_reset(toy, fx);
        break;
    case REPRISE_EVENT_READ:
        fx->reply(fx->ctx, event->tag, toy_read(toy, now, event->offset, event->size, fx));
        break;
    case REPRISE_EVENT_WRITE:
        toy_write(toy, now, event, fx);
        break;
    case REPRISE_EVENT_TIMER:
        if (event->arg == 0)
            set_status(toy, fx, 1);
        break;
    case REPRISE_EVENT_DMA_DONE:
        toy_dma_done(toy, event, fx);
        break;
    case REPRISE_EVENT_HOST:
        if (event->offset == 0) {
            fx->host_out(fx->ctx, 0, event->data.data, event->data.len);
            toy->count += (uint32_t)event->data.len;
            fx->host_want(fx->ctx, 0, toy_want(toy, 0));
        }
        break;
    }
    return 0;
}

static int32_t toy_save(const void *device, const RepriseSink *out) {
    out->write(out->ctx, device, sizeof(Toy));
    return 0;
}

static const RepriseVtable vtable = {
    .abi_version = TOY_ABI_VERSION,
    .vtable_size = sizeof(RepriseVtable),
    .event_size = TOY_EVENT_SIZE,
    .effects_size = sizeof(RepriseEffects),
    .spec_size = sizeof(RepriseSpec),
    .register_size = sizeof(RepriseRegister),
    .kind = "c-toy",
    .create = toy_create,
    .restore = toy_restore,
    .destroy = toy_destroy,
    .spec = toy_spec,
    .step = toy_step,
    .save = toy_save,
    .want = toy_want,
};

const RepriseVtable *reprise_plugin(void) { return &vtable; }
