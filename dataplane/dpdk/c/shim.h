/* What Rust sees of DPDK. The structures are those of crate `ports`, which checks their layout when it is built. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define MW_BURST 64
/* Packets received at once. Their buffers are used again by the next burst: more of them don't stay in the nearest cache. */
#define MW_AT_ONCE 32

struct mw_piece {
    const void *data;
    uint32_t length;
    uint16_t spare;
    uint16_t more;
};

struct mw_device {
    uint8_t mac[6];
    uint8_t link_up;
    uint64_t received, sent, missed, errors_in, errors_out, no_buffer;
};

/* Each returns 0 or a count, or a negative error number. */
int mw_init(int count, char **arguments);
const char *mw_error(int number);
int mw_pool(uint32_t buffers, uint32_t room, void **pool);
int mw_open(const char *device, uint16_t *port);
int mw_start(uint16_t port, void *pool, uint16_t descriptors, uint16_t mtu);
int mw_close(uint16_t port);
int mw_look(uint16_t port, struct mw_device *device);
int mw_thread_begin(void);
void mw_thread_end(void);

/* Up to MW_AT_ONCE packets, a buffer each; *lost counts those that are in more pieces than can be joined. */
uint16_t mw_receive(uint16_t port, void **buffers, uint64_t *bytes, uint64_t *lost);
/* A piece for each buffer. */
void mw_describe(void **buffers, uint16_t count, struct mw_piece *pieces);
/* Send our own buffers; returns how many are gone, and adds up the bytes of the others. */
uint16_t mw_send_own(uint16_t port, void **buffers, uint16_t count, uint64_t *left);
/* Copy and send; each packet is one or more pieces. Counts packets and bytes that went and packets that didn't. */
void mw_send_copy(uint16_t port, void *pool, const struct mw_piece *pieces, uint16_t count, uint64_t *packets,
                  uint64_t *bytes, uint64_t *full, uint64_t *too_long);
void mw_free(void **buffers, uint16_t count);
