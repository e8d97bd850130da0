/* DPDK's burst functions are static inline: here they become functions that Rust can call, once a burst. */
#include "shim.h"

#include <errno.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

int mw_init(int count, char **arguments)
{
    return rte_eal_init(count, arguments) < 0 ? -rte_errno : 0;
}

const char *mw_error(int number)
{
    return rte_strerror(number < 0 ? -number : number);
}

int mw_pool(uint32_t buffers, uint32_t room, void **pool)
{
    *pool = rte_pktmbuf_pool_create("meshwright", buffers, 256, 0, RTE_PKTMBUF_HEADROOM + room, SOCKET_ID_ANY);
    return *pool ? 0 : -rte_errno;
}

int mw_open(const char *device, uint16_t *port)
{
    char name[RTE_ETH_NAME_MAX_LEN];
    size_t length = strcspn(device, ",");
    if (length == 0 || length >= sizeof name)
        return -EINVAL;
    memcpy(name, device, length);
    name[length] = 0;
    int status = rte_eth_dev_get_port_by_name(name, port);
    if (status) { /* not there yet: virtual devices aren't until they are asked for */
        status = rte_dev_probe(device);
        if (!status)
            status = rte_eth_dev_get_port_by_name(name, port);
    }
    return status;
}

int mw_start(uint16_t port, void *pool, uint16_t descriptors, uint16_t mtu)
{
    struct rte_eth_conf configuration;
    struct rte_eth_dev_info info;
    uint16_t in = descriptors, out = descriptors;
    memset(&configuration, 0, sizeof configuration);
    int status = rte_eth_dev_info_get(port, &info);
    if (status)
        return status;
    if (mtu && info.max_mtu >= mtu)
        configuration.rxmode.mtu = mtu;
    configuration.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    if ((status = rte_eth_dev_configure(port, 1, 1, &configuration)))
        return status;
    if ((status = rte_eth_dev_adjust_nb_rx_tx_desc(port, &in, &out)))
        return status;
    int socket = rte_eth_dev_socket_id(port);
    if ((status = rte_eth_rx_queue_setup(port, 0, in, socket, NULL, pool)))
        return status;
    if ((status = rte_eth_tx_queue_setup(port, 0, out, socket, NULL)))
        return status;
    if ((status = rte_eth_dev_start(port)))
        return status;
    /* A cross-connect carries what has any address. Devices that can't listen to all say so in their own way. */
    (void)rte_eth_promiscuous_enable(port);
    return 0;
}

int mw_close(uint16_t port)
{
    struct rte_eth_dev_info info;
    int status = rte_eth_dev_info_get(port, &info);
    if (status)
        return status;
    if ((status = rte_eth_dev_stop(port)))
        return status;
    if ((status = rte_eth_dev_close(port)))
        return status;
    return info.device ? rte_dev_remove(info.device) : 0;
}

int mw_look(uint16_t port, struct mw_device *device)
{
    struct rte_ether_addr address;
    struct rte_eth_stats stats;
    struct rte_eth_link link;
    memset(&link, 0, sizeof link);
    int status = rte_eth_macaddr_get(port, &address);
    if (status)
        return status;
    if ((status = rte_eth_stats_get(port, &stats)))
        return status;
    (void)rte_eth_link_get_nowait(port, &link); /* a device without links is never up */
    memcpy(device->mac, address.addr_bytes, sizeof device->mac);
    device->link_up = link.link_status;
    device->received = stats.ipackets;
    device->sent = stats.opackets;
    device->missed = stats.imissed;
    device->errors_in = stats.ierrors;
    device->errors_out = stats.oerrors;
    device->no_buffer = stats.rx_nombuf;
    return 0;
}

int mw_thread_begin(void)
{
    return rte_thread_register() ? -rte_errno : 0;
}

void mw_thread_end(void)
{
    rte_thread_unregister();
}

/* Make packets in several pieces packets in one, which any device sends; free those that don't fit into one buffer. */
static uint16_t join(struct rte_mbuf **mbufs, uint16_t count, uint64_t *bytes, uint64_t *lost)
{
    uint16_t good = 0;
    for (uint16_t i = 0; i < count; i++) {
        struct rte_mbuf *mbuf = mbufs[i];
        if (mbuf->nb_segs > 1 && rte_pktmbuf_linearize(mbuf)) {
            *bytes -= mbuf->pkt_len;
            ++*lost;
            rte_pktmbuf_free(mbuf);
        } else {
            mbufs[good++] = mbuf;
        }
    }
    return good;
}

uint16_t mw_receive(uint16_t port, void **buffers, uint64_t *bytes, uint64_t *lost)
{
    struct rte_mbuf **mbufs = (struct rte_mbuf **)buffers;
    uint16_t count = rte_eth_rx_burst(port, 0, mbufs, MW_AT_ONCE), segments = 1;
    uint64_t sum = 0;
    /* Both fields are in the line that the driver just wrote: no packet costs a miss or a branch. */
    for (uint16_t i = 0; i < count; i++) {
        sum += mbufs[i]->pkt_len;
        segments |= mbufs[i]->nb_segs;
    }
    if (unlikely(segments > 1))
        count = join(mbufs, count, &sum, lost);
    *bytes += sum;
    return count;
}

void mw_describe(void **buffers, uint16_t count, struct mw_piece *pieces)
{
    for (uint16_t i = 0; i < count; i++) {
        const struct rte_mbuf *mbuf = buffers[i];
        struct mw_piece *piece = &pieces[i];
        uint32_t length = mbuf->data_len, behind = (uint32_t)mbuf->buf_len - mbuf->data_off - length;
        piece->data = rte_pktmbuf_mtod(mbuf, const void *);
        piece->length = length;
        piece->spare = behind > 64 ? 64 : (uint16_t)behind;
        piece->more = 0;
    }
}

uint16_t mw_send_own(uint16_t port, void **buffers, uint16_t count, uint64_t *left)
{
    struct rte_mbuf **mbufs = (struct rte_mbuf **)buffers;
    uint16_t gone = rte_eth_tx_burst(port, 0, mbufs, count);
    for (uint16_t i = gone; i < count; i++)
        *left += mbufs[i]->pkt_len;
    return gone;
}

void mw_send_copy(uint16_t port, void *pool, const struct mw_piece *pieces, uint16_t count, uint64_t *packets,
                  uint64_t *bytes, uint64_t *full, uint64_t *too_long)
{
    struct rte_mbuf *mbufs[MW_BURST];
    uint16_t wanted = 0, ready = 0, at = 0;
    for (uint16_t i = 0; i < count; i++)
        wanted += !pieces[i].more;
    if (rte_pktmbuf_alloc_bulk(pool, mbufs, wanted)) {
        *full += wanted;
        return;
    }
    for (uint16_t packet = 0; packet < wanted; packet++) {
        struct rte_mbuf *mbuf = mbufs[packet];
        uint32_t length = 0;
        int fits = 1, last;
        do {
            const struct mw_piece *piece = &pieces[at++];
            last = !piece->more;
            if (fits && (fits = piece->length <= (uint32_t)rte_pktmbuf_tailroom(mbuf) - length)) {
                memcpy(rte_pktmbuf_mtod_offset(mbuf, void *, length), piece->data, piece->length);
                length += piece->length;
            }
        } while (!last && at < count);
        if (!fits) {
            rte_pktmbuf_free(mbuf);
            ++*too_long;
            continue;
        }
        mbuf->data_len = length;
        mbuf->pkt_len = length;
        mbufs[ready++] = mbuf;
    }
    uint64_t sum = 0;
    for (uint16_t i = 0; i < ready; i++)
        sum += mbufs[i]->pkt_len;
    uint16_t gone = rte_eth_tx_burst(port, 0, mbufs, ready);
    *packets += gone;
    if (gone < ready) {
        for (uint16_t i = gone; i < ready; i++)
            sum -= mbufs[i]->pkt_len;
        *full += ready - gone;
        rte_pktmbuf_free_bulk(&mbufs[gone], ready - gone);
    }
    *bytes += sum;
}

void mw_free(void **buffers, uint16_t count)
{
    rte_pktmbuf_free_bulk((struct rte_mbuf **)buffers, count);
}
