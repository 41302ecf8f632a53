#!/usr/bin/env python3
"""Writes the seeds of the fuzzers of network cards: fuzz/corpus/virtio_net_fuzz, fuzz/corpus/netlink_message_fuzz.

Run it again after a change of what these fuzzers make of their bytes (src/virtio/net/virtio_net_fuzz.cc,
src/net/netlink/netlink_message_fuzz.cc).
"""

import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"

# --- virtio_net_fuzz: operations, each a byte that says which, a byte of choice, and operands -----------------------

NEXT, WRITE, INDIRECT = 1, 2, 4
CONTROL = 4  # the queue behind two pairs


def receive_queue(pair: int) -> int:
    return 2 * pair


def transmit_queue(pair: int) -> int:
    return 2 * pair + 1


def memory(at: int, contents: bytes) -> bytes:
    contents += bytes(-len(contents) % 8)
    words = [contents[i : i + 8] for i in range(0, len(contents), 8)]
    return b"".join(struct.pack("<BBI", 0, 0, at + 8 * i) + word for i, word in enumerate(words))


def descriptor(queue: int, index: int, at: int, length: int, flags: int = 0, following: int = 0) -> bytes:
    return struct.pack("<BBBIIHH", 1, queue, index, at, length, flags, following)


def offer(queue: int, head: int) -> bytes:
    return struct.pack("<BBB", 2, queue, head)


def doorbell(queue: int) -> bytes:
    return struct.pack("<BB", 3, queue)


def arrive(queue: int, frame: bytes, header: bytes = bytes(12), length: int | None = None) -> bytes:
    """A frame of `length` bytes from the backend's queue; of its beginning as much as the byte of choice says."""
    shown = len(frame) + (queue + len(frame)) % 2  # the choice is of the queue, too
    length = shown if length is None else length
    return struct.pack("<BBH", 4, shown, length) + header + frame.ljust(shown, b"\0")


def room(queue: int, frames: int) -> bytes:
    return struct.pack("<BBB", 5, queue, frames)


def link(up: bool, wanted: bool) -> bytes:
    return struct.pack("<BB", 6, up | 2 * wanted)


PAUSE = bytes((7, 0))


def reset(features: int, event_index: bool = True, indirect: bool = True) -> bytes:
    return struct.pack("<BBQ", 8, event_index | 2 * indirect, features)


def look(offset: int) -> bytes:
    return struct.pack("<BB", 9, offset)


def network(pairs: int, offloads: bool) -> bytes:
    return struct.pack("<BB", 10, offloads | 2 * (pairs - 1))


def steer(entries_power: int, key: bytes, transmit_queues: int = 2, types: int = 0x3F) -> bytes:
    entries = 1 << entries_power
    named = bytes(i % 2 for i in range(entries) if i % 8 == 7)
    return (
        struct.pack("<BBBB", 11, entries_power, types, 0)
        + named
        + struct.pack("<BB", transmit_queues, len(key))
        + key
        + b"\1"
    )


def command(data: bytes) -> bytes:
    at = 0x60000
    return (
        memory(at, data)
        + descriptor(CONTROL, 0, at, len(data), NEXT, 1)
        + descriptor(CONTROL, 1, at + 0x8000, 1, WRITE)
        + offer(CONTROL, 0)
        + doorbell(CONTROL)
    )


def send(pair: int, header: bytes, frame: bytes) -> bytes:
    at = 0x50000
    queue = transmit_queue(pair)
    return (
        memory(at, header + frame)
        + descriptor(queue, 0, at, len(header), NEXT, 1)
        + descriptor(queue, 1, at + len(header), len(frame))
        + offer(queue, 0)
        + doorbell(queue)
    )


def buffers(pair: int, count: int, size: int) -> bytes:
    queue = receive_queue(pair)
    steps = [descriptor(queue, i, 0x20000 + size * i, size, WRITE) + offer(queue, i) for i in range(count)]
    return b"".join(steps) + doorbell(queue)


def ethernet(payload: bytes, kind: int, tags: int = 0) -> bytes:
    return bytes((2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2)) + b"\x81\0\0\5" * tags + struct.pack(">H", kind) + payload


def ipv4(protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    return struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0, 0x0A000001, 0x0A000002) + payload


def ipv6(following: int, payload: bytes) -> bytes:
    return struct.pack(">IHBB", 0x60000000, len(payload), following, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + payload


def tcp(payload: bytes) -> bytes:
    return struct.pack(">HHIIBBHHH", 1024, 80, 1, 0, 0x50, 0x18, 1000, 0, 0) + payload


def udp(payload: bytes) -> bytes:
    return struct.pack(">HHHH", 1024, 53, 8 + len(payload), 0) + payload


def left_to_do(gso: int, size: int, start: int, offset: int, headers: int) -> bytes:
    """A struct virtio_net_hdr_v1 of a frame whose checksum isn't made yet."""
    return struct.pack("<BBHHHHH", 1, gso, headers, size, start, offset, 0)


ALL = (1 << 64) - 1
TCP4 = ethernet(ipv4(6, tcp(bytes(400))), 0x0800)
UDP6 = ethernet(ipv6(17, udp(bytes(400))), 0x86DD, tags=1)
TO_TWO = command(bytes((4, 0, 2, 0)))

VIRTIO_NET = {
    "send": send(0, bytes(12), TCP4),
    "send_segments": send(0, left_to_do(1, 100, 34, 16, 54), TCP4) + send(0, left_to_do(5, 100, 58, 6, 66), UDP6),
    "segments_by_ourselves": network(1, False)
    + send(0, left_to_do(1, 100, 34, 16, 54), TCP4)
    + send(0, left_to_do(5, 100, 58, 6, 66), UDP6)
    + send(0, left_to_do(0, 0, 34, 16, 0), TCP4),
    "wait_for_room": room(0, 0) + send(0, bytes(12), TCP4) + PAUSE + room(0, 3) + PAUSE,
    "receive": buffers(0, 4, 2048) + arrive(0, TCP4[:80]) + arrive(0, UDP6[:80], length=5000),
    "receive_without_merging": reset(ALL & ~(1 << 15)) + buffers(0, 2, 2048) + arrive(0, TCP4[:80]),
    "starved": arrive(0, TCP4[:80], length=3000) + buffers(0, 1, 1024) + buffers(0, 4, 1024),
    "two_pairs": TO_TWO + buffers(1, 4, 2048) + arrive(1, TCP4[:80]) + send(1, bytes(12), TCP4),
    "steer": steer(1, bytes(range(40)))
    + buffers(0, 4, 2048)
    + buffers(1, 4, 2048)
    + arrive(0, TCP4[:80])
    + arrive(1, UDP6[:100])
    + arrive(0, ethernet(ipv6(0, bytes((44, 0) + (0,) * 6 + (6, 0) + (0,) * 6) + tcp(b"")), 0x86DD)),
    "steer_and_starve": steer(3, bytes(range(40))) + arrive(0, TCP4[:80]) + buffers(1, 2, 2048) + buffers(0, 2, 2048),
    "steer_then_move": steer(7, bytes(range(40))) + network(1, True) + buffers(1, 2, 2048) + arrive(0, UDP6[:80]) + TO_TWO,
    "filters": command(bytes((0, 0, 0)))
    + command(bytes((1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0x5E, 0, 0, 1)))
    + command(bytes((2, 0, 5, 0)))
    + buffers(0, 2, 2048)
    + arrive(0, UDP6[:80])
    + arrive(0, TCP4[:80]),
    "address_and_offloads": command(bytes((1, 1, 2, 0, 0, 0, 0, 9))) + command(bytes((5, 0)) + struct.pack("<Q", 2)) + look(0),
    "link": link(False, True) + look(6) + link(True, False) + look(6) + link(True, True) + command(bytes((3, 0))) + look(6),
    "indirect": memory(0x40000, struct.pack("<QIHHQIHH", 0x50000, 12, NEXT, 1, 0x50010, 60, 0, 0))
    + descriptor(transmit_queue(0), 0, 0x40000, 32, INDIRECT)
    + offer(transmit_queue(0), 0)
    + doorbell(transmit_queue(0)),
    "loop": descriptor(transmit_queue(0), 0, 0x50000, 64, NEXT, 0) + offer(transmit_queue(0), 0) + doorbell(transmit_queue(0)),
    "reset_without_features": reset(0, False, False) + send(0, bytes(12), TCP4) + reset(ALL),
}

# --- netlink_message_fuzz: datagrams of the kernel's ------------------------------------------------------------------

ERROR, DONE, NEWLINK, DELLINK = 2, 3, 16, 17
MULTI, INTERRUPTED, CAPPED, ACK_TLVS = 2, 0x10, 0x100, 0x200
IFNAME, MTU, MASTER, LINKINFO, IFALIAS, STATS64 = 3, 4, 10, 18, 20, 23
INFO_KIND, INFO_DATA = 1, 2
TUN_QUEUES, TUN_DISABLED_QUEUES = 8, 9  # IFLA_TUN_NUM_...


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("<I", value))


def message(kind: int, payload: bytes, flags: int = 0, sequence: int = 1, length: int | None = None) -> bytes:
    length = 16 + len(payload) if length is None else length
    return struct.pack("<IHHII", length, kind, flags, sequence, 0) + payload + bytes(-len(payload) % 4)


def link_of(index: int, *attributes: bytes, family: int = 0) -> bytes:
    return struct.pack("<BBHiII", family, 0, 1, index, 0x11043, 0) + b"".join(attributes)


BRIDGE = link_of(
    3,
    attribute(IFNAME, b"br0\0"),
    attribute(IFALIAS, b"{3f2504e0-4f89-11d3-9a0c-000000000001}\0"),
    number(MTU, 1500),
    attribute(LINKINFO, attribute(INFO_KIND, b"bridge\0") + attribute(INFO_DATA, number(1, 1500))),
)
TAP = link_of(
    4,
    attribute(IFNAME, b"bothy0\0"),
    number(MTU, 9000),
    number(MASTER, 3),
    attribute(
        LINKINFO,
        attribute(INFO_KIND, b"tun\0") + attribute(INFO_DATA, number(TUN_QUEUES, 2) + number(TUN_DISABLED_QUEUES, 1)),
    ),
    attribute(STATS64, struct.pack("<24Q", *range(24))),
)
REQUEST = struct.pack("<IHHII", 32, 16, 5, 7, 0)
SAYS = attribute(1, b"Attribute failed policy validation\0")

NETLINK = {
    "list": message(NEWLINK, BRIDGE, MULTI) + message(NEWLINK, TAP, MULTI) + message(DONE, bytes(4), MULTI),
    "interrupted_list": message(NEWLINK, BRIDGE, MULTI | INTERRUPTED) + message(DONE, bytes(4), MULTI | INTERRUPTED),
    "gone": message(DELLINK, TAP, sequence=0),
    "port_of_another_family": message(NEWLINK, link_of(4, number(MASTER, 3), family=7), sequence=0),
    "done": message(ERROR, struct.pack("<i", 0) + REQUEST),
    "error": message(ERROR, struct.pack("<i", -22) + REQUEST + bytes(16) + SAYS, ACK_TLVS),
    "capped_error": message(ERROR, struct.pack("<i", -17) + REQUEST + SAYS, ACK_TLVS | CAPPED),
    "lowest_error": message(ERROR, struct.pack("<i", -(2**31)) + REQUEST),
    "cut_off": message(NEWLINK, BRIDGE)[:60],
    "longer_than_it_is": message(NEWLINK, BRIDGE, length=4000),
    "attribute_beyond_the_end": message(NEWLINK, link_of(3, struct.pack("<HH", 400, IFNAME) + b"br0\0")),
    "attribute_of_no_length": message(NEWLINK, link_of(3, struct.pack("<HH", 0, IFNAME), number(MTU, 1500))),
}


def main() -> None:
    for name, seeds in (("virtio_net_fuzz", VIRTIO_NET), ("netlink_message_fuzz", NETLINK)):
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed, contents in seeds.items():
            (folder / seed).write_bytes(contents)


if __name__ == "__main__":
    main()
