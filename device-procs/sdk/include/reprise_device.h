#ifndef REPRISE_DEVICE_H
#define REPRISE_DEVICE_H

/* Made from device-procs/sdk/src/abi.rs by cbindgen; a test compares. Do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The one function that a plugin exports. */
struct RepriseVtable;
#ifdef __cplusplus
extern "C"
#endif
const struct RepriseVtable *reprise_plugin(void);


/*
 Version of this ABI: a host takes a plugin of exactly its own version.
 */
#define REPRISE_ABI_VERSION 2

/*
 Event kind: back to the state of a new device.
 */
#define REPRISE_EVENT_RESET 1

/*
 Event kind: read `size` bytes at `offset`; the device calls `reply` with `tag` once.
 */
#define REPRISE_EVENT_READ 2

/*
 Event kind: write the low `size` bytes of `value` at `offset`.
 */
#define REPRISE_EVENT_WRITE 3

/*
 Event kind: input pin `arg` has the level `value` (0 or 1).
 */
#define REPRISE_EVENT_LINE 4

/*
 Event kind: timer `arg` has come and is no longer armed.
 */
#define REPRISE_EVENT_TIMER 5

/*
 Event kind: the DMA request `tag` is done; `data` holds the bytes of all its read ranges.
 */
#define REPRISE_EVENT_DMA_DONE 6

/*
 Event kind: the bytes `data` came in on port `offset`.
 */
#define REPRISE_EVENT_HOST 7

/*
 Event kind: the CPU took `value` values, at least 1, from queue `arg`.
 */
#define REPRISE_EVENT_POPPED 8

/*
 Length of a disk that has no medium.
 */
#define REPRISE_NO_MEDIUM UINT64_MAX

/*
 No disk: the bytes of a DMA write come from the device.
 */
#define REPRISE_NO_DISK UINT32_MAX

/*
 Register access: reads and writes.
 */
#define REPRISE_ACCESS_READ_WRITE 0

/*
 Register access: reads; writes do nothing.
 */
#define REPRISE_ACCESS_READ_ONLY 1

/*
 Register access: writes; reads give 0.
 */
#define REPRISE_ACCESS_WRITE_ONLY 2

/*
 Read policy: the device is asked.
 */
#define REPRISE_READ_SYNC 0

/*
 Read policy: the last published value of shadow `read_arg`.
 */
#define REPRISE_READ_SHADOW 1

/*
 Read policy: always `read_arg`.
 */
#define REPRISE_READ_CONST 2

/*
 Read policy: ticks of a clock of `read_arg` Hz since guest time 0.
 */
#define REPRISE_READ_CLOCK 3

/*
 Read policy: the first value of queue `read_arg`. cpu-proc takes it by itself as long as the queue holds one, so the device sees a read only when
 the queue is empty.
 */
#define REPRISE_READ_QUEUE 4

/*
 Write policy: the CPU waits for the device.
 */
#define REPRISE_WRITE_SYNC 0

/*
 Write policy: the CPU goes on; the write changes no shadow but those named, lowers no line, and arms and disarms no timer.
 */
#define REPRISE_WRITE_POSTED 1

/*
 Write policy: the CPU waits for the device; but a write of the value that the register's shadow (its read policy) already has does nothing
 at all, so the device does not even see it.
 */
#define REPRISE_WRITE_STORED 2

/*
 Write policy: as `REPRISE_WRITE_POSTED`, for a register that drivers write many times in a row. What is written within a short time is sent
 together; the device sees each write by itself, at its own time, and in order with everything else.
 */
#define REPRISE_WRITE_FIFO 3

/*
 Port direction: from the outside to the device.
 */
#define REPRISE_PORT_IN 1

/*
 Port direction: from the device to the outside.
 */
#define REPRISE_PORT_OUT 2

/*
 Port direction: both.
 */
#define REPRISE_PORT_BOTH 3

/*
 Port framing: a stream of bytes.
 */
#define REPRISE_FRAMING_BYTES 0

/*
 Port framing: each message is a packet; wants are counted in packets.
 */
#define REPRISE_FRAMING_PACKETS 1

/*
 Bytes that belong to the caller and are valid during the call.
 */
typedef struct RepriseBytes {
    /*
     First byte; may be null if `len` is 0.
     */
    const uint8_t *data;
    /*
     Number of bytes.
     */
    size_t len;
} RepriseBytes;

/*
 Where a function writes its output: `write` may be called any number of times; the pieces are joined.
 */
typedef struct RepriseSink {
    /*
     To be handed to `write`.
     */
    void *ctx;
    /*
     Takes the next piece.
     */
    void (*write)(void *ctx, const uint8_t *data, size_t len);
} RepriseSink;

/*
 Where a function says what was wrong: UTF-8 text in a buffer of the host.
 */
typedef struct RepriseError {
    /*
     Out: line in the config's text, from 1; 0 if no place is meant.
     */
    uint32_t line;
    /*
     Out: column, from 1; 0 if no place is meant.
     */
    uint32_t column;
    /*
     In: the buffer.
     */
    uint8_t *text;
    /*
     In: its size in bytes.
     */
    size_t capacity;
    /*
     Out: bytes written, at most `capacity`.
     */
    size_t length;
} RepriseError;

/*
 One register.
 */
typedef struct RepriseRegister {
    /*
     Name in the manual; 1..=64 printable ASCII characters.
     */
    const char *name;
    /*
     Where the manual describes it; at most 128 bytes. May be null.
     */
    const char *section;
    /*
     Byte offset in the window.
     */
    uint64_t offset;
    /*
     Value after reset.
     */
    uint64_t reset;
    /*
     Argument of the read policy: shadow, constant or Hz.
     */
    uint64_t read_arg;
    /*
     The shadows that a posted write may change.
     */
    const uint16_t *shadows;
    /*
     How many.
     */
    uint32_t shadow_count;
    /*
     Access sizes for which the policies hold: sum of 1, 2, 4 and 8.
     */
    uint8_t sizes;
    /*
     `REPRISE_ACCESS_*`.
     */
    uint8_t access;
    /*
     `REPRISE_READ_*`.
     */
    uint8_t read_policy;
    /*
     `REPRISE_WRITE_*`.
     */
    uint8_t write_policy;
} RepriseRegister;

/*
 A value that the device publishes.
 */
typedef struct RepriseShadow {
    /*
     Its name.
     */
    const char *name;
    /*
     Its value until the device publishes another.
     */
    uint64_t reset;
} RepriseShadow;

/*
 A connection to a backend.
 */
typedef struct ReprisePort {
    /*
     Its name.
     */
    const char *name;
    /*
     `REPRISE_PORT_*`.
     */
    uint32_t direction;
    /*
     `REPRISE_FRAMING_*`.
     */
    uint32_t framing;
} ReprisePort;

/*
 A queue of values for a register.
 */
typedef struct RepriseQueue {
    /*
     Its name.
     */
    const char *name;
    /*
     Most values that it holds.
     */
    uint32_t depth;
} RepriseQueue;

/*
 Describes a device. Strings end with a NUL; all of it stays valid as long as the device lives.
 */
typedef struct RepriseSpec {
    /*
     The plugin's version, for people; 1..=64 printable ASCII characters.
     */
    const char *version;
    /*
     Bytes of address space; a multiple of 4.
     */
    uint64_t window;
    /*
     Registers by ascending offset.
     */
    const struct RepriseRegister *registers;
    /*
     Shadows.
     */
    const struct RepriseShadow *shadows;
    /*
     Names of the input pins.
     */
    const char *const *inputs;
    /*
     Names of the output pins.
     */
    const char *const *outputs;
    /*
     Ports.
     */
    const struct ReprisePort *ports;
    /*
     Queues.
     */
    const struct RepriseQueue *queues;
    /*
     Names of the disks.
     */
    const char *const *disks;
    /*
     Number of registers.
     */
    uint32_t register_count;
    /*
     Number of shadows.
     */
    uint32_t shadow_count;
    /*
     Number of input pins.
     */
    uint32_t input_count;
    /*
     Number of output pins.
     */
    uint32_t output_count;
    /*
     Number of ports.
     */
    uint32_t port_count;
    /*
     Number of timers.
     */
    uint32_t timer_count;
    /*
     Number of queues.
     */
    uint32_t queue_count;
    /*
     Number of disks.
     */
    uint32_t disk_count;
} RepriseSpec;

/*
 What happens to a device. Fields that a kind does not use are 0.
 */
typedef struct RepriseEvent {
    /*
     `REPRISE_EVENT_*`.
     */
    uint32_t kind;
    /*
     Bytes of a register access: 1, 2, 4 or 8.
     */
    uint32_t size;
    /*
     Names a read or a DMA request.
     */
    uint64_t tag;
    /*
     Register offset, or port.
     */
    uint64_t offset;
    /*
     Data written, or level.
     */
    uint64_t value;
    /*
     Pin or timer.
     */
    uint32_t arg;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Bulk data, valid during the call.
     */
    struct RepriseBytes data;
} RepriseEvent;

/*
 A range of guest physical addresses to read.
 */
typedef struct RepriseDmaRead {
    /*
     First address.
     */
    uint64_t addr;
    /*
     Bytes.
     */
    uint64_t len;
} RepriseDmaRead;

/*
 Bytes to write to guest RAM.
 */
typedef struct RepriseDmaWrite {
    /*
     First address.
     */
    uint64_t addr;
    /*
     The bytes. From a disk, only their number counts.
     */
    struct RepriseBytes data;
    /*
     The first byte on the disk.
     */
    uint64_t offset;
    /*
     The disk that the bytes come from, as it is at this moment, or `REPRISE_NO_DISK`.
     */
    uint32_t disk;
    /*
     0.
     */
    uint32_t reserved;
} RepriseDmaWrite;

/*
 The host's functions, valid during one `step`. A device calls them only when something changes.
 */
typedef struct RepriseEffects {
    /*
     To be handed to every function.
     */
    void *ctx;
    /*
     Answers the read `tag`: exactly once in its step.
     */
    void (*reply)(void *ctx, uint64_t tag, uint64_t value);
    /*
     Drives output pin `pin`.
     */
    void (*line)(void *ctx, uint32_t pin, bool level);
    /*
     Sets timer `id` to guest time `at` (ns); replaces its earlier setting.
     */
    void (*arm)(void *ctx, uint32_t id, uint64_t at);
    /*
     Stops timer `id`.
     */
    void (*disarm)(void *ctx, uint32_t id);
    /*
     Asks for a DMA transfer; `tag` is below 2^32.
     */
    void (*dma)(void *ctx,
                uint64_t tag,
                const struct RepriseDmaRead *reads,
                size_t read_count,
                const struct RepriseDmaWrite *writes,
                size_t write_count);
    /*
     Publishes the value of shadow `shadow`.
     */
    void (*publish)(void *ctx, uint16_t shadow, uint64_t value);
    /*
     Sends bytes out on port `port`.
     */
    void (*host_out)(void *ctx, uint32_t port, const uint8_t *data, size_t len);
    /*
     States how many more bytes (or packets) the device can take on port `port` after this step.
     */
    void (*host_want)(void *ctx, uint32_t port, uint64_t bytes);
    /*
     Appends values to queue `queue`. Not in the step of a read of its register.
     */
    void (*queue)(void *ctx, uint16_t queue, const uint32_t *values, size_t count);
    /*
     Throws away what queue `queue` holds.
     */
    void (*queue_clear)(void *ctx, uint16_t queue);
    /*
     The size of disk `disk`, a multiple of 512, or `REPRISE_NO_MEDIUM`.
     */
    uint64_t (*disk_len)(void *ctx, uint32_t disk);
    /*
     Whether disk `disk` can't be written.
     */
    bool (*disk_read_only)(void *ctx, uint32_t disk);
    /*
     Reads from disk `disk`.
     */
    void (*disk_read)(void *ctx, uint32_t disk, uint64_t offset, uint8_t *data, size_t len);
    /*
     Writes to disk `disk`.
     */
    void (*disk_write)(void *ctx, uint32_t disk, uint64_t offset, const uint8_t *data, size_t len);
    /*
     Makes a range of disk `disk` read as zeros.
     */
    void (*disk_discard)(void *ctx, uint32_t disk, uint64_t offset, uint64_t len);
    /*
     What was written to disk `disk` is to survive a crash of the host.
     */
    void (*disk_flush)(void *ctx, uint32_t disk);
    /*
     Says why `step` is about to fail: UTF-8 text.
     */
    void (*fault)(void *ctx, const uint8_t *text, size_t len);
} RepriseEffects;

/*
 What a plugin is: its functions. No field may be null but `describe`.
 */
typedef struct RepriseVtable {
    /*
     `REPRISE_ABI_VERSION`.
     */
    uint32_t abi_version;
    /*
     `sizeof(RepriseVtable)`.
     */
    uint32_t vtable_size;
    /*
     `sizeof(RepriseEvent)`.
     */
    uint32_t event_size;
    /*
     `sizeof(RepriseEffects)`.
     */
    uint32_t effects_size;
    /*
     `sizeof(RepriseSpec)`.
     */
    uint32_t spec_size;
    /*
     `sizeof(RepriseRegister)`.
     */
    uint32_t register_size;
    /*
     The plugin's kind: lower-case letters, digits and dashes, NUL-terminated.
     */
    const char *kind;
    /*
     Makes a device from the text of the machine file's `config` value (RON); null and `error` if that is no good.
     */
    void *(*create)(struct RepriseBytes config, struct RepriseError *error);
    /*
     Makes a device with a saved state; null and `error` if that is impossible. The bytes can be anything.
     */
    void *(*restore)(struct RepriseBytes config, struct RepriseBytes state, struct RepriseError *error);
    /*
     Ends a device.
     */
    void (*destroy)(void *device);
    /*
     Describes a device.
     */
    const struct RepriseSpec *(*spec)(const void *device);
    /*
     Takes an event at guest time `now` (ns); 0, or another value after a fault, from which on the device is dead.
     */
    int32_t (*step)(void *device, uint64_t now, const struct RepriseEvent *event, const struct RepriseEffects *effects);
    /*
     Writes the device's whole state; 0 if that worked. The same state gives the same bytes.
     */
    int32_t (*save)(const void *device, const struct RepriseSink *out);
    /*
     How many bytes of host input the device can take on `port` now, as `host_want` last said.
     */
    uint64_t (*want)(const void *device, uint32_t port);
    /*
     Writes the device's state as JSON text, for people; 0 if that worked. Nothing reads it back. May be null; a table that ends before this field is
     good as well.
     */
    int32_t (*describe)(const void *device, const struct RepriseSink *out);
} RepriseVtable;

#endif  /* REPRISE_DEVICE_H */
